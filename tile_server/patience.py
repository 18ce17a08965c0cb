"""Whether anybody still waits for what a thread is doing.

A thread cannot be ended from outside. So work that can last looks up now and then
(`check`) whether its visitors have gone or its time is over, and ends itself. Whoever
starts work for visitors gives it a `Patience`; code that runs without one, in a command
or a test, is never interrupted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tile_server.errors import Abandoned, TookTooLong


class Patience:
    """How long one piece of work is waited for; `end` may be called by any thread."""

    def __init__(self, limit_s: float) -> None:
        """Be patient for `limit_s` seconds from when the work begins."""
        self._limit_s = limit_s
        self._until: float | None = None
        self._gone = threading.Event()

    def end(self) -> None:
        """Nobody waits any more."""
        self._gone.set()

    def check(self) -> None:
        """Raise Abandoned where nobody waits, TookTooLong where the time is over."""
        if self._gone.is_set():
            raise Abandoned("Nobody waits for this any more.")
        if self._until is not None and time.monotonic() > self._until:
            raise TookTooLong("The work has not ended in time.")

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let `check` in this thread speak of this patience as long as this lasts."""
        self._until = time.monotonic() + self._limit_s
        before = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(before)


_CURRENT: ContextVar[Patience | None] = ContextVar("patience", default=None)


def check() -> None:
    """Go on, or raise Abandoned or TookTooLong; costs a tenth of a microsecond."""
    current = _CURRENT.get()
    if current is not None:
        current.check()
