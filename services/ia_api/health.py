"""What Prometheus is told of the queue (`hub.durable.health` answers it).

The figures come from the database, so every process tells the same of the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.ia_api.jobs import Figures


class Queue(Collector):
    """The state of queue, workers and disks, read when it is asked for."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = self._figures()
        jobs = GaugeMetricFamily(
            "theatrum_ia_api_jobs", "Jobs by state", labels=["state"]
        )
        for state, count in now.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        for name, text, value in (
            ("oldest_queued_seconds", "How long the oldest job waits", now.oldest_s),
            ("unclosed_jobs", "Ended jobs with a last word to say", now.unclosed),
            ("workers", "Workers with a heartbeat", now.workers),
            ("disk_used_bytes", "Taken by slides of running jobs", now.disk_used),
            ("disk_free_bytes", "Free where slides are kept", now.disk_free),
        ):
            yield GaugeMetricFamily(f"theatrum_ia_api_{name}", text, value=value)
