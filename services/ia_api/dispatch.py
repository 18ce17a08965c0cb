"""From the jobs' table to the durable queue, and back where the queue lost a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable

from dbos import DBOS, SetWorkflowID, error
from sqlalchemy.exc import IntegrityError

from services.ia_api.leases import Leases
from services.ia_api.models import Job
from services.ia_api.workflow import (
    QUEUE,
    STEPS_VERSION,
    WORKFLOW,
    run_of,
    workflow_id,
)

log = logging.getLogger("theatrum.ia_api")

_MANY = 100


class Dispatcher:
    """Hands due jobs to the durable queue."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def dispatch(self) -> int:
        """Enqueue what is due; how many. The same run twice is one run."""
        due = self._leases.due(_MANY)
        for job in due:
            if job.dispatched == 0 or not self._fork(job):
                self._enqueue(job)
        if due:
            self._leases.dispatched([(job.job_id, job.run) for job in due])
        return len(due)

    def _enqueue(self, job: Job) -> None:
        DBOS.enqueue_workflow_with_options(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": workflow_id(job.job_id, job.run),
                "app_version": STEPS_VERSION,
            },
            job.job_id,
        )

    def _fork(self, job: Job) -> bool:
        """Go on from the last run's checkpoints; False where DBOS knows no such run."""
        before = workflow_id(job.job_id, job.dispatched)
        try:
            with SetWorkflowID(workflow_id(job.job_id, job.run)):
                DBOS.fork_workflow(
                    before,
                    job.checkpoint + 1,
                    application_version=STEPS_VERSION,
                    queue_name=QUEUE,
                )
        except error.DBOSNonExistentWorkflowError:
            return False
        except IntegrityError:
            # Another worker's janitor was quicker.
            return True
        # A worker that was only taken for dead is stopped at its next step.
        DBOS.cancel_workflows([before])
        return True

    def forget(self, jobs: Iterable[tuple[str, int]]) -> None:
        """Remove the workflows of jobs that are not kept any longer."""
        DBOS.delete_workflows(
            [
                workflow_id(job_id, run)
                for job_id, runs in jobs
                for run in range(1, runs + 1)
            ]
        )

    def find_missing(self) -> int:
        """Runs that were handed over to a durable queue which is not there any more."""
        with_queue = self._leases.handed_over()
        missing = []
        for start in range(0, len(with_queue), _MANY):
            part = with_queue[start : start + _MANY]
            ids = [workflow_id(*run) for run in part]
            known = {
                found.workflow_id
                for found in DBOS.list_workflows(
                    workflow_ids=ids, load_input=False, load_output=False
                )
            }
            missing += [run for run in part if workflow_id(*run) not in known]
        return self._leases.lost_runs(missing)

    def find_lost(self, alive: Callable[[], Collection[str]]) -> int:
        """Runs that a worker took from the queue and died before it began them.

        `alive` is asked after the queue: a worker has its row before it takes a run,
        so that one which is only just there is not taken for dead.
        """
        taken = DBOS.list_workflows(
            status="PENDING", name=WORKFLOW, load_input=False, load_output=False
        )
        living = alive() if taken else ()
        lost = [one for one in taken if one.executor_id not in living]
        if not lost:
            return 0
        count = self._leases.lost_runs(run_of(one.workflow_id) for one in lost)
        DBOS.cancel_workflows([one.workflow_id for one in lost])
        return count
