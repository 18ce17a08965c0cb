"""What each invocation does (sections 2 and 5 of the interface's description).

`create` stores the job, stores the first result at the pathology server, queues the
job, and answers with that result: in this order, so that a user who sees an error has
no job, and a job whose web server died is found and ended. Nothing else waits for the
pathology server except `modify`, which is done on the spot.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from theatrum.node import BadInputs, NodeError

from hub.durable.sealing import digest
from services.ia_api import audit, outcome, results, rules
from services.ia_api.apps import App
from services.ia_api.errors import (
    BadInvocation,
    Busy,
    CallbackError,
    Conflict,
    Gone,
    IaApiError,
    NoSuchJob,
    Transient,
    Unauthorized,
    VersionTooOld,
)
from services.ia_api.invocations import Invocation
from services.ia_api.models import Audit, Job
from services.ia_api.pathology_server import PathologyServer, find_own
from services.ia_api.regions import regions_needed
from services.ia_api.servers import Servers
from services.ia_api.settings import ServiceSettings
from services.ia_api.slide_info import SlideInfo, slide_info
from services.ia_api.states import ACTIVE
from services.ia_api.store import Received, Request, Store, stamp_of

Json = dict[str, Any]  # Any: JSON of the interface


@dataclass(frozen=True)
class Service:
    """What the web server's routes share: one value, made at the start."""

    settings: ServiceSettings
    home: Path
    apps: Mapping[str, App]
    store: Store
    servers: Servers


class Turn:
    """Decides once whether a request is finished, or given up by who waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False

    def finish(self) -> bool:
        """Whether somebody still waits; from now on nobody gives it up."""
        return self._take()

    def abandon(self) -> bool:
        """Whether it can still be given up; from now on it cannot be finished."""
        return self._take()

    def _take(self) -> bool:
        with self._lock:
            first = not self._taken
            self._taken = True
        return first


@dataclass(frozen=True)
class Asked:
    """One invocation of an app, by whom, and until when it has to be answered."""

    app: App
    invocation: Invocation
    caller: str
    deadline: float
    """By the monotonic clock."""
    turn: Turn


def answer(here: Service, asked: Asked) -> Json | list[Any]:
    """Do what an invocation says and return the body of the answer.

    Raises an IaApiError; nothing was begun then.
    """
    action = asked.invocation.action
    try:
        here.servers.check(asked.invocation.callback_url)
        told, job_id, said = _ACTIONS[action](here, asked)
    except IaApiError as err:
        outcome_text = getattr(err, "code", "") or type(err).__name__
        told_of = _audited(asked, f"refused: {outcome_text}", None)
        audit.note(here.store.database, told_of)
        raise
    if said is not None:
        audit.note(here.store.database, _audited(asked, said, job_id))
    return told


def _audited(asked: Asked, said: str, job_id: str | None) -> Audit:
    return audit.line(
        asked.caller,
        asked.invocation.action,
        app=asked.app.id,
        outcome=said,
        job_id=job_id,
    )


Done = tuple[Json | list[Any], str | None, str | None]
"""The body of the answer, the job at issue, and a word for the audit log.

