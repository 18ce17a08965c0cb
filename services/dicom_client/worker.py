"""A worker: takes jobs from the durable queue, keeps its leases, and helps others.

Any number of workers share one database. Each is janitor as well: it hands due jobs to
the durable queue, gives the jobs of dead workers back, and removes what is left over.
One of them at a time watches the folders and decides about complete series. Two that do
the same at once do no harm, because every change of a job is made under a condition.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from dbos import DBOS, DBOSConfig

from hub.durable import health
from hub.durable.heart import Heart, Stop
from hub.durable.json_log import start_logging
from hub.durable.liveness import is_dead, own_columns
from services.dicom_client import audit, retention
from services.dicom_client.dispatch import Dispatcher
from services.dicom_client.figures import Figures
from services.dicom_client.intake import Intake
from services.dicom_client.leases import Leases
from services.dicom_client.models import Worker
from services.dicom_client.opening import LOG_FIELDS, Service, open_service
from services.dicom_client.running import Bench
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.web_intake import WebIntake
from services.dicom_client.workflow import QUEUE, STEPS_VERSION, register

log = logging.getLogger("theatrum.dicom_client")

_TICK_S = 0.2
_SWEEP_S = 60.0


def work(
    home: Path,
    settings: ServiceSettings,
    *,
    database_url: str,
    metrics_ports: Sequence[int] | None = None,
) -> None:
    """Work until told to stop (SIGTERM, SIGINT); what is not finished is given back."""
    start_logging(LOG_FIELDS)
    service = open_service(home, settings, database_url=database_url)
    row = Worker(**own_columns())
    stop = Stop(settings.stop_patience_s)
    bench = Bench(
        jobs=service.jobs,
        keeper=service.keeper,
        leases=Leases(service.database, service.settings),
        folders=service.folders,
        servers=service.servers,
        profiles=service.profiles,
        settings=service.settings,
        worker=row.worker_id,
        stopping=stop.is_over,
    )
    # First the row: by it the others know that what we take from the queue is ours.
    bench.leases.renew(row)
    _launch(bench, service.database.durable_url)
    janitor = _Janitor(service, bench, row)
    with health.serving(
        settings.metrics_bind,
        health.ports_of(settings.metrics_port, worker=True)
        if metrics_ports is None
        else metrics_ports,
        janitor.trouble,
        Figures(service),
    ):
        log.info("a worker is ready", extra={"worker": row.worker_id})
        janitor.run(stop)
        # New runs are refused from here on; those under way have their patience.
        with janitor.heart():
            DBOS.destroy(
                workflow_completion_timeout_sec=int(settings.stop_patience_s) + 15
            )
    bench.leases.leave(row.worker_id)
    service.close()
    log.info("a worker ended", extra={"worker": row.worker_id})


def _launch(bench: Bench, url: str) -> None:
    config: DBOSConfig = {
        "name": "theatrum-dicom-client",
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
        worker_concurrency=bench.settings().jobs_per_worker,
        polling_interval_sec=_TICK_S,
        on_conflict="always_update",
    )


class _Janitor:
    """The worker's housekeeping, in the main thread; its heartbeat in another."""

    def __init__(self, service: Service, bench: Bench, row: Worker) -> None:
        self._service = service
        self._bench = bench
        self._row = row
        self._dispatcher = Dispatcher(bench.leases)
        self._intake = Intake(
            service.jobs, service.keeper, service.folders, service.settings
        )
        self._web = WebIntake(service)
        self._beaten = time.monotonic()
        self._next: dict[str, float] = {}
        self._dead: set[str] = set()
        self._had_duty = False

    def trouble(self) -> str | None:
        """Why this worker cannot work now; None where it can."""
        silent_s = time.monotonic() - self._beaten
        if silent_s > self._bench.settings().lease_s:
            return f"no heartbeat for {silent_s:.0f} s: the database does not answer"
        if self._intake.is_disk_full():
            return "the disk is nearly full: make room in the home folder"
        return None

    def run(self, stop: Stop) -> None:
        """Until told to stop."""
        for first in (self._beat, self._take_back, self._sweep, self._find_missing):
            self._guarded(first)
        lease_s = self._bench.settings().lease_s
        with self.heart(), self._watching(stop):
            while not stop.told.wait(_TICK_S):
                self._guarded(self._dispatcher.dispatch)
                self._every(min(1.0, lease_s / 4), self._take_back)
                self._every(_SWEEP_S, self._sweep)

    def heart(self) -> Heart:
        """Beats meanwhile."""
        return Heart(self._beat, self._bench.settings().lease_s / 4)

    @contextmanager
    def _watching(self, stop: Stop) -> Iterator[None]:
        """The intake in a thread of its own: a slow share holds nothing else up."""
        thread = Thread(target=self._watch, args=(stop,), name="intake", daemon=True)
        thread.start()
        yield
        thread.join(self._bench.settings().stop_patience_s + 5)

    def _watch(self, stop: Stop) -> None:
        while not stop.told.wait(_TICK_S):
            self._guarded(self._watch_once)

    def _watch_once(self) -> None:
        leases = self._bench.leases
        if not leases.has_duty("intake", self._row.worker_id, self._dead):
            self._had_duty = False
            return
        if not self._had_duty:
            self._intake.forget()
            self._had_duty = True
        self._every(self._bench.settings().watch_interval_s, self._intake.look)
        self._every(self._bench.settings().dicomweb.interval_s, self._web.pull)
        self._every(0.5, self._intake.complete)

    def _every(self, seconds: float, call: Callable[[], object]) -> None:
        name = call.__name__
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

    def _find_missing(self) -> None:
        self._dispatcher.find_missing()

    def _take_back(self) -> None:
        """Give the jobs of dead workers to others."""
        self._dead = self._workers()[0]
        for job_id in self._bench.leases.take_back(self._dead):
            log.warning("a job is taken back", extra={"job": job_id})
        self._dispatcher.find_lost(lambda: self._workers()[1])

    def _workers(self) -> tuple[set[str], set[str]]:
        """The workers that are dead, and those that live."""
        lease_s = self._bench.settings().lease_s
        rows = self._bench.leases.workers()
        dead = {row.worker_id for row in rows if is_dead(row, self._row, lease_s)}
        return dead, {row.worker_id for row in rows} - dead

    def _sweep(self) -> None:
        """Remove what ended jobs left here, and what is beyond its retention."""
        settings = self._bench.settings()
        forgotten = retention.sweep(self._service, settings)
        self._dispatcher.forget(forgotten)
        audit.forget(self._service.database, time.time() - settings.audit_days * 86_400)
        self._row.disk_used_bytes = self._bench.folders.used_bytes()
        shutil.rmtree(self._bench.folders.root / "tmp", ignore_errors=True)
