"""Live, ready and metrics, on a port of their own."""

from __future__ import annotations

import httpx

from hub.durable.health import ports_of, serving
from services.ia_api.health import Queue
from services.ia_api.jobs import Figures

from .running_site import free_port

FIGURES = Figures(
    jobs={"queued": 3, "running": 1},
    oldest_s=12.0,
    unclosed=2,
    workers=4,
    disk_used=1000,
    disk_free=9000,
)


def test_a_process_tells_whether_it_lives_and_can_work() -> None:
    troubles = ["the database does not answer"]
    port = free_port()
    with serving("127.0.0.1", [port], lambda: troubles[-1], Queue(lambda: FIGURES)):
        base = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{base}/live").status_code == 200
        answer = httpx.get(f"{base}/ready")
        assert (answer.status_code, answer.text) == (503, f"{troubles[0]}\n")
        assert httpx.get(f"{base}/other").status_code == 404


def test_the_queue_is_told_to_prometheus() -> None:
    port = free_port()
    with serving("127.0.0.1", [port], lambda: None, Queue(lambda: FIGURES)):
        assert httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'theatrum_ia_api_jobs{state="queued"} 3.0' in text
    assert "theatrum_ia_api_oldest_queued_seconds 12.0" in text
    assert "theatrum_ia_api_workers 4.0" in text


def test_each_worker_takes_the_next_port_that_is_free() -> None:
    ports = ports_of(free_port(), worker=True)
    with (
        serving("127.0.0.1", ports, lambda: None, Queue(lambda: FIGURES)),
        serving("127.0.0.1", ports, lambda: "another", Queue(lambda: FIGURES)),
    ):
        answers = []
        for port in ports[:8]:
            try:
                answers.append(httpx.get(f"http://127.0.0.1:{port}/ready").status_code)
            except httpx.TransportError:
                continue
    assert {200, 503} <= set(answers)
