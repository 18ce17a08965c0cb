"""What the service counts, and the page on which Prometheus reads it.

Counting happens for every tile, so it is a few additions on plain numbers; only the
page, asked for every some seconds, makes metrics of them. Everything runs on the event
loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# From a tile out of memory to one that keeps a person waiting.
BOUNDS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class Tally:
    """How many answers of each kind there were, how long they took, what they sent."""

    def __init__(self) -> None:
        self._times: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, int] = {}
        self._problems: dict[int, int] = {}

    def count(self, kind: str, spent_s: float, size: int) -> None:
        """Count an answer of `kind` of `size` bytes."""
        times = self._times.get(kind)
        if times is None:
            times = self._times[kind] = [0] * (len(BOUNDS_S) + 1)
            self._seconds[kind], self._bytes[kind] = 0.0, 0
        times[bisect_left(BOUNDS_S, spent_s)] += 1
        self._seconds[kind] += spent_s
        self._bytes[kind] += size

    def problem(self, status: int) -> None:
        """Count an answer that is a problem document."""
        self._problems[status] = self._problems.get(status, 0) + 1

    def families(self) -> Iterable[Metric]:
        """The counts as Prometheus has them."""
        spent = HistogramMetricFamily(
            "theatrum_tiles_seconds",
            "Time from request to answer, by kind of answer.",
            labels=["kind"],
        )
        sent = CounterMetricFamily(
            "theatrum_tiles_sent_bytes", "Bytes of bodies sent.", labels=["kind"]
        )
        requests = CounterMetricFamily(
            "theatrum_tiles_requests", "Answers, by kind.", labels=["kind"]
        )
        for kind, times in self._times.items():
            requests.add_metric([kind], sum(times))
            total, buckets = 0, []
            for bound, count in zip([*BOUNDS_S, float("inf")], times, strict=True):
                total += count
                buckets.append((_bound(bound), total))
            spent.add_metric([kind], buckets, self._seconds[kind])
            sent.add_metric([kind], self._bytes[kind])
        problems = CounterMetricFamily(
            "theatrum_tiles_problems", "Problem answers, by status.", labels=["status"]
        )
        for status, count in self._problems.items():
            problems.add_metric([str(status)], count)
        requests.add_metric(["problem"], sum(self._problems.values()))
        return [requests, spent, sent, problems]


class _Now(Collector):
    """Collects when the page is asked for."""

    def __init__(self, tally: Tally, levels: Callable[[], Mapping[str, float]]) -> None:
        self._tally, self._levels = tally, levels

    def collect(self) -> Iterable[Metric]:
        yield from self._tally.families()
        for name, level in self._levels().items():
            label = name.replace("_", " ")
            yield GaugeMetricFamily(
                f"theatrum_tiles_{name}", f"Right now: {label}.", value=level
            )


def page(tally: Tally, levels: Callable[[], Mapping[str, float]]) -> bytes:
    """The text that Prometheus reads; `levels` gives what rises and falls, by name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Now(tally, levels))
    return generate_latest(registry)


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(bound)
