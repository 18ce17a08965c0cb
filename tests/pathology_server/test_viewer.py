"""The driver side: points 14 to 17, against an application that can break each rule.

The application is as small as a conforming one can be; its `fault` names the one rule
that it breaks.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from . import PathologyServer, ProtocolViolation, Viewer, case_scenario, synthetic_slide
from .client import gallery, outline
from .schemas import schema_problem
from .wire import Reply, Request, Wire

APP = "acme-triage"


class SmallApp:
    """A conforming application, but for the rule that `fault` names."""

    def __init__(self) -> None:
        self.fault = ""
        self.received: list[dict[str, Any]] = []
        self.base = ""
        self._made: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        if request.method == "GET":
            body = self._info() if request.target == "/info" else self._registration()
            return self._reply(body)
        body = json.loads(request.body)
        with self._lock:
            self.received.append(json.loads(request.body))
        if request.target == "/imagenotification":
            return self._reply({})
        return self._reply(self._invoked(body))

    def _registration(self) -> dict[str, Any]:
        told = {
            "applicationId": APP,
            "displayName": "Triage",
            "manufacturer": "Acme",
            "url": self.base,
            "inputTemplate": {"type": "wholeSlide"},
            "context": {"profile": "default"},
        }
        if self.fault == "relative url":
            told["url"] = "/app"
        return told

    def _info(self) -> dict[str, Any]:
        return {"apiVersion": "1.8", "softwareVersion": "0.3.0"}

    def _invoked(self, body: dict[str, Any]) -> object:
        action = body["action"]
        if action == "delete":
            return {"ok": True} if self.fault == "talkative delete" else {}
        if action == "cancel":
            return {} if self.fault == "cancel object" else []
        callback = body["callbackInfo"]
        headers = {
            "Authorization": f"Bearer {callback['token']}",
            "X-Sectra-ApiVersion": "1.8",
        }
        results = f"{callback['url'].rstrip('/')}/applications/{APP}/results"
        if action == "modify":
            if self.fault == "modify without storing":
                return {**body["input"], "versionId": "99"}
            edited = body["input"]
            for one in edited["data"]["result"]["content"].get("actions", []):
                one["state"] = 0
            path = f"{results}/{edited['id']}"
            return httpx.put(path, json=edited, headers=headers).json()
        if self.fault == "transient":
            return outline(body["slideId"])
        if self.fault == "invented":
            return {**outline(body["slideId"]), "id": 99999, "versionId": "1"}
        made = gallery if body["slideId"] == "sl-0001" else outline
        stored = httpx.post(results, json=made(body["slideId"]), headers=headers).json()
        if self.fault == "changed":
            stored["data"]["context"] = {"other": 1}
        return stored

    def _reply(self, body: object) -> Reply:
        headers = {
            "Content-Type": "application/json",
            "X-Sectra-ApiVersion": "1.8",
            "X-Sectra-SoftwareVersion": "0.3.0",
        }
        if self.fault == "no version":
            del headers["X-Sectra-ApiVersion"]
        if self.fault == "decimal version":
            headers["X-Sectra-ApiVersion"] = "2"
        if self.fault == "html":
            headers["Content-Type"] = "text/html"
        text = b"" if self.fault == "empty" else json.dumps(body).encode()
        delay_s = 1.0 if self.fault == "slow" else 0.0
        status = 500 if self.fault == "status" else 200
        return Reply(status, headers, text, delay_s=delay_s)


@pytest.fixture
def app() -> Iterator[SmallApp]:
    app = SmallApp()
    # Its callbacks are made on the wire's own thread: a small application may wait.
    with Wire(app) as wire:
        app.base = f"http://127.0.0.1:{wire.port}"
        yield app


@pytest.fixture
def server() -> Iterator[PathologyServer]:
    with PathologyServer(case_scenario(), api_version="1.8") as server:
        yield server


@pytest.fixture
def viewer(server: PathologyServer, app: SmallApp) -> Iterator[Viewer]:
    with Viewer(server, app.base, application_id=APP, timeout_s=0.7) as viewer:
        yield viewer


# 14. Registration.


def test_registering_makes_the_application_known(
    server: PathologyServer, app: SmallApp
) -> None:
    with Viewer(server, app.base + "/") as viewer:
        assert viewer.register()["url"] == app.base
        assert viewer.info()["apiVersion"] == "1.8"
        assert viewer.application_id == APP
        assert server.registered_context(APP) == {"profile": "default"}


@pytest.mark.parametrize("fault", ["relative url", "no version", "html", "empty"])
def test_a_wrong_registration_is_a_violation(
    viewer: Viewer, app: SmallApp, fault: str
) -> None:
    app.fault = fault
    with pytest.raises(ProtocolViolation):
        viewer.register()


# 15. Invocations.


def test_every_invocation_that_is_sent_fits_the_schema(
    viewer: Viewer, app: SmallApp
) -> None:
    triangle = {"points": [{"x": 0, "y": 0}, {"x": 1, "y": 0}, {"x": 1, "y": 0.5}]}
    created = viewer.create("sl-0001")
    viewer.create("sl-portrait", {"polygon": triangle, "tags": ["a"], "tagIndex": 0})
    viewer.create("sl-portrait", {"polygons": [triangle]})
    viewer.modify(created.body)
    viewer.cancel(created)
    viewer.delete(created.result_id)
    viewer.notify("sl-0001")
    actions = [one["action"] for one in app.received]
    assert actions == [
        "create",
        "create",
        "create",
        "modify",
        "cancel",
        "delete",
        "newImageFiles",
    ]
    kinds = [one["input"]["type"] for one in app.received[:3]]
    assert kinds == ["wholeSlide", "taggedPolygon", "multiArea"]
    assert [schema_problem("Invocation", one) for one in app.received] == [None] * 7
    assert app.received[4]["cancellationToken"] == app.received[0]["cancellationToken"]


@pytest.mark.parametrize(
    "fault",
    [
        "no version",
        "decimal version",
        "html",
        "empty",
        "status",
        "slow",
        "transient",
        "invented",
        "changed",
    ],
)
def test_a_wrong_answer_to_create_is_a_violation(
    viewer: Viewer, app: SmallApp, fault: str
) -> None:
    app.fault = fault
    with pytest.raises(ProtocolViolation):
        viewer.create("sl-0001")


def test_a_transient_result_is_lawful_where_it_is_allowed(
    server: PathologyServer, app: SmallApp
) -> None:
    app.fault = "transient"
    with Viewer(server, app.base, application_id=APP, transient=True) as viewer:
        assert "id" not in viewer.create("sl-0001").body


def test_an_answer_that_is_not_judged_tells_its_problems(
    viewer: Viewer, app: SmallApp
) -> None:
    app.fault = "status"
    answer = viewer.create("sl-0001", judge=False)
    assert answer.status == 500
    assert answer.problems == ("the status is 500, not 200",)


@pytest.mark.parametrize(
    ("fault", "action"),
    [
        ("talkative delete", "delete"),
        ("cancel object", "cancel"),
        ("modify without storing", "modify"),
    ],
)
def test_a_wrong_answer_to_the_other_actions_is_a_violation(
    viewer: Viewer, app: SmallApp, fault: str, action: str
) -> None:
    created = viewer.create("sl-0001")
    acts = {
        "delete": lambda: viewer.delete(created.result_id),
        "cancel": lambda: viewer.cancel(created),
        "modify": lambda: viewer.modify(created.body),
    }
    app.fault = fault
    with pytest.raises(ProtocolViolation):
        acts[action]()


def test_a_version_newer_than_the_server_is_a_violation(app: SmallApp) -> None:
    with (
        PathologyServer(case_scenario(), api_version="1.5") as server,
        Viewer(server, app.base, application_id=APP) as viewer,
        pytest.raises(ProtocolViolation, match="newer than this server"),
    ):
        viewer.notify("sl-0001")


# 16. Users.


def test_a_user_moves_a_patch_and_presses_a_button(
    server: PathologyServer, viewer: Viewer, app: SmallApp
) -> None:
    made = viewer.create("sl-0001").result_id
    moved = viewer.move_patch(made, 0, 1)
    assert moved.body["data"]["result"]["content"]["patches"][0]["tag"] == 1
    pressed = viewer.press(made, "recount")
    sent = app.received[-1]["input"]["data"]["result"]["content"]["actions"]
    assert sent[0]["state"] == 1
    assert pressed.body["versionId"] == "3"
    assert server.warnings == []
    with pytest.raises(KeyError, match="no button"):
        viewer.press(made, "nothing")


def test_an_edit_behind_the_applications_back_makes_its_version_stale(
    server: PathologyServer, viewer: Viewer
) -> None:
    created = viewer.create("sl-0001")
    edited = viewer.edit_behind(created.result_id)
    assert edited["versionId"] == "2"
    token = server.tokens.issue(APP)
    answer = httpx.put(
        f"{server.url}/applications/{APP}/results/{created.result_id}",
        json=created.body,
        headers={"Authorization": f"Bearer {token}", "X-Sectra-ApiVersion": "1.8"},
    )
    assert answer.status_code == 409


def test_a_deleted_result_is_gone_after_the_application_was_told(
    server: PathologyServer, viewer: Viewer, app: SmallApp
) -> None:
    created = viewer.create("sl-0001")
    viewer.delete(created.result_id)
    assert app.received[-1]["input"]["id"] == created.result_id
    assert server.results.current(created.result_id) is None


# 17. Variants of delivery.


def test_a_request_is_delivered_twice_byte_by_byte(
    viewer: Viewer, app: SmallApp
) -> None:
    viewer.again(viewer.create("sl-0001"))
    assert app.received[0] == app.received[1]


def test_the_variants_of_an_invocation_are_sent_as_asked_for(
    viewer: Viewer, app: SmallApp
) -> None:
    viewer.register()
    viewer.create("sl-0001")
    viewer.create("sl-0001", null_context=True)
    viewer.create("sl-0001", with_cancellation_token=False)
    viewer.create("sl-0001", extra={"fromTheFuture": [1]})
    viewer.notify("sl-0001", with_action=False)
    plain, null, tokenless, future, notified = app.received
    assert plain["context"] == {"profile": "default"}
    assert null["context"] is None
    assert "cancellationToken" not in tokenless
    assert future["fromTheFuture"] == [1]
    assert "action" not in notified
    assert schema_problem("ImageNotification", notified) is None


def test_a_storm_of_notifications_comes_whole_and_evenly(
    server: PathologyServer, viewer: Viewer, app: SmallApp
) -> None:
    names = [f"sl-storm-{number}" for number in range(120)]
    server.add(*(synthetic_slide(name, width=64, height=64) for name in names))
    start_s = time.perf_counter()
    answers = viewer.storm(names, per_second=400)
    assert time.perf_counter() - start_s > 0.25
    assert [one.status for one in answers] == [200] * 120
    assert {one["slideId"] for one in app.received} == set(names)


def test_secrets_list_every_token_and_every_patient_like_text(
    server: PathologyServer, viewer: Viewer, app: SmallApp
) -> None:
    viewer.create("sl-0001")
    held = server.secrets()
    assert app.received[0]["callbackInfo"]["token"] in held
    assert "ACC/2025 0001" in held
    assert any(text.startswith("PHI-LIS;sl-0001") for text in held)
