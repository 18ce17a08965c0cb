"""Changes are told as they happen, to those who may see them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
import websocket

from tests.services.catalog.running import Site


def _project(client: httpx.Client, name: str = "mri") -> int:
    (row,) = client.get("projects", params={"name": name}).json()["items"]
    return int(row["id"])


def _connected(site: Site, person: str, **more: str) -> websocket.WebSocket:
    address = site.url.replace("http://", "ws://") + "/api/v1/ws"
    header = {"Authorization": f"token {person}", **more}
    return websocket.create_connection(
        address, header=header, timeout=20, suppress_origin=True
    )


@pytest.fixture
def socket(site: Site) -> Iterator[websocket.WebSocket]:
    made = _connected(site, "ann")
    yield made
    made.close()


def _say(socket: websocket.WebSocket, command: str, *topics: str) -> dict:
    socket.send(json.dumps({"command": command, "topics": topics}))
    return json.loads(socket.recv())


def test_who_listens_to_a_project_is_told_of_its_rows(
    socket: websocket.WebSocket, bob: httpx.Client
) -> None:
    topic = f"project/{_project(bob)}"
    assert _say(socket, "subscribe", topic) == {"subscribed": [topic]}
    made = bob.post("subjects", json={"project": "mri", "label": "told"}).json()
    event = json.loads(socket.recv())
    assert (event["kind"], event["op"], event["id"]) == (
        "subject",
        "create",
        made["id"],
    )
    assert bob.patch(f"subjects/{made['id']}", json={"sex": "male"}).status_code == 200
    event = json.loads(socket.recv())
    assert (event["op"], event["changed"]) == ("update", ["sex"])
    assert "male" not in json.dumps(event)
    assert _say(socket, "leave", topic) == {"subscribed": []}
    bob.delete(f"subjects/{made['id']}")


def test_nobody_joins_what_they_may_not_see(
    site: Site, socket: websocket.WebSocket
) -> None:
    with site.client("stranger") as stranger:
        secret = f"project/{_project(stranger, 'secret')}"
    for topic in (secret, "project/999", "catalog", "image/%", "project/a"):
        assert "error" in _say(socket, "subscribe", topic), topic


@pytest.mark.parametrize("said", ["", "nonsense", "{}", '{"command": 1}', "[]"])
def test_what_cannot_be_understood_is_said_so(
    socket: websocket.WebSocket, said: str
) -> None:
    socket.send(said)
    assert "error" in json.loads(socket.recv())


@pytest.mark.parametrize("person", ["nobody", "ann/pixels:read"])
def test_no_connection_without_the_right_to_read(site: Site, person: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException):
        _connected(site, person)


def test_no_connection_from_a_page_of_another_origin(site: Site) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException):
        _connected(site, "ann", Origin="https://elsewhere.example")


def test_who_loses_the_right_is_told_no_more(site: Site, ann: httpx.Client) -> None:
    key = _project(ann)
    role = f"projects/{key}/roles/@eve"
    assert ann.put(role, json={"role": "viewer"}).status_code == 204
    socket = _connected(site, "eve")
    assert "subscribed" in _say(socket, "subscribe", f"project/{key}")
    assert ann.delete(role).status_code == 204
    # The connection ends; what comes before is what happened before.
    while True:
        try:
            if not socket.recv():
                break
        except websocket.WebSocketConnectionClosedException:
            break


def test_the_events_come_without_a_websocket_too(site: Site, bob: httpx.Client) -> None:
    key = _project(bob)
    with (
        site.client("ann") as ann,
        ann.stream("GET", "events", params={"topics": f"project/{key}"}) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == ": listening"
        made = bob.post("subjects", json={"project": "mri", "label": "sse"}).json()
        seq = next(line for line in lines if line.startswith("id: "))
        assert next(lines) == "event: change"
        assert json.loads(next(lines).removeprefix("data: "))["id"] == made["id"]
    bob.delete(f"subjects/{made['id']}")
    # Who comes again is told what they missed.
    again = {"Last-Event-ID": seq.removeprefix("id: ")}
    with (
        site.client("ann") as ann,
        ann.stream(
            "GET", "events", params={"topics": f"project/{key}"}, headers=again
        ) as stream,
    ):
        told = next(one for one in stream.iter_lines() if one.startswith("data: "))
    assert json.loads(told.removeprefix("data: "))["op"] == "delete"
