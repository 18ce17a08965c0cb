"""Results and their attachments: points 3, 4, 5, 10 and 11."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from . import (
    PathologyServer,
    case_scenario,
    synthetic_slide,
)
from .client import APP, Client, gallery, outline, stored
from .schemas import schema_problem

# 3. Creating results.


def test_a_created_result_has_a_rising_id_and_version_1(
    server: PathologyServer, client: Client
) -> None:
    first = stored(client)
    with Client(server, application_id="other") as other:
        second = stored(other)
    assert second["id"] == first["id"] + 1
    assert first["versionId"] == "1"
    assert schema_problem("StoredResult", first) is None


def _broken(change: str) -> dict[str, Any]:
    body = outline()
    item = body["data"]["result"]["content"][0]
    if change == "unknown slide":
        body["slideId"] = "nowhere"
    elif change == "no data.result":
        del body["data"]["result"]
    elif change == "tag beyond":
        body = gallery(tags=(0, 2))
    elif change == "two points":
        del item["polygons"][0]["points"][2:]
    elif change == "polyline of one point":
        item["polylines"] = [{"points": [{"x": 0, "y": 0}]}]
    elif change == "null list":
        item["polylines"] = None
    elif change == "null attachments":
        body["attachments"] = None
    elif change == "single object":
        body["data"]["result"]["content"] = item
    elif change == "six tags":
        body = gallery()
        body["data"]["result"]["content"]["tags"] = list("abcdef")
    elif change == "with id":
        body["id"] = 3
    return body


ALWAYS_REFUSED = (
    "unknown slide",
    "no data.result",
    "tag beyond",
    "two points",
    "polyline of one point",
    "with id",
)
STRICTLY_REFUSED = ("null list", "null attachments", "single object", "six tags")


@pytest.mark.parametrize("change", [*ALWAYS_REFUSED, *STRICTLY_REFUSED])
def test_a_broken_result_is_refused_and_not_stored(
    server: PathologyServer, client: Client, change: str
) -> None:
    assert client.post(_broken(change)).status_code == 400
    assert server.results.all() == []


@pytest.mark.parametrize("change", STRICTLY_REFUSED)
def test_a_lenient_server_lets_pass_what_only_strictness_refuses(change: str) -> None:
    with (
        PathologyServer(case_scenario(), strict=False) as server,
        Client(server) as client,
    ):
        assert client.post(_broken(change)).status_code == 201


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(client: Client, number: str) -> None:
    text = json.dumps(outline()).replace("0.7", number)
    answer = client.http.post(
        client.results,
        content=text.encode(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400


def test_shared_semantic_faults_are_refused_or_warned_of(shared_api: Path) -> None:
    given = json.loads((shared_api / "semantic_invalid_results.json").read_text())
    slide = synthetic_slide("sl-0001", width=106624, height=77452)
    for one in given:
        with PathologyServer([slide]) as server, Client(server) as client:
            status = client.post(one["instance"]).status_code
            if "test double" in one["reject_by"]:
                assert status == 400
            else:
                assert status == 201
                assert "outside the slide" in server.warnings[0]


def test_the_shared_story_of_a_result_is_accepted(shared_api: Path) -> None:
    def example(name: str) -> dict[str, Any]:
        path = shared_api / f"{name}.example.json"
        told: dict[str, Any] = json.loads(path.read_text())
        return told

    slide = synthetic_slide("sl-0001", width=106624, height=77452)
    with PathologyServer([slide]) as server, Client(server) as client:
        kept = stored(client, example("result_new_in_progress"))
        final = client.put(example("result_update_final"), kept["id"])
        assert final.status_code == 200, final.text
        wanted = example("result_stored_final")
        assert final.json()["versionId"] == wanted["versionId"]
        assert final.json()["data"] == wanted["data"]
        assert server.warnings == []


# 4. Updating.


@pytest.mark.parametrize("status", [409, 412, 400])
def test_a_stale_version_gets_the_configured_status(status: int) -> None:
    with (
        PathologyServer(case_scenario(), conflict_status=status) as server,
        Client(server) as client,
    ):
        kept = stored(client)
        second = client.put(kept)
        assert (second.status_code, second.json()["versionId"]) == (200, "2")
        stale = client.put(kept)
        assert stale.status_code == status
        assert stale.text
        without = copy.deepcopy(second.json())
        del without["versionId"]
        assert client.put(without).status_code == status


def test_an_update_may_leave_the_id_out(client: Client) -> None:
    kept = stored(client)
    result_id = kept.pop("id")
    assert client.put(kept, result_id).status_code == 200


def test_an_update_of_another_slide_or_of_nothing_is_refused(client: Client) -> None:
    kept = stored(client)
    assert client.put({**kept, "slideId": "sl-portrait"}).status_code == 400
    assert client.put(kept, 99999).status_code == 404


def test_a_result_of_another_application_is_not_there(
    server: PathologyServer, client: Client
) -> None:
    kept = stored(client)
    with Client(server, application_id="other") as other:
        assert other.get(f"{other.results}/{kept['id']}").status_code == 404
        assert other.put(kept).status_code == 404


def test_no_application_may_delete_a_result(
    server: PathologyServer, client: Client
) -> None:
    kept = stored(client)
    answer = client.http.delete(f"{client.results}/{kept['id']}")
    assert answer.status_code == 405
    assert server.results.current(kept["id"]) is not None


# 5. Listing.


def test_results_of_a_slide_come_oldest_first(client: Client) -> None:
    made = [stored(client)["id"] for _ in range(3)]
    stored(client, outline("sl-portrait"))
    listed = client.get(f"{client.results}/slide/sl-0001").json()
    assert [one["id"] for one in listed] == made


def test_a_slash_after_results_is_accepted(client: Client) -> None:
    assert client.http.post(f"{client.results}/", json=outline()).status_code == 201


# 10. Attachments.


def test_an_attachment_is_uploaded_only_where_enabled_and_read_by_range() -> None:
    for enabled in (False, True):
        with (
            PathologyServer(case_scenario(), attachment_upload=enabled) as server,
            Client(server) as client,
        ):
            held = [{"name": "mask.png", "state": "new"}]
            kept = stored(client, outline(attachments=held))
            path = f"{client.results}/{kept['id']}/attachments?name=mask.png"
            answer = client.http.put(path, content=bytes(range(100)))
            if not enabled:
                assert answer.status_code == 405
                continue
            assert client.get(path).content == bytes(range(100))
            part = client.get(path, headers={"Range": "bytes=10-19"})
            assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
            assert part.headers["content-range"] == "bytes 10-19/100"
            now = client.get(f"{client.results}/{kept['id']}").json()
            assert now["attachments"][0]["state"] == "stored"


# 11. The legacy alias.


def test_the_legacy_hooks_answer_200(client: Client) -> None:
    made = client.http.post(f"hooks/{APP}/results/", json=outline())
    assert made.status_code == 200
    path = f"hooks/{APP}/results/{made.json()['id']}"
    assert client.http.put(path, json=made.json()).json()["versionId"] == "2"
