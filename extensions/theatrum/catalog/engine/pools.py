"""Where tasks run: in this process, in threads of it, or on a Dask cluster.

All take a function and a task, and call back with what came of it, from any thread. A
pool knows how many tasks it can run at a time; who feeds it keeps a few more waiting.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from theatrum.catalog.engine.errors import NoCluster
from theatrum.catalog.engine.work import Done, Failure, Report, Task, failure_of

logger = logging.getLogger("theatrum.catalog")

Work = Callable[[Task, Report | None], Done]
TellDone = Callable[[Done], None]
TellProgress = Callable[[str, float, str], None]
TOPIC = "theatrum-progress"


class Pool(Protocol):
    """Something that runs tasks."""

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""

    @property
    def memory_bytes(self) -> int:
        """What one worker may use; 0 where nobody limits it."""

    @property
    def trouble(self) -> str:
        """Why nothing can be done at the moment; "" where all is well."""

    def submit(
        self, work: Work, task: Task, done: TellDone, progress: TellProgress
    ) -> None:
        """Run a task; `done` is called once, from any thread."""

    def forget(self, run_ids: list[str]) -> None:
        """Take back tasks that have not begun."""

    def close(self) -> None:
        """Give back what is held; a cluster of somebody else goes on."""


class Inline:
    """Tasks at once, in the thread that submits them: to debug a node."""

    workers = 1
    memory_bytes = 0
    trouble = ""

    def submit(
        self, work: Work, task: Task, done: TellDone, progress: TellProgress
    ) -> None:
        """See `Pool`."""
        done(work(task, lambda share, text: progress(task.run_id, share, text)))

    def forget(self, run_ids: list[str]) -> None:
        """Nothing ever waits."""

    def close(self) -> None:
        """Nothing is held."""


class Threads:
    """Tasks in threads of this process."""

    memory_bytes = 0
    trouble = ""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor = ThreadPoolExecutor(workers, "theatrum-engine")
        self._waiting: dict[str, Future[Done]] = {}

    def submit(
        self, work: Work, task: Task, done: TellDone, progress: TellProgress
    ) -> None:
        """See `Pool`."""
        future = self._executor.submit(
            work, task, lambda share, text: progress(task.run_id, share, text)
        )
        self._waiting[task.run_id] = future

        def ended(one: Future[Done]) -> None:
            self._waiting.pop(task.run_id, None)
            if one.cancelled():
                done(Done(task.run_id, "cancelled"))
            elif (error := one.exception()) is not None:
                done(Done(task.run_id, "failed", failure=failure_of(error)))
            else:
                done(one.result())

        future.add_done_callback(ended)

    def forget(self, run_ids: list[str]) -> None:
        """See `Pool`."""
        for run_id in run_ids:
            future = self._waiting.get(run_id)
            if future is not None:
                future.cancel()

    def close(self) -> None:
        """See `Pool`."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Distributed:
    """Tasks on a Dask cluster, ours or somebody else's.

    dask.distributed ships no types, hence Any.
    """

    def __init__(
        self,
        client: Any,
        own: tuple[Any, ...] = (),
        resources: dict[str, float] | None = None,
    ) -> None:
        self.client = client
        self._own = own
        self._resources = resources
        self._futures: dict[str, Any] = {}
        self._forgotten: set[str] = set()
        self._asked: dict[str, tuple[float, int]] = {}
        self._progress: TellProgress | None = None
        client.subscribe_topic(TOPIC, self._heard)

    @property
    def workers(self) -> int:
        """Threads of all workers; at least one, for those that are still to come."""
        return self._of_cluster(
            "workers", lambda: max(1, int(sum(self.client.nthreads().values())))
        )

    def _of_cluster(self, name: str, ask: Callable[[], int]) -> int:
        """Ask the scheduler, once a second at most: each question is a round trip."""
        moment = time.monotonic()
        known = self._asked.get(name)
        if known is None or moment - known[0] > 1.0:
            try:
                known = self._asked[name] = (moment, ask())
            except Exception as error:  # the boundary: whatever a lost network raises
                raise NoCluster(
                    f"the scheduler does not answer any more: {error}"
                ) from error
        return known[1]

    @property
    def memory_bytes(self) -> int:
        """What the smallest worker may use."""

        def ask() -> int:
            known = self.client.scheduler_info(n_workers=-1)["workers"].values()
            limits = [int(one.get("memory_limit") or 0) for one in known]
            return min(limits, default=0)

        return self._of_cluster("memory", ask)

    @property
    def trouble(self) -> str:
        """That no worker is there: what is asked for would wait for ever."""
        threads = self._of_cluster(
            "threads", lambda: int(sum(self.client.nthreads().values()))
        )
        if threads:
            return ""
        where = self.client.scheduler.address if self.client.scheduler else "its place"
        return (
            f"The scheduler at {where} has no worker: start one "
            f"(`dask worker {where}`), or wait until the cluster gives one."
        )

    def submit(
        self, work: Work, task: Task, done: TellDone, progress: TellProgress
    ) -> None:
        """See `Pool`."""
        self._progress = progress
        try:
            future = self.client.submit(
                _on_worker,
                work,
                task,
                key=f"theatrum-{task.run_id}-{task.staging.name}",
                pure=False,
                retries=0,
                resources=self._resources,
            )
        except Exception as error:
            raise NoCluster(f"the cluster does not answer any more: {error}") from error
        self._futures[task.run_id] = future
        future.add_done_callback(lambda one: self._ended(task, one, done))

    def _ended(self, task: Task, future: Any, done: TellDone) -> None:
        self._futures.pop(task.run_id, None)
        if future.status == "finished":
            try:
                done(future.result(timeout=60))
            except Exception as error:  # the boundary: the network, pickling
                gone = type(error).__name__ in _LOST
                why = _lost() if gone else failure_of(error)
                done(Done(task.run_id, "failed", failure=why))
        elif future.status == "cancelled" and task.run_id in self._forgotten:
            done(Done(task.run_id, "cancelled"))
        elif future.status in ("cancelled", "lost"):
            # Not by us: the scheduler went away, and forgot what it was asked.
            done(Done(task.run_id, "failed", failure=_lost()))
        else:
            done(Done(task.run_id, "failed", failure=self._why(future)))

    def _why(self, future: Any) -> Failure:
        try:
            error = future.exception(timeout=60)
        except Exception as unknown:  # the boundary: the scheduler is gone
            error = unknown
        if type(error).__name__ == "KilledWorker":
            return Failure(
                "WorkerDied",
                "its worker died each time that it was tried: it is left out from now "
                "on. Often no memory is left: see what the worker logged.",
                str(error)[:2000],
                died=True,
            )
        return failure_of(error)

    def forget(self, run_ids: list[str]) -> None:
        """See `Pool`."""
        self._forgotten |= set(run_ids)
        futures = [self._futures[one] for one in run_ids if one in self._futures]
        if futures:
            self.client.cancel(futures)

    def close(self) -> None:
        """See `Pool`."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self.client.unsubscribe_topic(TOPIC)  # unless the scheduler is gone
        self.client.close()
        for one in self._own:
            one.close()

    def _heard(self, event: Any) -> None:
        _, message = event
        if self._progress is not None:
            self._progress(message["run"], message["share"], message["text"])


_LOST = frozenset({"FutureCancelledError", "CancelledError", "CommClosedError"})
"""What Dask raises for results that went away with a scheduler or its workers."""


def _lost() -> Failure:
    return Failure("NoCluster", "the scheduler went away", passing=True)


def _on_worker(work: Work, task: Task) -> Done:
    """Do a task as one of a Dask worker, telling how far it is."""
    from distributed import get_worker

    worker = get_worker()

    def report(share: float, text: str) -> None:
        message = {"run": task.run_id, "share": share, "text": text}
        worker.log_event(TOPIC, message)

    return work(task, throttled(report))


def throttled(report: Report, least_s: float = 0.5) -> Report:
    """Return a report that passes on the first and then so many a second."""
    last = [0.0]

    def told(share: float, text: str) -> None:
        now = time.monotonic()
        if share >= 1 or now - last[0] >= least_s:
            last[0] = now
            report(share, text)

    return told
