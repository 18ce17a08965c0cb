"""A worker's heartbeat in a thread, and the word to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger("theatrum.durable")


class Heart:
    """Calls `beat` in a thread until it is left."""

    def __init__(self, beat: Callable[[], None], every_s: float) -> None:
        self._beat = beat
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._beat()
            except (SQLAlchemyError, OSError):
                # The lease runs out, and others take over, if it goes on so.
                log.exception("a heartbeat failed")


class Stop:
    """Told by SIGTERM or SIGINT; over when the patience is."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._over_at = float("inf")
        self.told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)

    def _tell(self, _number: int, _frame: object) -> None:
        if not self.told.is_set():
            self._over_at = time.monotonic() + self._patience_s
            self.told.set()
        else:
            # Told twice: at once.
            self._over_at = 0.0

    def is_over(self) -> bool:
        """Whether runs are to end now."""
        return time.monotonic() >= self._over_at
