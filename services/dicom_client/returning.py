"""The way back: fetched, checked, given back to the patient, delivered, confirmed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pydicom
from theatrum.deidentify import DeidentifyError, Mapping, load_mapping

from hub.durable.sealing import digest
from services.dicom_client import packaging
from services.dicom_client.arrivals import instance_key
from services.dicom_client.delivery import Target, is_done
from services.dicom_client.delivery import deliver as deliver_to
from services.dicom_client.errors import (
    NotPackable,
    NotReady,
    PeerError,
    UnknownTask,
)
from services.dicom_client.finishing import Finished
from services.dicom_client.finishing import finish as finish_result
from services.dicom_client.intake import read_headers
from services.dicom_client.jobs import Changed
from services.dicom_client.outcomes import Attempt, Outcome
from services.dicom_client.result_checks import Severity
from services.dicom_client.running import (
    Ended,
    Later,
    Run,
    Stops,
    Told,
    guarded,
    log,
    lost_later,
)
from services.dicom_client.sending import deidentified, package_folder
from services.dicom_client.targets import targets_of
from services.dicom_client.web_servers import stored_at


def fetch(run: Run) -> Told:
    """Download the structure set; the server keeps its own until it is confirmed."""
    bench = run.bench
    wait_s = bench.servers.breaker.wait_s()
    if wait_s:
        return Later(wait_s)
    run.folder.make()
    server, task = bench.servers.server(), bench.jobs.task(run.job)
    try:
        got = guarded(run, lambda: server.download(task, run.folder.result, run.watch))
    except NotReady:
        return Later(bench.settings().poll_s[0])
    except UnknownTask:
        return lost_later(run)
    run.to("downloaded", result_sha256=got.sha256, verified=got.verified)
    return None


def finish(run: Run) -> Told:
    """Check the structure set and make it the patient's; or quarantine it."""
    paths = run.bench.jobs.files_of(run.job)
    headers = read_headers(paths)
    if not headers:
        raise Changed("an image of the series cannot be read any more")
    zone = ZoneInfo(run.bench.settings().time_zone)
    done = finish_result(
        run.folder.result,
        _mapping(run),
        headers,
        run.template,
        folder=run.folder.finished,
        made_at=datetime.fromtimestamp(run.job.submitted or run.job.created, zone),
        verified=run.job.verified,
    )
    findings = [
        {"check": one.check, "severity": one.severity.value, "text": one.text}
        for one in done.findings
    ]
    if done.rejected:
        alarm = "alarm" if done.alarm else "rejected"
        log.warning(
            "a structure set is in quarantine",
            extra={"job": run.job.job_id, "code": alarm},
        )
        first = next(
            one for one in done.findings if one.severity is not Severity.WARNING
        )
        run.to("rejected", f"check {first.check}", findings=findings)
        return Ended()
    run.to("reidentified", findings=findings, result_key=_result_key(done))
    return None


def _mapping(run: Run) -> Mapping:
    """What the job replaced; it never changes."""
    file = package_folder(run) / packaging.MAPPING
    if not file.is_file():
        # On another machine: the same key makes the same mapping.
        deidentified(run)
    try:
        return load_mapping(file, run.job.job_id, run.bench.profiles.key)
    except DeidentifyError as err:
        raise NotPackable("mapping", str(err)) from err


def _result_key(done: Finished) -> str:
    """To know what we deliver, should it lie in a watched folder."""
    header = pydicom.dcmread(done.files[0], stop_before_pixels=True)
    return instance_key(str(header.SOPInstanceUID))


def deliver(run: Run) -> Told:
    """Bring every file to every target that does not have it yet, and look there."""
    bench = run.bench
    files = sorted(run.folder.finished.glob("*.dcm"))
    if not files:
        raise Changed("the finished structure set is not on this machine")
    targets = targets_of(
        bench.settings(),
        bench.keeper.node_list(),
        bench.jobs.files_of(run.job),
        stow=stored_at(bench.settings().stow, bench.keeper),
    )
    if not targets:
        return Stops("no-target")
    undelivered: list[Outcome] = []
    for number, file in enumerate(files):
        outcomes = _deliver(run, file, targets, number / len(files), len(files))
        if not is_done(outcomes, targets):
            undelivered += [one for one in outcomes if not one.delivered]
    if not undelivered:
        run.to("exported")
        return None
    hopeless = {one.code for one in undelivered if not one.again}
    if hopeless:
        # What a person can settle here comes first.
        code = "unknown" if "unknown" in hopeless else min(hopeless)
        return Stops(f"delivery-{code}")
    raise PeerError("a target does not have the structure set yet", "delivery")


def _deliver(
    run: Run, file: Path, targets: Sequence[Target], before: float, files: int
) -> list[Outcome]:
    """Deliver one of `files` files; `before` is the share that went before it."""
    leases, job_id, worker = run.bench.leases, run.job.job_id, run.bench.worker
    name = digest("file", file.name)[:16]
    earlier = leases.attempts(job_id, name)
    resend = run.bench.settings().on_unknown_delivery == "again"

    def note(attempt: Attempt) -> None:
        run.check()
        leases.note_attempt(job_id, worker, name, attempt)

    outcomes = []
    for at, target in enumerate(targets):
        run.watch(before + at / len(targets) / files)
        outcome = deliver_to(
            file, [target], earlier=earlier, on_attempt=note, resend=resend
        )[0]
        leases.delivered(job_id, worker, name, outcome, required=target.required)
        outcomes.append(outcome)
    return outcomes


def confirm(run: Run) -> Told:
    """Tell the server that all is safe here: it deletes what it has of the series."""
    if not run.is_local:
        wait_s = run.bench.servers.breaker.wait_s()
        if wait_s:
            return Later(wait_s)
        server, task = run.bench.servers.server(), run.bench.jobs.task(run.job)
        guarded(run, lambda: server.confirm(task))
    run.to("confirmed")
    return None


def wipe(run: Run) -> Told:
    """Remove what was staged; the mapping and the finished file have their time."""
    run.folder.wipe()
    run.to("done", wiped=time.time(), lease_owner=None, run=run.job.run + 1)
    return Ended()