None: the audit log was told already, in the transaction of the change itself.
"""


def _create(here: Service, asked: Asked) -> Done:
    app, invocation = asked.app, asked.invocation
    regions_needed(app, invocation.input or {})
    request = _request(app, invocation)
    here.store.admit()
    # Asked while the job is being noted: a person waits for both.
    looked = here.servers.beside(partial(_look, here, invocation))
    received = here.store.receive(request)
    if received.how == "attached":
        stored = _again(here, asked, received.job)
        if not results.is_final(stored):
            return stored, received.job.job_id, received.how
        # Its worker stored the answer and has not noted that yet: too late to join.
        received = here.store.receive_beyond(request, received.job)
    if received.how != "new":
        return _again(here, asked, received.job), received.job.job_id, received.how
    job = received.job
    try:
        stored, slide, server = _first_result(here, asked, received, looked.result)
    except IaApiError as err:
        here.store.refuse(job.job_id, getattr(err, "code", "refused"))
        raise
    if not asked.turn.finish():
        # The user was told of an error: what is stored becomes "failed".
        here.store.refuse(job.job_id, "answer-deadline")
    here.store.queue(
        job.job_id,
        result=stored,
        slide_size=slide.size,
        api_version=str(server.api_version),
        token=invocation.token,
        audit=_audited(asked, "queued", job.job_id),
    )
    return stored, job.job_id, None


def _request(app: App, invocation: Invocation, mark: str = "") -> Request:
    whole = {"type": "wholeSlide"}
    given = whole if mark else invocation.input or whole
    return Request(
        app=app.id,
        application_id=invocation.application_id,
        slide_id=invocation.slide_id,
        callback_url=invocation.callback_url,
        token=invocation.token,
        action="newImageFiles" if mark else "create",
        input=given,
        context=invocation.context,
        cancellation_token=invocation.cancellation_token,
        stamp=stamp_of(given, invocation.context),
        application_version=app.version,
        mark=mark,
    )


def _server(here: Service, invocation: Invocation) -> PathologyServer:
    return here.servers.at(
        invocation.callback_url, invocation.application_id, invocation.token
    )


def _look(here: Service, invocation: Invocation) -> tuple[PathologyServer, SlideInfo]:
    """The pathology server, and the slide whose outline the first result shows."""
    server = _server(here, invocation)
    return server, server.slide(invocation.slide_id)


def _first_result(
    here: Service,
    asked: Asked,
    received: Received,
    look: Callable[[], tuple[PathologyServer, SlideInfo]],
) -> tuple[Json, SlideInfo, PathologyServer]:
    """Store "analysis queued", tried again within the deadline of the answer.

    `look` gives what was asked for already; a further try asks anew.
    """
    invocation, job = asked.invocation, received.job
    previous = received.instead_of or (
        here.store.unfinished_before(job)
        if here.settings.on_previous == "reuse_latest"
        else None
    )
    wait_s, looked_for_lost, lost = 0.1, False, False
    while True:
        try:
            server, slide = look()
            if looked_for_lost:
                # An attempt may have been stored although nobody heard of it.
                own = find_own(server.results_of(slide.id), job.job_id)
                if own is not None:
                    return own, slide, server
            looked_for_lost = True
            return _stored(here, asked, server, slide, job, previous), slide, server
        except Transient as err:
            lost = looked_for_lost
            look = partial(_look, here, invocation)
            pause = err.retry_after_s if err.retry_after_s is not None else wait_s
            pause *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
            if time.monotonic() + pause + 0.5 > asked.deadline:
                raise
            time.sleep(pause)
            wait_s *= 2
        except CallbackError as err:
            if lost:
                # What an earlier attempt stored is still to be found, and ended.
                raise Transient(str(err)) from err
            raise


def _stored(
    here: Service,
    asked: Asked,
    server: PathologyServer,
    slide: SlideInfo,
    job: Job,
    previous: Job | None,
) -> Json:
    """The result with "analysis queued": that of `previous` again, or a new one."""
    how: dict[str, Any] = {
        "job_id": job.job_id,
        "version": server.api_version,
        "application_version": asked.app.version,
    }
    fresh = results.working(slide)
    if previous is not None and previous.result_id is not None:
        try:
            old = server.result(previous.result_id)
            if not results.is_final(old) and not _is_taken(here, old, job):
                return server.update_result(results.updated(old, fresh, slide, **how))
        except (Gone, Conflict):
            # Deleted or changed by a person: it is left alone.
            pass
    return server.create_result(results.new_result(fresh, slide, **how))


def _is_taken(here: Service, old: Json, job: Job) -> bool:
    """Whether another job has taken an old result for itself since we looked."""
    whose = _job_of(old)
    if whose is None or whose == job.job_id:
        return False
    try:
        return here.store.get(whose).state in ACTIVE
    except NoSuchJob:
        return False


def _again(here: Service, asked: Asked, job: Job) -> Json:
    """The result of a job that was there already, as it is now."""
    while job.state == "received" and job.result_id is None:
        # The first delivery is still being answered, by another thread or process.
        if time.monotonic() + 0.1 > asked.deadline:
            raise Busy("the same request is being answered")
        time.sleep(0.05)
        job = here.store.get(job.job_id)
    if job.result_id is None:
        raise Busy("the same request was not successful: ask again")
    stored = _server(here, asked.invocation).result(job.result_id)
    _renew(here, asked.invocation, accepted=True)
    return stored


def _modify(here: Service, asked: Asked) -> Done:
    """A person changed a result: the numbers follow, and the result is stored."""
    invocation = asked.invocation
    stored = invocation.input or {}
    server = _server(here, invocation)
    edited = _recounted(here, asked, server, stored)
    try:
        told = server.update_result(edited)
    except Conflict:
        # Only the version is stale where nobody else changed what is shown.
        now = server.result(int(stored["id"]))
        if _shown(now) != _shown(stored) and results.is_final(now):
            raise
        edited["versionId"] = now["versionId"]
        told = server.update_result(edited)
    _renew(here, invocation, accepted=True)
    return told, _job_of(stored), "stored"


def _recounted(
    here: Service, asked: Asked, server: PathologyServer, stored: Json
) -> Json:
    node = asked.app.node
    context = ((stored.get("data") or {}).get("context")) or {}
    numbers = context.get("numbers")
    width = _width(here, server, stored)
    gallery = results.sorted_patches(stored, width)
    if gallery is None or not isinstance(numbers, dict):
        return results.released(stored)
    tags, patches = gallery
    unshown = [int(one) for one in context.get("unshown") or [] if _is_count(one)]
    marks = outcome.marks_of(tags, patches, unshown)
    button = results.pressed(stored)
    try:
        if button is not None:
            marks, counted = node.press(button, marks, numbers)
        else:
            counted = node.recounted(marks, numbers)
    except BadInputs as err:
        raise BadInvocation("the result has a button that this app has not") from err
    except (NodeError, ValueError, KeyError, TypeError, ZeroDivisionError) as err:
        raise BadInvocation(
            "the numbers of this result cannot be counted anew"
        ) from err
    edited = results.with_numbers(
        stored, outcome.headline(node, counted), outcome.properties(counted)
    )
    shown = edited["data"]["result"]["content"]["patches"]
    for patch, tag in zip(shown, marks.classes.tolist(), strict=False):
        patch["tag"] = int(tag)
    edited["data"]["context"] = {
        **context,
        "numbers": {name: number.value for name, number in counted.items()},
    }
    return edited


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= 10_000_000


def _width(here: Service, server: PathologyServer, stored: Json) -> int:
    """The slide's width; the job that made the result knows it, as a rule."""
    job_id = _job_of(stored)
    if job_id is not None:
        try:
            size = here.store.get(job_id).slide_size
        except NoSuchJob:
            size = None
        if size:
            return int(size[0])
    return server.slide(str(stored["slideId"])).size[0]


