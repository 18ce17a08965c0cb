"""The way out: de-identified, packaged, sent, and asked about."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from theatrum.deidentify import Profile

from services.dicom_client import packaging
from services.dicom_client.draw_server import Progress, percent_of
from services.dicom_client.errors import EngineError, Transient, UnknownTask
from services.dicom_client.jobs import Changed
from services.dicom_client.running import (
    Ended,
    Later,
    Run,
    Stops,
    Told,
    guarded,
    lost_later,
)
from services.dicom_client.servers import is_unknown
from services.dicom_client.states import UPLOAD_UNKNOWN

_TASK = "task"
"""The sealed token, from the moment it comes until the job's row has it."""


def deidentify(run: Run) -> Told:
    """All images of the series, or none: what names a person is replaced."""
    bench = run.bench
    if bench.folders.free_bytes() < bench.settings().min_free_bytes:
        return Later(60.0)
    made = deidentified(run, bench.profiles.profile())
    run.to("deidentified", profile_digest=made.profile_digest)
    return None


def deidentified(run: Run, profile: Profile | None = None) -> packaging.Deidentified:
    """The images that tell of nobody, on this machine; made again where missing."""
    run.folder.make()
    profiles = run.bench.profiles
    return packaging.deidentify(
        run.images(),
        profile=profile or profiles.of_digest(run.job.profile_digest),
        key=profiles.key,
        folder=package_folder(run),
        job=run.job.job_id,
        progress=run.progress,
        check=run.check,
    )


def pack(run: Run) -> Told:
    """The package, searched for whom it is of, with its SHA-256."""
    packed = _packed(run)
    run.to("packed", package_sha256=packed.sha256)
    return None


def _packed(run: Run) -> packaging.Packed:
    """The package on this machine, made again where it is missing: it is the same."""
    return packaging.package(
        deidentified(run),
        run.template,
        key=run.bench.profiles.key,
        folder=package_folder(run),
        job=run.job.job_id,
        canaries=run.bench.settings().canaries,
        progress=run.progress,
        check=run.check,
    )


def package_folder(run: Run) -> Path:
    """Where a job keeps its package and its mapping."""
    run.folder.package.mkdir(mode=0o700, parents=True, exist_ok=True)
    return run.folder.package


def send(run: Run) -> Told:
    """Send the package, at most once unless a person or a setting says otherwise.

    The state says that it is on its way before the first byte leaves, and the history
    that all of it is before the last ones do: what was cut off between the two never
    arrived, and is sent again. The token is on the disk before the row has it, so that
    a crash between the two loses nothing.
    """
    bench, settings = run.bench, run.bench.settings()
    if not settings.may_send(datetime.now(UTC)):
        return Later(60.0)
    wait_s = bench.servers.breaker.wait_s()
    if wait_s:
        return Later(wait_s)
    server = bench.servers.server()
    # After a failure the upload itself tells how the server is.
    if not run.job.attempt and not guarded(run, server.health):
        polls = run.job.polls + 1
        return Later(bench.leases.backoff_s(polls), {"polls": polls})
    package = run.folder.package / packaging.PACKAGE
    sha256 = run.job.package_sha256 or ""
    is_here = package.is_file() and _sha256(package) == sha256
    # On another machine, or swept: the same bytes are made anew.
    if not is_here and _packed(run).sha256 != sha256:
        raise Changed("the package cannot be made again as it was")
    sealed = run.folder.kept_bytes(_TASK)
    run.to("uploading", **_tried(run))
    if sealed is not None:
        # A worker that was slow got the token after its lease: the package is there.
        _submitted(run, sealed)
        return Later(settings.poll_s[0])
    try:
        token = guarded(
            run,
            lambda: server.upload(package, sha256, run.watch, run.upload_leaves),
        )
    except Transient as err:
        if is_unknown(err) and bench.leases.may_have_arrived(run.job.job_id):
            return find_out(run)
        run.to("packed", Transient.code, **_tried(run))
        raise Transient(
            "the package did not arrive: it is sent again", err.retry_after_s
        ) from err
    except EngineError as err:
        # The server says that it does not have it, and why.
        run.to("packed", err.code)
        raise
    sealed = bench.jobs.sealer.seal(token)
    run.folder.keep_bytes(_TASK, sealed)
    _submitted(run, sealed)
    return Later(settings.poll_s[0])


def _tried(run: Run) -> dict[str, Any]:  # Any: values of columns
    """How often the upload was tried, and workers died over it.

    It is counted until the package is there, over the states that a try goes through.
    """
    return {"attempt": run.job.attempt, "crashes": run.job.crashes}


def _submitted(run: Run, sealed: bytes) -> None:
    run.to("submitted", task_sealed=sealed, submitted=time.time(), polls=0)
    run.folder.forget(_TASK)


def find_out(run: Run) -> Told:
    """An upload was cut off: did the server get it? Only its token tells for sure."""
    sealed = run.folder.kept_bytes(_TASK)
    if sealed is not None:
        _submitted(run, sealed)
        return Later(run.bench.settings().poll_s[0])
    if not run.bench.leases.may_have_arrived(run.job.job_id):
        run.to("packed", "cut-off", **_tried(run))
        return None
    if run.bench.settings().on_unknown_upload == "ask":
        # In one transaction: a job that were `packed` and not yet stopped would be sent
        # again by whoever takes it over.
        return Stops(UPLOAD_UNKNOWN, "packed")
    run.to("packed", UPLOAD_UNKNOWN, **_tried(run))
    raise Transient("nobody knows whether the package arrived: it is sent again")


def poll(run: Run) -> Told:
    """Ask the server how far it is, less often from time to time."""
    bench, settings = run.bench, run.bench.settings()
    run.folder.forget(_TASK)  # the row has it: none of it is for the next package
    wait_s = bench.servers.breaker.wait_s()
    if wait_s:
        return Later(wait_s)
    server, task = bench.servers.server(), bench.jobs.task(run.job)
    try:
        progress, said = guarded(run, lambda: server.status(task))
    except UnknownTask:
        return lost_later(run)
    waits = settings.poll_s
    if progress is Progress.FAILED:
        run.to("server_failed", "server-failed", server_status=said)
        return Ended()
    if progress is Progress.GONE:
        run.to("lost", "delivered-before", server_status=said)
        return Ended()
    if run.job.state == "submitted":
        run.to("processing", server_status=said, polls=run.job.polls)
    if progress is Progress.READY:
        run.to("ready", server_status=said)
        return None
    # After the question, so that who retries a late one gets what is ready by now.
    if time.time() > (run.job.submitted or time.time()) + settings.job_deadline_s:
        return Stops("deadline")
    polls = run.job.polls + 1
    kept = {"polls": polls, "server_status": said, "attempt": 0}
    kept["progress"] = percent_of(said)
    return Later(waits[min(polls, len(waits) - 1)], kept)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
