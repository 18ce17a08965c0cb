"""The steps of one job, each of which may be cut off anywhere and be run again.

    result_created   the person sees "analysis queued" (the web server did that)
    info             the versions are agreed on, the slide is known
    files            the slide's files are here, all of them, or not needed
    analysed         the answer lies in the job's folder, whole
    result_stored    the pathology server has the answer

A step that is complete is not run again, except that what it left may lie on another
machine: so each step takes what it needs through a method that makes it where it is
missing. Nothing is sent to the pathology server while the job is not held.
"""

from __future__ import annotations

import io
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from typing import Any, Literal

from services.ia_api import audit, publish, results, rules, tiles
from services.ia_api.analysis import Task
from services.ia_api.apps import App
from services.ia_api.child import analyse
from services.ia_api.download import download, manifest
from services.ia_api.errors import (
    CallbackError,
    Conflict,
    Gone,
    IaApiError,
    Permanent,
    Transient,
)
from services.ia_api.folders import Folders, JobFolder
from services.ia_api.handlers import Service
from services.ia_api.leases import Leases
from services.ia_api.models import Job
from services.ia_api.pathology_server import Json, PathologyServer, find_own
from services.ia_api.results import Answer
from services.ia_api.slide_info import SlideInfo
from services.ia_api.transitions import Lost
from services.ia_api.versions import CASES, QUALITY_CONTROL

log = logging.getLogger("theatrum.ia_api")

_CONFLICTS = 3
"""How often an answer is brought onto a newer version before the run gives up."""


class NotWanted(IaApiError):
    """The rules do not take this slide after all."""

    code = "rules"


class NoSuchAppHere(Transient):
    """The app is not in this worker's settings; another worker may have it."""

    code = "no-app"


class ResultDeleted(IaApiError):
    """A person deleted the result of this job."""

    code = "deleted"


class Stopping(IaApiError):
    """The worker is told to stop; the job goes on in another."""


@dataclass(frozen=True)
class Bench:
    """What all jobs of a worker share."""

    here: Service
    leases: Leases
    folders: Folders
    worker: str
    processes: ForkServerContext
    stopping: Callable[[], bool]