def _job_of(stored: Mapping[str, Any]) -> str | None:
    context = (stored.get("data") or {}).get("context") or {}
    found = context.get("jobId") if isinstance(context, dict) else None
    return found if isinstance(found, str) and len(found) <= 16 else None


def _shown(stored: Mapping[str, Any]) -> Any:
    return (stored.get("data") or {}).get("result")


def _delete(here: Service, asked: Asked) -> Done:
    """A person deletes a result: nothing of ours brings it back.

    The numbers of results can be guessed, so the pathology server is asked whether the
    token is one of its own. The answer is the same either way: of a deletion that is
    not believed and true all the same, the worker hears at its next update.
    """
    invocation = asked.invocation
    if not _is_genuine(here, invocation):
        return {}, None, "not believed: token"
    _renew(here, invocation, accepted=True)
    ended = here.store.result_deleted(
        invocation.callback_url,
        invocation.application_id,
        int((invocation.input or {})["id"]),
    )
    return {}, ended[0] if ended else None, f"deleted; {len(ended)} jobs ended"


def _cancel(here: Service, asked: Asked) -> Done:
    """A person aborts a request; unknown and finished ones are fine."""
    invocation = asked.invocation
    _renew(here, invocation)
    if invocation.cancellation_token is None:
        return [], None, "without a token"
    ended = here.store.cancel(
        invocation.callback_url,
        invocation.application_id,
        invocation.cancellation_token,
    )
    return [], ended[0] if ended else None, f"{len(ended)} jobs ended"


def _is_genuine(here: Service, invocation: Invocation) -> bool:
    """Whether the pathology server knows the token; a server that fails is no proof.

    Asked by the slide and not by the result, which it may hold while it waits for us.
    """
    try:
        _server(here, invocation).slide(invocation.slide_id)
    except Unauthorized:
        return False
    except (CallbackError, VersionTooOld):
        return True
    return True


def _renew(here: Service, invocation: Invocation, *, accepted: bool = False) -> None:
    here.store.fresh_token(
        invocation.callback_url,
        invocation.application_id,
        invocation.token,
        accepted=accepted,
    )


def _notification(here: Service, asked: Asked) -> Done:
    """An imported slide: taken by the rules or not, and nothing else done now."""
    app, invocation = asked.app, asked.invocation
    told = invocation.image_info or {}
    try:
        slide = slide_info({**told, "id": invocation.slide_id})
    except CallbackError as err:
        raise BadInvocation(f"imageInfo: {err}") from err
    refusal = rules.refusal(app.settings.notifications, slide)
    if refusal is not None:
        return {}, None, f"not taken: {refusal}"
    mark = digest(json.dumps(told, sort_keys=True))
    received = here.store.receive(_request(app, invocation, mark))
    return {}, received.job.job_id, received.how


_ACTIONS = {
    "create": _create,
    "modify": _modify,
    "delete": _delete,
    "cancel": _cancel,
    "newImageFiles": _notification,
}
