"""The state of jobs, workers and disk for Prometheus; it names nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from services.dicom_client.models import Breaker, Job, Worker
from services.dicom_client.opening import Service
from services.dicom_client.states import STATES, WORK


class Figures(Collector):
    """Read when they are asked for, so every process tells the same."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = time.time()
        with self._service.database.reading() as session:
            counted = session.execute(
                select(Job.state, func.count()).group_by(Job.state)
            )
            states = {str(state): int(count) for state, count in counted}
            oldest = session.scalar(
                select(func.min(Job.updated)).where(
                    Job.state.in_(WORK), Job.stopped.is_(None)
                )
            )
            stopped = session.scalar(
                select(func.count()).select_from(Job).where(Job.stopped.is_not(None))
            )
            workers = session.scalar(
                select(func.count())
                .select_from(Worker)
                .where(Worker.heartbeat > now - 60)
            )
            broken = session.scalar(
                select(func.count())
                .select_from(Breaker)
                .where(Breaker.open_until > now)
            )
        jobs = GaugeMetricFamily(
            "theatrum_dicom_client_jobs", "Series by state", labels=["state"]
        )
        for state in STATES:
            jobs.add_metric([state], states.get(state, 0))
        yield jobs
        free = self._service.folders.free_bytes()
        for name, text, value in (
            ("stopped_jobs", "Series that a person has to look at", stopped or 0),
            ("oldest_seconds", "Since the oldest one moved", now - (oldest or now)),
            ("workers", "Workers with a heartbeat", workers or 0),
            ("open_breakers", "Peers that are left alone for now", broken or 0),
            ("disk_free_bytes", "Free where images are kept", free),
        ):
            yield GaugeMetricFamily(f"theatrum_dicom_client_{name}", text, value=value)
