"""The other direction: the server invokes an application, and its users act.

Every answer is judged: status, content type, both version headers, the shape of the
body, and whether a result that the application answers with is really stored, at that
version. A violation is raised, or, with `judge=False`, kept in the answer's problems.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

from .rules import NotJson, read_json
from .schemas import schema_problem
from .server import PathologyServer
from .slides import Json, slide_info
from .versions import OLDEST, parse_version

HARD_LIMIT_S = 20.0
"""An application that answers later than this has not answered."""


class ProtocolViolation(AssertionError):
    """The application broke the protocol."""


@dataclass(frozen=True)
class Answer:
    """What the application answered.

    Attributes
    ----------
    sent
        The body that was sent; `Viewer.again` sends it once more.
    body
        The parsed JSON, or None where it was none.
    seconds
        From the request to the whole answer.
    problems
        What breaks the protocol.
    """

    action: str
    sent: Json = field(repr=False)
    status: int
    headers: Mapping[str, str] = field(repr=False)
    # JSON of any shape, for the test to look into.
    body: Any
    seconds: float
    problems: tuple[str, ...] = ()

    @property
    def result_id(self) -> int:
        """Of the stored result that was answered."""
        return int(self.body["id"])


class Viewer:
    """A user, an administrator and a scanner in front of one registered application.

    Parameters
    ----------
    app_url
        The address that is registered.
    application_id
        Known after `register`; may be given where registration is not at issue.
    transient
        Whether a result that is not stored is a lawful answer to `create`.
    secret_headers
        Sent with each invocation, where a proxy of the site asks for them.
    """

    def __init__(
        self,
        server: PathologyServer,
        app_url: str,
        *,
        application_id: str | None = None,
        transient: bool = False,
        timeout_s: float = HARD_LIMIT_S,
        secret_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._server = server
        self._app_url = app_url.rstrip("/")
        self._transient = transient
        self._client = httpx.Client(
            timeout=timeout_s,
            headers=dict(secret_headers or {}),
            limits=httpx.Limits(max_connections=64),
        )
        self._application_id = application_id
        if application_id is not None and not server.knows(application_id):
            server.add_application(application_id, {"displayName": application_id})

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    @property
    def application_id(self) -> str:
        if self._application_id is None:
            raise RuntimeError("call register() first, or give the application_id")
        return self._application_id

    # The administrator.

    def register(self) -> Json:
        """Retrieve the registration and register what it says."""
        answer = self._exchange("register", "GET", "", None, judge=True)
        registration: Json = answer.body
        self._application_id = registration["applicationId"]
        self._server.add_application(self.application_id, registration)
        return registration

    def info(self) -> Json:
        """Ask for the application's versions."""
        body: Json = self._exchange("info", "GET", "/info", None, judge=True).body
        return body

    # The user.

    def create(
        self, slide_id: str, content: Json | None = None, **options: Any
    ) -> Answer:
        """Invoke the application on a slide; `content` is the input, by its template.

        `{"polygon": ..., "tags": ..., "tagIndex": ...}` and `{"polygons": ...}` tell
        the input's type by themselves. For the options see `body`.
        """
        told: Json = {"type": "wholeSlide"}
        if content is not None:
            kind = "multiArea" if "polygons" in content else "taggedPolygon"
            told = {"type": kind, "content": content}
        return self.send("create", slide_id, {"input": told}, **options)

    def modify(self, stored: Json, **options: Any) -> Answer:
        """Send a stored result with the user's edits in it."""
        return self.send("modify", stored["slideId"], {"input": stored}, **options)

    def delete(self, result_id: int, **options: Any) -> Answer:
        """Delete a result: the application is told, and then it is gone."""
        stored = self._stored(result_id)
        answer = self.send("delete", stored["slideId"], {"input": stored}, **options)
        if answer.status == 200:
            self._server.results.remove(result_id)
        return answer

    def cancel(self, created: Answer | Json, **options: Any) -> Answer:
        """Cancel the invocation whose answer (or body) is given."""
        sent = created.sent if isinstance(created, Answer) else created
        options.setdefault("cancellation_token", sent.get("cancellationToken"))
        return self.send("cancel", sent["slideId"], {}, **options)

    def move_patch(self, result_id: int, patch: int, tag: int) -> Answer:
        """Drag a patch of a gallery into another category."""
        stored = self._stored(result_id)
        stored["data"]["result"]["content"]["patches"][patch]["tag"] = tag
        return self.modify(stored)

    def press(self, result_id: int, action_id: str) -> Answer:
        """Press a button of a gallery."""
        stored = self._stored(result_id)
        actions = stored["data"]["result"]["content"].get("actions") or []
        wanted = [one for one in actions if one["id"] == action_id]
        if not wanted:
            raise KeyError(f"result {result_id} has no button {action_id!r}")
        wanted[0]["state"] = 1
        return self.modify(stored)

    def edit_behind(
        self, result_id: int, change: Callable[[Json], None] | None = None
    ) -> Json:
        """Edit a result without telling the application; its version rises."""

        def leave_a_remark(body: Json) -> None:
            body["displayProperties"] = {
                **(body.get("displayProperties") or {}),
                "Remark": "checked by a user",
            }

        return self._server.results.edit(result_id, change or leave_a_remark)

    # The scanner.

    def notify(self, slide_id: str, **options: Any) -> Answer:
        """Tell the application that a slide was imported."""
        told = self._image_info(slide_id)
        return self.send("newImageFiles", slide_id, told, **options)

    def storm(
        self,
        slide_ids: Iterable[str],
        *,
        per_second: float,
        workers: int = 16,
        judge: bool = False,
    ) -> list[Answer]:
        """Notify of many slides at an even rate; the answers in the order of slides.

        An answer that was due later than it could be sent is sent at once, so the
        whole takes the longer of the plan and what the application needs.
        """
        start_s = time.monotonic()

        def one(numbered: tuple[int, str]) -> Answer:
            number, slide_id = numbered
            ahead_s = start_s + number / per_second - time.monotonic()
            if ahead_s > 0:
                time.sleep(ahead_s)
            return self.notify(slide_id, judge=judge)

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, zip(itertools.count(), slide_ids, strict=False)))

    # Any of them.

    def body(
        self,
        action: str,
        slide_id: str,
        more: Mapping[str, Any],
        *,
        context: Json | None = None,
        null_context: bool = False,
        cancellation_token: str | None = None,
        with_cancellation_token: bool = True,
        with_action: bool = True,
        extra: Mapping[str, Any] | None = None,
        token: str | None = None,
        token_lifetime_s: float | None = None,
        callback_url: str | None = None,
    ) -> Json:
        """The body of an invocation.

        Parameters
        ----------
        context, null_context
            The registered one by default; or null.
        cancellation_token, with_cancellation_token
            A new one by default; or none at all.
        with_action
            False leaves the action out, as old servers do in notifications.
        extra
            Fields that nobody has heard of.
        token, token_lifetime_s, callback_url
            Of the callback, instead of fresh ones.
        """
        application_id = self.application_id
        if token is None:
            callback = self._server.callback_info(
                application_id, lifetime_s=token_lifetime_s
            )
        else:
            callback = {"url": self._server.url, "token": token}
        if callback_url is not None:
            callback["url"] = callback_url
        if context is None and not null_context:
            context = self._server.registered_context(application_id)
        made: Json = {
            "applicationId": application_id,
            "slideId": slide_id,
            "callbackInfo": callback,
            "context": context,
            **more,
            **(extra or {}),
        }
        if with_action:
            made["action"] = action
        if with_cancellation_token:
            made["cancellationToken"] = cancellation_token or secrets.token_hex(16)
        return made

    def send(
        self,
        action: str,
        slide_id: str,
        more: Mapping[str, Any],
        *,
        judge: bool = True,
        **options: Any,
    ) -> Answer:
        """Make the body of an invocation, and send it."""
        return self.send_body(
            action, self.body(action, slide_id, more, **options), judge=judge
        )

    def send_body(self, action: str, body: Json, *, judge: bool = True) -> Answer:
        """Send a body as it is."""
        path = "/imagenotification" if action == "newImageFiles" else ""
        return self._exchange(action, "POST", path, body, judge=judge)

    def again(self, answer: Answer, *, judge: bool = True) -> Answer:
        """Deliver the very same request a second time."""
        return self.send_body(answer.action, answer.sent, judge=judge)

    def _exchange(
        self, action: str, method: str, path: str, body: Json | None, *, judge: bool
    ) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        start_s = time.perf_counter()
        try:
            response = self._client.request(
                method, self._app_url + path, content=content, headers=headers
            )
        except httpx.TimeoutException as error:
            raise ProtocolViolation(f"{action}: no answer in time") from error
        seconds = time.perf_counter() - start_s
        try:
            parsed = read_json(response.content)
            problems: list[str] = []
        except NotJson as error:
            parsed, problems = None, [str(error)]
        problems += self._problems(action, response, parsed)
        answer = Answer(
            action=action,
            sent=body or {},
            status=response.status_code,
            headers=response.headers,
            body=parsed,
            seconds=seconds,
            problems=tuple(problems),
        )
        if judge and problems:
            raise ProtocolViolation(
                f"{action}: {'; '.join(problems)} (status {answer.status},"
                f" {response.text[:500]!r})"
            )
        return answer

    def _problems(
        self, action: str, response: httpx.Response, body: object
    ) -> list[str]:
        found = []
        if response.status_code != 200:
            found.append(f"the status is {response.status_code}, not 200")
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind not in {"application/json", "application/problem+json"}:
            found.append(f"the content type is {kind!r}")
        try:
            version = parse_version(response.headers.get("x-sectra-apiversion", ""))
            if version > self._server.api_version and action not in {
                "register",
                "info",
            }:
                found.append("X-Sectra-ApiVersion is newer than this server")
            if version < OLDEST:
                found.append("X-Sectra-ApiVersion is older than any known one")
        except ValueError as error:
            found.append(f"X-Sectra-ApiVersion: {error}")
        if not response.headers.get("x-sectra-softwareversion"):
            found.append("X-Sectra-SoftwareVersion is missing")
        if response.status_code == 200:
            found += self._body_problems(action, body)
        return found

    def _body_problems(self, action: str, body: object) -> list[str]:
        if action in {"register", "info"}:
            schema = {"register": "Registration", "info": "Info"}[action]
            problem = schema_problem(schema, body)
            return [problem] if problem else []
        if action == "delete":
            return [] if body == {} else ["the answer to delete is {}"]
        if action == "cancel":
            return [] if body == [] else ["the answer to cancel is []"]
        if action == "newImageFiles":
            return [] if body == {} else ["the answer to a notification is {}"]
        if self._transient and isinstance(body, dict) and "id" not in body:
            problem = schema_problem("TransientResult", body)
            return [problem] if problem else []
        problem = schema_problem("StoredResult", body)
        if problem or not isinstance(body, dict):
            return [problem or "the answer is a stored result"]
        return self._stored_problems(body)

    def _stored_problems(self, body: Json) -> list[str]:
        results = self._server.results
        if results.current(body["id"]) is None:
            return [f"result {body['id']} is not stored"]
        if results.application_of(body["id"]) != self.application_id:
            return [f"result {body['id']} is another application's"]
        # A worker may have gone on to the next version by now.
        versions = {one["versionId"]: one for one in results.history(body["id"])}
        stored = versions.get(body["versionId"])
        if stored is None:
            return [f"version {body['versionId']!r} was never stored"]
        if stored["data"] != body["data"]:
            return ["data differs from what is stored"]
        return []

    def _image_info(self, slide_id: str) -> Json:
        server = self._server
        slide = server.slides[slide_id]
        told = slide_info(slide, server.api_version, server.quality_of(slide))
        return {"imageInfo": told}

    def _stored(self, result_id: int) -> Json:
        stored = self._server.results.current(result_id)
        if stored is None:
            raise KeyError(f"there is no result {result_id}")
        return stored
