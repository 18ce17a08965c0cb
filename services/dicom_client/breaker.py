"""A server that does not answer is left alone for a while, by all workers together.

After `breaker_failures` failures in a row nobody asks for `breaker_s`, then one asks;
each further failure doubles the pause, up to sixteen times. Jobs that wait for it do
not fail meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hub.durable.database import Database
from services.dicom_client.models import Breaker
from services.dicom_client.settings import ServiceSettings

_LONGEST = 16


class CircuitBreaker:
    """The breaker towards one peer, in the database."""

    def __init__(
        self, database: Database, settings: Callable[[], ServiceSettings], peer: str
    ) -> None:
        self._database = database
        self._settings = settings
        self._peer = peer

    def wait_s(self) -> float:
        """How long nobody asks; 0 where everybody may."""
        with self._database.reading() as session:
            row = session.get(Breaker, self._peer)
        return 0.0 if row is None else max(0.0, row.open_until - time.time())

    def worked(self) -> None:
        """The peer answered."""
        with self._database.reading() as session:
            row = session.get(Breaker, self._peer)
        if row is None or not row.failures:
            return
        with self._database.writing() as session:
            session.merge(Breaker(peer=self._peer, failures=0, open_until=0.0))

    def failed(self) -> bool:
        """The peer did not answer; whether that opens the breaker."""
        settings = self._settings()
        with self._database.writing() as session:
            row = session.get(Breaker, self._peer)
            if row is None:
                row = Breaker(peer=self._peer, failures=0, open_until=0.0)
                session.add(row)
            row.failures += 1
            beyond = row.failures - settings.breaker_failures
            if beyond < 0:
                return False
            pause = settings.breaker_s * min(2 ** min(beyond, 10), _LONGEST)
            row.open_until = time.time() + pause
            return True
