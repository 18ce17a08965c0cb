"""A job's run as a durable workflow of DBOS: from its state on, step by step.

Every run of a job is a workflow named `{job}-{run}`. The job's row is the checkpoint:
a step and the state that it leads to are committed together, so that a run which is cut
off by a crash, a time-out or a stop is followed by another that begins at the last
state, on whichever worker takes it from the queue. What only waits (for the server, for
the hour) ends its run and comes back as another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dbos import DBOS, error

from services.dicom_client.errors import (
    DicomClientError,
    EngineError,
    NoSuchThing,
    Transient,
    WrongState,
)
from services.dicom_client.running import Bench, Ended, Later, Run, Stopping, Stops
from services.dicom_client.steps import step
from services.dicom_client.transitions import Lost

log = logging.getLogger("theatrum.dicom_client")

QUEUE = "dicom-client-jobs"
WORKFLOW = "dicom-client-job"
STEPS_VERSION = "dicom-client-1"
"""Changes when the steps do: a run is only gone on with by workers of its version."""


def workflow_id(job_id: str, run: int) -> str:
    return f"{job_id}-{run}"


def run_of(workflow: str) -> tuple[str, int]:
    """The job and the run of a workflow's name."""
    job_id, _, run = workflow.rpartition("-")
    return job_id, int(run)


def register(bench: Bench) -> Callable[[str], str]:
    """Make the workflow known to DBOS, before it is launched."""

    @DBOS.workflow(name=WORKFLOW)
    def job(job_id: str) -> str:
        return _work(bench, job_id, run_of(str(DBOS.workflow_id))[1])

    return job


def _work(bench: Bench, job_id: str, run: int) -> str:
    """One run; returns how it ended. The job's row says the same, and counts."""
    if bench.stopping():
        # Taken from the queue at the last moment: it goes back there.
        bench.leases.lost_runs([(job_id, run)])
        return "stopping"
    try:
        job = bench.leases.claim(job_id, run, bench.worker)
    except (Lost, NoSuchThing):
        return "not ours"
    tags = {"job": job_id, "worker": bench.worker}
    log.info("a run begins", extra={**tags, "state": job.state})
    try:
        ended = _steps(bench, Run(bench, job))
    except DicomClientError as err:
        ended = _settle(bench, job_id, err)
    except Exception as err:
        # The boundary of a job: whatever it is, the others go on.
        log.exception("a step failed", extra=tags)
        ended = _settle(bench, job_id, EngineError(type(err).__name__))
    except error.DBOSWorkflowCancelledError:
        # Others took this worker for dead: the job is not to stay leased to it.
        _settle(bench, job_id, Stopping("the run was called off"))
        raise
    log.info("a run ended", extra={**tags, "state": ended})
    return ended


def _steps(bench: Bench, run: Run) -> str:
    while True:
        told: list[Later | Stops | Ended | DicomClientError | None] = []
        DBOS.run_step({"name": run.job.state}, _guarded, run, told)
        found = told[0]
        if isinstance(found, DicomClientError):
            raise found
        if found is None:
            continue
        job_id, worker = run.job.job_id, bench.worker
        if isinstance(found, Later):
            bench.leases.put_off(job_id, worker, found.wait_s, **found.kept)
            return "waits"
        if isinstance(found, Stops):
            bench.leases.stop(job_id, worker, found.code, state=found.state)
            return "stopped"
        bench.leases.end(job_id, worker)
        return run.job.state


def _guarded(
    run: Run,
    told: list[Later | Stops | Ended | DicomClientError | None],
) -> str:
    """A step whose error is handed on beside DBOS, which would write it down."""
    try:
        told.append(step(run))
    except DicomClientError as err:
        told.append(err)
        return "failed"
    except Exception as err:
        # Of somebody's library: what it says can hold anything, and DBOS would keep it.
        log.exception("a step failed")
        told.append(EngineError(type(err).__name__))
        return "failed"
    return "complete"


def _settle(bench: Bench, job_id: str, err: DicomClientError) -> str:
    """What becomes of a job whose run ended by an error."""
    leases, worker = bench.leases, bench.worker
    log.warning(
        "a run ended early", extra={"job": job_id, "code": err.code, "worker": worker}
    )
    try:
        if isinstance(err, Stopping):
            leases.put_off(job_id, worker, 0.0)
            return "released"
        if isinstance(err, Lost | WrongState):
            leases.end(job_id, worker)
            return "released"
        wait_s = err.retry_after_s if isinstance(err, Transient) else None
        stopped = leases.failed(
            job_id, worker, err.code, wait_s=wait_s, for_good=bench.is_final(err)
        )
    except Lost:
        leases.end(job_id, worker)
        return "released"
    return "stopped" if stopped else "waits"
