"""One run of a job: what its steps share, and what they may say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from services.dicom_client.arrivals import content_hash, person_in
from services.dicom_client.errors import (
    DicomClientError,
    EngineError,
    NotPackable,
    Refused,
    Transient,
    Unauthorized,
)
from services.dicom_client.folders import Folders
from services.dicom_client.intake import read_headers
from services.dicom_client.jobs import Changed, Jobs
from services.dicom_client.keeping import Keeper
from services.dicom_client.leases import Leases
from services.dicom_client.models import Job
from services.dicom_client.profiles import Profiles
from services.dicom_client.servers import Servers
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.states import ENDED, State
from services.dicom_client.templates import Template

log = logging.getLogger("theatrum.dicom_client")

T = TypeVar("T")
_TELL_S = 0.5


class Stopping(DicomClientError):
    """The worker is told to stop: another one goes on."""

    code = "stopping"


@dataclass(frozen=True)
class Later:
    """Nothing to do for now; that is no failure."""

    wait_s: float
    kept: dict[str, Any] = field(default_factory=dict)  # Any: values of columns


@dataclass(frozen=True)
class Stops:
    """A person has to decide."""

    code: str
    state: State | None = None
    """The state that the job rests in, where it is another than it has."""


@dataclass(frozen=True)
class Ended:
    """The job has come to its end."""


Told = Later | Stops | Ended | None
"""What a step says; None goes on with the next state's."""


@dataclass(frozen=True)
class Bench:
    """All that the steps of a worker share."""

    jobs: Jobs
    keeper: Keeper
    leases: Leases
    folders: Folders
    servers: Servers
    profiles: Profiles
    settings: Callable[[], ServiceSettings]
    worker: str
    stopping: Callable[[], bool]

    @staticmethod
    def is_final(err: DicomClientError) -> bool:
        """Whether trying again cannot help: a person has to change something."""
        return isinstance(err, NotPackable | Refused | Unauthorized | Changed)


class Run:
    """One run of a job on this worker."""

    def __init__(self, bench: Bench, job: Job) -> None:
        self.bench = bench
        self.job = job
        self.folder = bench.folders.of(job.job_id)
        self._percent, self._told = 0, (time.monotonic(), 0)
        self._looked = 0.0

    @property
    def template(self) -> Template:
        return self.bench.keeper.template_of_digest(self.job.template_digest)

    @property
    def is_local(self) -> bool:
        """Whether a local engine works on it instead of the server."""
        return self.job.engine != "draw"

    def to(self, state: State, detail: str = "", **kept: Any) -> None:
        """The step is complete: its state and what it found, in one transaction."""
        self.job = self.bench.leases.step(
            self.job.job_id, self.bench.worker, state, detail=detail, **kept
        )
        self._percent, self._told = 0, (time.monotonic(), 0)
        log.info("a job goes on", extra={"job": self.job.job_id, "state": state})

    def keep(self, **kept: Any) -> None:
        """Keep something of the job within a step."""
        self.bench.leases.keep(self.job.job_id, self.bench.worker, **kept)
        self.job = self.bench.jobs.get(self.job.job_id)

    def progress(self, share: float) -> None:
        """Tell how far the step is, 0 to 1; it is kept twice a second at most."""
        self._percent = min(99, max(1, int(100 * share)))
        self._tell()

    def _tell(self) -> None:
        at, told = self._told
        if self._percent == told or time.monotonic() < at + _TELL_S:
            return
        self._told = (time.monotonic(), self._percent)
        self.bench.leases.progress(self.job.job_id, self.bench.worker, self._percent)

    def watch(self, share: float) -> None:
        """Within a transfer: tell how far it is, and end it where it is called off.

        A worker that is told to stop does not end it; a pause keeps the last bytes of
        a package here (`upload_leaves`).
        """
        self.progress(share)
        if time.monotonic() < self._looked + _TELL_S:
            return
        self._looked = time.monotonic()
        if self.bench.jobs.get(self.job.job_id).state in ENDED:
            raise Stopping("the job was called off")

    def upload_leaves(self) -> None:
        """The last bytes of the package leave now: from here on it may have arrived.

        Raises Lost where the job is another worker's by now, which may send it itself,
        or is paused.
        """
        self.bench.leases.note_upload(self.job.job_id, self.bench.worker)

    def check(self) -> None:
        """Raise where the job is no longer ours, or the worker has to stop."""
        self._tell()
        if self.bench.stopping():
            raise Stopping("the worker stops")
        if not self.bench.leases.is_held(self.job.job_id, self.bench.worker):
            raise Stopping("the job is no longer this worker's")

    def images(self) -> list[Path]:
        """The images of the series; Changed where they are not those any more."""
        paths = self.bench.jobs.files_of(self.job)
        headers = read_headers(paths)
        if headers is None or not headers:
            raise Changed("an image of the series cannot be read any more")
        uid = str(headers[0].SeriesInstanceUID)
        instances = (str(one.SOPInstanceUID) for one in headers)
        found = content_hash(uid, instances, person_in(headers[0]))
        if found != self.job.content_hash:
            raise Changed("the images are not those that were there at first")
        return paths


def lost_later(run: Run) -> Told:
    """The server does not know the task: so often, and the job is lost."""
    attempt = run.job.attempt + 1
    if attempt >= run.bench.settings().lost_after:
        run.to("lost", "unknown-task")
        return Ended()
    kept = {"attempt": attempt, "last_error_code": "lost"}
    return Later(run.bench.leases.backoff_s(attempt), kept)


def guarded(run: Run, call: Callable[[], T]) -> T:
    """Ask the server, and tell the breaker whether it answered."""
    breaker = run.bench.servers.breaker
    try:
        told = call()
    except Transient:
        breaker.failed()
        raise
    except EngineError:
        breaker.worked()
        raise
    breaker.worked()
    return told
