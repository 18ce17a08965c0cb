"""A job as a durable workflow of DBOS: the five steps, each with its checkpoint.

Every run of a job is a workflow named `{job}-{run}`. A run that ends early (an error, a
killed worker, a worker that is told to stop) is followed by another, forked from it:
DBOS gives the new one the checkpoints of the complete steps, so that it goes on after
the last of them, on whichever worker takes it from the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dbos import DBOS, error

from services.ia_api.child import AnalysisCrashed, AnalysisFailed
from services.ia_api.errors import (
    Conflict,
    DiskFull,
    IaApiError,
    NoSuchJob,
    Transient,
    Unauthorized,
    is_disk_full,
)
from services.ia_api.states import CHECKPOINTS, State
from services.ia_api.steps import Bench, NotWanted, ResultDeleted, Run, Stopping
from services.ia_api.transitions import Lost

log = logging.getLogger("theatrum.ia_api")

QUEUE = "ia-api-jobs"
WORKFLOW = "ia-api-job"
STEPS_VERSION = "ia-api-1"
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
        # A forked run has the arguments of the first one: which it is, its name says.
        return _work(bench, job_id, run_of(str(DBOS.workflow_id))[1])

    return job


def _work(bench: Bench, job_id: str, run: int) -> str:
    """One run; returns how it ended. The job's row says the same, and counts."""
    if bench.stopping():
        # Taken from the queue at the last moment: it goes back there.
        bench.leases.lost_runs([(job_id, run)])
        return "stopping"
    try:
        taken = bench.leases.claim(job_id, run, bench.worker)
    except (Lost, NoSuchJob):
        return "not ours"
    tags = {"job": job_id, "app": taken.app, "worker": bench.worker}
    log.info("a run begins", extra=tags)
    run_now: Run | None = None
    try:
        run_now = Run(bench, taken)
        ended = _steps(bench, run_now)
    except IaApiError as err:
        ended = _settle(bench, job_id, err)
    except Exception:
        # The boundary of a job: whatever it is, the others go on.
        log.exception("a run failed", extra=tags)
        ended = _settle(bench, job_id, AnalysisCrashed("internal"))
    except error.DBOSWorkflowCancelledError:
        # Others took this worker for dead: the job is not to stay leased to it.
        bench.leases.release(job_id, bench.worker)
        raise
    if ended == "waiting_auth" and run_now is not None:
        _look_for_token(bench, job_id, run_now.token)
    log.info("a run ended", extra={**tags, "state": ended})
    return ended


def _steps(bench: Bench, run: Run) -> str:
    for name in CHECKPOINTS:
        errors: list[IaApiError] = []
        DBOS.run_step({"name": name}, _guarded, run.step(name), errors)
        if errors:
            raise errors[0]
    job_id = run.job_id
    bench.leases.settle(job_id, bench.worker, "succeeded")
    run.finish()
    bench.leases.close(job_id, bench.worker)
    return "succeeded"


def _guarded(step: Callable[[], None], errors: list[IaApiError]) -> str:
    """A step whose error is handed on beside DBOS, which would write it down."""
    try:
        step()
    except IaApiError as err:
        errors.append(err)
        return "failed"
    except Exception as err:
        if isinstance(err, OSError) and is_disk_full(err):
            errors.append(DiskFull("the disk is full; the job goes on later"))
            return "failed"
        # Of somebody's library: what it says can hold anything, and DBOS would keep it.
        log.exception("a step failed")
        errors.append(AnalysisCrashed("internal"))
        return "failed"
    return "complete"


def _look_for_token(bench: Bench, job_id: str, refused: str | None) -> None:
    """Go on at once where another token came before or while this one was refused.

    Looked at after the job began to wait: whoever brings one from now on wakes it.
    """
    try:
        job = bench.here.store.get(job_id)
        if bench.here.store.has_other_token(job, refused):
            bench.leases.end_waiting(job_id)
    except (Unauthorized, Lost):
        # None is left, or somebody was quicker.
        return


def _settle(bench: Bench, job_id: str, err: IaApiError) -> str:
    """What becomes of a job whose run ended by an error (section 7)."""
    code = getattr(err, "code", "internal")
    leases, worker = bench.leases, bench.worker
    try:
        if isinstance(err, Lost | Stopping):
            leases.release(job_id, worker)
            return "released"
        state = _state_after(err)
        if state is None:
            wait_s = err.retry_after_s if isinstance(err, Transient) else None
            crashed = isinstance(err, AnalysisCrashed)
            state = leases.retry(job_id, worker, code, wait_s=wait_s, crashed=crashed)
        else:
            leases.settle(job_id, worker, state, code=code)
    except Lost:
        leases.release(job_id, worker)
        return "released"
    if state in {"dead", "deleted_by_user", "cancelled"}:
        bench.folders.of(job_id).remove()
    return state


def _state_after(err: IaApiError) -> State | None:
    """The state that an error leads to; None to try again."""
    if isinstance(err, Unauthorized):
        return "waiting_auth"
    if isinstance(err, ResultDeleted):
        return "deleted_by_user"
    if isinstance(err, NotWanted):
        return "cancelled"
    if isinstance(err, Transient | Conflict | AnalysisCrashed):
        return None
    if isinstance(err, AnalysisFailed) and err.code == "cancelled":
        # Its worker stopped it, and has said why already.
        return None
    return "dead"
