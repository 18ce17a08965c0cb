"""What goes wrong on purpose, and what is remembered: points 12 and 13."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from . import (
    Delay,
    DropAfter,
    Passes,
    PathologyServer,
    Reset,
    Status,
    case_scenario,
)
from .client import VERSION_HEADER, Client, outline

# 12. The fault plan.


def test_a_plan_of_statuses_is_followed_and_then_everything_works(
    server: PathologyServer, client: Client
) -> None:
    server.faults.plan(
        "results.create", Status(503, retry_after_s=7), Passes(), Status(500)
    )
    answers = [client.post(outline()) for _ in range(4)]
    assert [one.status_code for one in answers] == [503, 201, 500, 201]
    assert answers[0].headers["retry-after"] == "7"
    assert len(server.results.all()) == 2


def test_a_reset_has_no_effect_and_a_drop_after_has_one(
    server: PathologyServer, client: Client
) -> None:
    server.faults.plan("results.create", Reset(), DropAfter())
    with pytest.raises(httpx.TransportError):
        client.post(outline())
    assert server.results.all() == []
    with pytest.raises(httpx.TransportError):
        client.post(outline())
    assert len(server.results.all()) == 1
    assert [one.fault for one in server.record.of("results.create")] == [
        "Reset",
        "DropAfter",
    ]


def test_a_delay_holds_back_one_answer_and_not_the_others(
    server: PathologyServer, client: Client
) -> None:
    server.faults.plan("slides.info", Delay(5), slide_id="sl-portrait")
    with (
        Client(server) as other,
        pytest.raises(httpx.ReadTimeout),
    ):
        other.get("slides/sl-portrait/info", timeout=0.3)
    assert client.get("slides/sl-0001/info").status_code == 200


def test_a_share_of_requests_meets_a_fault_the_same_in_every_run() -> None:
    seen = []
    for _ in range(2):
        with PathologyServer(case_scenario()) as server, Client(server) as client:
            server.faults.chance("info", Status(503), probability=0.3, seed=7)
            seen.append([client.get("info").status_code for _ in range(40)])
    assert seen[0] == seen[1]
    assert 3 < seen[0].count(503) < 25


# 13. The record.


def test_every_request_is_recorded_even_a_refused_one(
    server: PathologyServer, client: Client
) -> None:
    client.get("slides/sl-0001/info?scope=extended")
    client.post({"nothing": 1})
    client.get("nowhere")
    one, two, three = server.record.of()
    assert (one.route, one.status, one.slide_id) == ("slides.info", 200, "sl-0001")
    assert one.asked("scope") == "extended"
    assert one.headers[VERSION_HEADER.lower()] == "1.10"
    assert (two.status, two.body_bytes) == (400, len(b'{"nothing":1}'))
    assert (three.route, three.status) == ("", 404)
    assert one.time_s <= two.time_s <= three.time_s


def test_the_helpers_of_the_record_say_what_they_say(
    server: PathologyServer, client: Client
) -> None:
    record = server.record
    client.get("info")
    client.get("slides/sl-0001/info")
    record.assert_order("info", "slides.info")
    record.assert_headers("Authorization", VERSION_HEADER)
    record.assert_count("info", 1)
    record.assert_nothing_refused()
    mark = record.mark()
    record.assert_silent(since=mark)
    client.post({"nothing": 1})
    for wrong in (
        lambda: record.assert_order("slides.info", "info"),
        lambda: record.assert_headers("X-Sectra-SoftwareVersion"),
        lambda: record.assert_count("info", 2),
        lambda: record.assert_nothing_refused(),
        lambda: record.assert_silent(since=mark),
    ):
        with pytest.raises(AssertionError):
            wrong()


def test_waiting_for_the_record_ends_when_the_request_comes(
    server: PathologyServer, client: Client
) -> None:
    asking = threading.Thread(target=client.get, args=("info",))
    asking.start()
    server.record.wait(lambda record: record.count("info") == 1, timeout_s=10)
    asking.join()
    with pytest.raises(AssertionError, match="not within"):
        server.record.wait(lambda record: record.count("info") == 2, timeout_s=0.05)


# For benchmarks.


def test_each_callback_waits_for_the_latency_without_holding_others_up() -> None:
    with PathologyServer(case_scenario(), latency_s=0.2) as server:
        clients = [Client(server) for _ in range(8)]
        start_s = time.perf_counter()
        threads = [threading.Thread(target=one.get, args=("info",)) for one in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - start_s
        for one in clients:
            one.http.close()
        assert server.record.count("info") == 8
    # Eight in a row would take 1.6 s.
    assert 0.2 <= took_s < 1.4


def test_a_port_that_is_taken_is_told_at_once(server: PathologyServer) -> None:
    port = int(server.origin.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), PathologyServer(port=port):
        pass