class Run:
    """One run of one job, which this worker holds."""

    def __init__(self, bench: Bench, job: Job) -> None:
        self._bench = bench
        self._job = job
        self._server: PathologyServer | None = None
        self._slide: SlideInfo | None = None
        self._stored: Json | None = None
        self._told = (time.monotonic(), job.progress)
        app = bench.here.apps.get(job.app)
        if app is None:
            raise NoSuchAppHere("this worker does not have the app of the job")
        self._app: App = app

    @property
    def job_id(self) -> str:
        return self._job.job_id

    @property
    def folder(self) -> JobFolder:
        """The job's folder on this machine."""
        return self._bench.folders.of(self._job.job_id)

    def step(self, name: str) -> Callable[[], None]:
        """A step by its name."""
        steps = {
            "result_created": self.result_created,
            "info": self.info,
            "files": self.files,
            "analysed": self.analysed,
            "result_stored": self.result_stored,
        }
        return steps[name]

    # The steps

    def result_created(self) -> None:
        """The web server stored it; a notification has no result before the last."""
        self.check()
        self._done("result_created")

    def info(self) -> None:
        slide = self._ask_info()
        self._done(
            "info",
            slide_size=list(slide.size),
            api_version=str(self._connected().api_version),
        )
        self._progress(5)

    def files(self) -> None:
        self._extras()
        if self._source() == "files":
            self._fetch()
        self._done("files")
        self._progress(40)

    def analysed(self) -> None:
        self._analyse()
        self._done("analysed")

    def result_stored(self) -> None:
        answer = self.folder.answer()
        if answer is None:
            # Another machine made it, or it went with that machine.
            self._analyse()
            answer = self.folder.answer()
        if answer is None:
            raise Transient("the answer of the analysis is not there")
        self._write_quality(answer)
        stored = self._store(answer)
        self._bench.leases.note_result(self._job.job_id, self._bench.worker, stored)
        if self._app.settings.publish is not None:
            self._publish(answer)
        self._done("result_stored", progress=100)

    def finish(self) -> None:
        """The job succeeded: nothing of the slide stays."""
        self.folder.remove()

    def _publish(self, answer: Answer) -> None:
        """Hand slide and result in to the catalogue; that it cannot be is told."""
        here, job_id = self._bench.here, self._job.job_id
        try:
            publish.available(here.home)
            self._fetch()
            publish.publish(
                here.home,
                publish.Published(job_id, self._app, answer, self.slide()),
                [
                    self.folder.slide / one.name
                    for one in manifest(self.folder.slide) or ()
                ],
                self.folder.path / "published",
                processes=self._bench.processes,
                check=self.check,
            )
            said = "handed in to the catalogue"
        except publish.NotPublished as err:
            said = f"not published: {err}"
        except CallbackError as err:
            if isinstance(err, Transient) and self._may_go_on_later():
                # A further run finds the result stored, and publishes.
                raise
            # The person has the result: a slide that cannot be fetched is no failure.
            said = f"not published: the files cannot be had ({err.code})"
        log.info(said, extra=self._tags())
        told = audit.line(
            "worker", "publish", app=self._app.id, outcome=said, job_id=job_id
        )
        audit.note(here.store.database, told)

    def _may_go_on_later(self) -> bool:
        """Whether another run follows one that fails now, however long it waits."""
        settings = self._bench.here.settings
        latest = time.time() + 2 * settings.backoff_cap_s
        return self._job.attempt < settings.attempts and latest < self._job.deadline

    @property
    def token(self) -> str | None:
        """The token that this run used last; None where it used none."""
        return None if self._server is None else self._server.callback.token

    # What they need

    def check(self) -> None:
        """Raise Lost or Stopping where this run is to end."""
        if self._bench.stopping():
            raise Stopping("the worker is told to stop")
        if not self._bench.leases.is_held(self._job.job_id, self._bench.worker):
            raise Lost("the job is no longer this worker's")

    def _done(self, step: str, **kept: Any) -> None:
        self._bench.leases.checkpoint(
            self._job.job_id, self._bench.worker, step, **kept
        )

    def _connected(self) -> PathologyServer:
        """The pathology server, with the newest token that the job has."""
        self.check()
        token = self._bench.here.store.token_of(self._job)
        if self._server is None or self._server.callback.token != token:
            self._server = self._bench.here.servers.at(
                self._job.callback_url, self._job.application_id, token
            )
        return self._server

    def _ask_info(self) -> SlideInfo:
        wishes = self._app.settings
        unasked = self._job.action == "newImageFiles"
        triage = wishes.notifications if unasked else None
        extended = triage is not None and triage.scanner is not None
        slide = self._connected().slide(
            self._job.slide_id, extended=extended, phi=wishes.phi
        )
        if triage is not None:
            # By what the notification did not say, before anything is fetched.
            refusal = rules.refusal(triage, slide, complete=True)
            if refusal is not None:
                raise NotWanted(refusal)
        self.folder.keep_info(slide)
        self._slide = slide
        return slide

    def slide(self) -> SlideInfo:
        if self._slide is None:
            self._slide = self.folder.info() or self._ask_info()
        return self._slide

    def _extras(self) -> None:
        """Case list, thumbnail and label, for apps that want them."""
        wishes, server, slide = self._app.settings, self._connected(), self.slide()
        if wishes.case and server.api_version >= CASES:
            case = server.case_of(slide.id)
            self.folder.keep("case.json", json.dumps(case).encode())
        if wishes.thumbnail and slide.streamable:
            picture = tiles.thumbnail(server, slide, check=self.check)
            jpeg = io.BytesIO()
            picture.save(jpeg, "JPEG", quality=85)
            self.folder.keep("thumbnail.jpg", jpeg.getvalue())
        if wishes.label and wishes.phi:
            label = server.label(slide.id)
            if label is not None:
                self.folder.keep("label", label)

    def _source(self) -> Literal["files", "tiles"]:
        if self._app.needs == "tiles" and self.slide().streamable:
            return "tiles"
        return "files"

    def _fetch(self) -> None:
        self.folder.make()

        def progress(done: int, of: int | None) -> None:
            if of:
                self._progress(5 + round(35 * min(1.0, done / of)))

        download(
            self._connected(),
            self._job.slide_id,
            self.folder.slide,
            limits=self._bench.folders.limits(),
            check=_now_and_then(self.check),
            progress=progress,
        )

    def _analyse(self) -> None:
        if self.folder.answer() is not None:
            return
        source = self._source()
        if source == "files":
            self._fetch()
        server = self._connected()
        callback = type(server.callback)(
            server.callback.url,
            server.callback.application_id,
            server.transport.token(server.callback),
        )
        task = Task(
            app=self._app,
            folder=self.folder.path,
            slide=self.slide(),
            given=self._job.input_json or {},
            source=source,
            callback=callback,
            api_version=server.api_version,
            transport=server.transport.settings,
        )
        analyse(
            self._bench.processes,
            task,
            self.check,
            lambda fraction: self._progress(40 + round(55 * fraction)),
        )

    # The result

    def _store(self, answer: Answer) -> Json:
        """Bring the answer to the pathology server: once, whatever was cut off."""
        # As this run wrote it last; read again only where somebody changed it since.
        stored, self._stored = self._stored, None
        for _ in range(_CONFLICTS):
            server = self._connected()
            stored = stored or self._own(server)
            if stored is None:
                return self._within_size(
                    server.create_result,
                    results.new_result(answer, self.slide(), **self._how()),
                )
            if _is_answer(stored, self._job.job_id):
                return stored
            if results.is_final(stored):
                raise Permanent("the result became somebody else's meanwhile")
            try:
                return self._within_size(
                    server.update_result,
                    results.updated(stored, answer, self.slide(), **self._how()),
                )
            except Gone as err:
                raise ResultDeleted("a person deleted the result") from err
            except Conflict:
                # Somebody changed it between reading and writing: read it again.
                stored = None
                time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - spreads load
        raise Conflict("the result is changed by others all the time")

    def _own(self, server: PathologyServer) -> Json | None:
        """The job's result as it is stored now; None where it has none yet."""
        result_id = self._bench.here.store.get(self._job.job_id).result_id
        if result_id is None:
            return find_own(server.results_of(self._job.slide_id), self._job.job_id)
        try:
            return server.result(result_id)
        except Gone as err:
            raise ResultDeleted("a person deleted the result") from err

    def _within_size(self, send: Callable[[Json], Json], result: Json) -> Json:
        size = len(json.dumps(result))
        if size > self._bench.here.settings.result_bytes:
            raise Permanent(f"the result would have {size} bytes")
        self.check()
        return send(result)

    def _how(self) -> dict[str, Any]:
        return {
            "job_id": self._job.job_id,
            "version": self._connected().api_version,
            "application_version": self._app.version,
        }

    def _write_quality(self, answer: Answer) -> None:
        """The node's verdict on the slide, where the app may write it (1.10)."""
        verdict = answer.properties.get("Quality")
        server = self._connected()
        wanted = self._app.settings.quality_write_back and verdict in {
            "QualityOk",
            "Rejected",
        }
        if not wanted or server.api_version < QUALITY_CONTROL:
            return
        now = server.slide(self._job.slide_id)
        if now.quality_version is None or now.quality_status == verdict:
            return
        try:
            server.set_quality(now, str(verdict), self._app.version)
        except Conflict:
            # A person decided meanwhile: that stands.
            log.info("quality control was set by another", extra=self._tags())

    def _progress(self, percent: int) -> None:
        """Show how far it is: throttled, and without harm where it does not work."""
        at, told = self._told
        interval_s = self._bench.here.settings.progress_interval_s
        if percent <= told or time.monotonic() - at < interval_s:
            return
        self._told = (time.monotonic(), percent)
        self._bench.leases.note_progress(self._job.job_id, self._bench.worker, percent)
        if self._job.result_id is None:
            return
        try:
            server = self._connected()
            stored = self._stored or server.result(self._job.result_id)
            if results.is_final(stored):
                return
            shown = results.working(self.slide(), percent)
            self._stored = server.update_result(
                results.updated(stored, shown, self.slide(), **self._how())
            )
        except Gone as err:
            raise ResultDeleted("a person deleted the result") from err
        except CallbackError as err:
            # Read anew next time: somebody may have changed it.
            self._stored = None
            log.info("progress was not shown", extra={**self._tags(), "code": err.code})

    def _tags(self) -> dict[str, str]:
        return {"job": self._job.job_id, "app": self._app.id}


def _is_answer(stored: Json, job_id: str) -> bool:
    """Whether a stored result is the final one of this very job."""
    context = (stored.get("data") or {}).get("context") or {}
    return context.get("jobId") == job_id and context.get("phase") == "done"


def _now_and_then(
    check: Callable[[], None], every_s: float = 0.5
) -> Callable[[], None]:
    """`check`, but not for every megabyte: each asks the database."""
    last = 0.0

    def checked() -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            check()

    return checked
