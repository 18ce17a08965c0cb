"""From the jobs' table to the durable queue, and back where the queue lost a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from dbos import DBOS

from services.dicom_client.leases import Leases
from services.dicom_client.models import Job
from services.dicom_client.workflow import (
    QUEUE,
    STEPS_VERSION,
    WORKFLOW,
    run_of,
    workflow_id,
)

_MANY = 100


class Dispatcher:
    """Hands due jobs to the durable queue."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def dispatch(self) -> int:
        """Enqueue what is due; how many. The same run twice is one run."""
        due = self._leases.due(_MANY)
        for job in due:
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

    def forget(self, jobs: Iterable[tuple[str, int]]) -> None:
        """Remove the workflows of jobs that are not kept any longer."""
        ids = [
            workflow_id(job_id, run)
            for job_id, runs in jobs
            for run in range(1, runs + 1)
        ]
        for start in range(0, len(ids), _MANY):
            DBOS.delete_workflows(ids[start : start + _MANY])

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
                    workflow_ids=ids,
                    status=["ENQUEUED", "PENDING"],
                    load_input=False,
                    load_output=False,
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
