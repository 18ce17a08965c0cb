"""A worker: takes jobs from the durable queue, keeps its leases, and helps others.

Any number of workers share one database. Each is janitor as well: it hands due jobs to
the durable queue, gives the jobs of dead workers back, says the last word on ended
ones, and removes what is left over. Two that do the same at once do no harm, because
every change of a job is made under a condition.

A dead worker is known by its heartbeat; one on the same machine, at once, by its
process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dbos import DBOS, DBOSConfig

from hub.durable import health
from hub.durable.heart import Heart, Stop
from hub.durable.json_log import start_logging
from hub.durable.liveness import is_dead, own_columns
from services.ia_api import audit, jobs
from services.ia_api.audit import LOG_FIELDS
from services.ia_api.child import context_for
from services.ia_api.closing import close_ended
from services.ia_api.dispatch import Dispatcher
from services.ia_api.folders import Folders
from services.ia_api.health import Queue
from services.ia_api.leases import Leases
from services.ia_api.models import Worker
from services.ia_api.opening import open_service, phi_of, settled
from services.ia_api.settings import ServiceSettings
from services.ia_api.steps import Bench
from services.ia_api.workflow import QUEUE, STEPS_VERSION, register

log = logging.getLogger("theatrum.ia_api")

_TICK_S = 0.2
_SWEEP_S = 60.0


def work(
    home: Path,
    settings: ServiceSettings,
    *,
    database_url: str,
    metrics_ports: Sequence[int],
) -> None:
    """Work until told to stop (SIGTERM, SIGINT); what is not finished is given back."""
    start_logging(LOG_FIELDS)
    service = open_service(home, settings, database_url=database_url, listed=False)
    database = service.store.database
    row = Worker(**own_columns())
    stop = Stop(settings.stop_patience_s)
    modules = sorted(
        {
            app.node.function.__module__
            for app in service.apps.values()
            if not app.address.partition(":")[0].endswith(".py")
        }
    )
    bench = Bench(
        here=service,
        leases=Leases(database, settings),
        folders=Folders(phi_of(home), settings),
        worker=row.worker_id,
        processes=context_for(modules),
        stopping=stop.is_over,
    )
    # First the row: by it the others know that what we take from the queue is ours.
    bench.leases.renew(row)
    _launch(bench, database.durable_url)
    janitor = _Janitor(bench, row)
    settled()
    with health.serving(
        settings.metrics_bind,
        metrics_ports,
        janitor.trouble,
        Queue(lambda: jobs.figures(service.store)),
    ):
        log.info("a worker is ready", extra={"worker": row.worker_id})
        janitor.run(stop)
        # New runs are refused from here on; those under way have their patience.
        with janitor.heart():
            DBOS.destroy(
                workflow_completion_timeout_sec=int(settings.stop_patience_s) + 15
            )
    bench.leases.leave(row.worker_id)
    service.servers.close()
    database.close()
    log.info("a worker ended", extra={"worker": row.worker_id})


def _launch(bench: Bench, url: str) -> None:
    config: DBOSConfig = {
        "name": "theatrum-ia-api",
        "system_database_url": url,
        "application_version": STEPS_VERSION,
        "executor_id": bench.worker,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    register(bench)
    DBOS.launch()
    DBOS.register_queue(
        QUEUE,
        worker_concurrency=bench.here.settings.jobs_per_worker,
        polling_interval_sec=_TICK_S,
        on_conflict="always_update",
    )


class _Janitor:
    """The worker's housekeeping, in the main thread; its heartbeat in another."""

    def __init__(self, bench: Bench, row: Worker) -> None:
        self._bench = bench
        self._row = row
        self._dispatcher = Dispatcher(bench.leases)
        self._beaten = time.monotonic()
        self._next: dict[str, float] = {}

    def trouble(self) -> str | None:
        """Why this worker cannot work now; None where it can."""
        silent_s = time.monotonic() - self._beaten
        if silent_s > self._bench.here.settings.lease_s:
            return f"no heartbeat for {silent_s:.0f} s: the database does not answer"
        return None

    def run(self, stop: Stop) -> None:
        """Until told to stop."""
        for first in (self._beat, self._sweep, self._dispatcher.find_missing):
            self._guarded(first)
        lease_s = self._bench.here.settings.lease_s
        with self.heart():
            while not stop.told.wait(_TICK_S):
                self._guarded(self._dispatcher.dispatch)
                self._every(min(1.0, lease_s / 4), self._bench.leases.wake)
                self._every(min(1.0, lease_s / 4), self._take_back)
                self._every(0.5, lambda: close_ended(self._bench), "close")
                self._every(_SWEEP_S, self._sweep)

    def heart(self) -> Heart:
        """Beats meanwhile."""
        return Heart(self._beat, self._bench.here.settings.lease_s / 4)

    def _every(
        self, seconds: float, call: Callable[[], object], name: str = ""
    ) -> None:
        name = name or call.__name__
        if time.monotonic() >= self._next.get(name, 0.0):
            self._guarded(call)
            self._next[name] = time.monotonic() + seconds

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            # The boundary of the housekeeping: it is done again at the next tick.
            log.exception("housekeeping failed", extra={"worker": self._bench.worker})

    def _beat(self) -> None:
        self._row.disk_free_bytes = self._bench.folders.free_bytes()
        self._bench.leases.renew(self._row)
        self._beaten = time.monotonic()

    def _take_back(self) -> None:
        """Give the jobs of dead workers to others."""
        broken = self._bench.leases.take_back(self._workers()[0])
        self._dispatcher.find_lost(lambda: self._workers()[1])
        for job_id, _run in broken:
            log.warning("a job is taken back", extra={"job": job_id})

    def _workers(self) -> tuple[set[str], set[str]]:
        """The workers that are dead, and those that live."""
        lease_s = self._bench.here.settings.lease_s
        rows = self._bench.leases.workers()
        dead = {row.worker_id for row in rows if is_dead(row, self._row, lease_s)}
        return dead, {row.worker_id for row in rows} - dead | {self._bench.worker}

    def _sweep(self) -> None:
        """Remove what ended jobs left here, and rows beyond the retention."""
        folders, leases = self._bench.folders, self._bench.leases
        for job_id in leases.ended(folders.ids()):
            folders.of(job_id).remove()
        self._row.disk_used_bytes = folders.used_bytes()
        before = time.time() - self._bench.here.settings.retention_days * 86_400
        for job_ids in jobs.forget(self._bench.here.store, before):
            self._dispatcher.forget(job_ids)
        audit.forget(self._bench.here.store.database, before)
