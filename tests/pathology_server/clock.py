"""The server's clock: it runs by itself, and a test moves it forward."""

from __future__ import annotations

import threading
import time


class Clock:
    """Seconds since the epoch, as real time plus what `advance` added.

    A frozen clock stands still but for `advance`. Safe to use from any thread.
    """

    def __init__(self, *, frozen_at_s: float | None = None) -> None:
        self._lock = threading.Lock()
        self._frozen_at_s = frozen_at_s
        self._ahead_s = 0.0

    def now_s(self) -> float:
        with self._lock:
            base = time.time() if self._frozen_at_s is None else self._frozen_at_s
            return base + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Move forward; a clock that went back would revive dead tokens."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        with self._lock:
            self._ahead_s += seconds
