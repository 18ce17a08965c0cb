"""How often one person may ask: a bucket of tokens for each person and kind of work.

A loop in a notebook that asks without end must not slow down a class. The buckets are
this process's: what is limited is the load on it, not a person's use over a month.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from services.catalog.errors import TooManyRequestsError

_KEPT = 10_000
"""Buckets kept at most: an idle one is full again, and loses nothing when dropped."""


@dataclass(frozen=True)
class Rate:
    """So many requests at once, refilled at so many a second."""

    burst: float
    per_s: float


READ = Rate(burst=400, per_s=100)
WRITE = Rate(burst=100, per_s=20)
EXPORT = Rate(burst=6, per_s=0.1)


@dataclass
class Limiter:
    """The buckets of all persons; safe in threads."""

    clock: Callable[[], float] = time.monotonic
    _left: OrderedDict[tuple[str, Rate], tuple[float, float]] = field(
        default_factory=OrderedDict
    )
    _lock: Lock = field(default_factory=Lock)

    def take(self, person: str, rate: Rate) -> None:
        """Count one request.

        Raises
        ------
        TooManyRequestsError
            Where the bucket is empty; it says after how many seconds to try again.
        """
        now = self.clock()
        key = (person, rate)
        with self._lock:
            left, since = self._left.pop(key, (rate.burst, now))
            left = min(rate.burst, left + (now - since) * rate.per_s)
            enough = left >= 1
            self._left[key] = (left - 1 if enough else left, now)
            while len(self._left) > _KEPT:
                self._left.popitem(last=False)
        if not enough:
            raise TooManyRequestsError((1 - left) / rate.per_s)
