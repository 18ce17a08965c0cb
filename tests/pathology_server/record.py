"""What was asked of the server, in order, and what may be said of it.

The helpers raise AssertionError with the requests at issue, so that a failed test shows
them. None of them waits: wait for a condition first, then look.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Exchange:
    """One request and what became of it.

    Attributes
    ----------
    number
        Counted from 1 over the life of the server.
    time_s
        On the server's clock, when the request had arrived whole.
    path
        As it came, still percent-encoded, below the base path.
    headers
        By lower-case name.
    route
        The route's name, or "" where no route took it.
    status
        What was answered; None where the connection was reset first.
    fault
        The name of the fault that the request met, or "".
    """

    number: int
    time_s: float
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str] = field(repr=False)
    body_sha256: str = field(repr=False)
    body_bytes: int = 0
    route: str = ""
    application_id: str | None = None
    slide_id: str | None = None
    result_id: int | None = None
    status: int | None = None
    reason: str = ""
    fault: str = ""

    def asked(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), None)

    def __str__(self) -> str:
        extras = " ".join(filter(None, (self.fault, self.reason)))
        return f"{self.number}: {self.method} {self.path} -> {self.status} {extras}"


def body_hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Record:
    """Every request of a server, oldest first; any thread may use it.

    `keep` bounds how many are remembered (all of them by default), so that a load test
    of many thousand jobs does not measure the record's own memory.
    """

    def __init__(self, *, keep: int | None = None) -> None:
        self._changed = threading.Condition()
        self._exchanges: deque[Exchange] = deque(maxlen=keep)
        self._total = 0

    def add(self, exchange: Exchange) -> None:
        with self._changed:
            self._exchanges.append(exchange)
            self._total = max(self._total, exchange.number)
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._exchanges)

    def mark(self) -> int:
        """A place in the record; `since=mark` looks at what comes after it."""
        with self._changed:
            return self._total

    def of(
        self,
        route: str | None = None,
        *,
        method: str | None = None,
        slide_id: str | None = None,
        status: int | None = None,
        since: int = 0,
    ) -> list[Exchange]:
        """The requests that fit all that is said."""
        with self._changed:
            return [
                one
                for one in self._exchanges
                if one.number > since
                and (route is None or one.route == route)
                and (method is None or one.method == method)
                and (slide_id is None or one.slide_id == slide_id)
                and (status is None or one.status == status)
            ]

    def count(self, route: str | None = None, *, since: int = 0) -> int:
        return len(self.of(route, since=since))

    def wait(
        self, condition: Callable[[Record], bool], *, timeout_s: float = 30.0
    ) -> None:
        """Wait until the record fulfils the condition; it is asked at every request."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout_s):
                raise AssertionError(
                    f"not within {timeout_s} s; the last requests were:\n"
                    + _listed(list(self._exchanges)[-20:])
                )

    def assert_count(self, route: str, wanted: int, *, since: int = 0) -> None:
        seen = self.of(route, since=since)
        if len(seen) != wanted:
            raise AssertionError(f"{wanted} times {route}, but:\n{_listed(seen)}")

    def assert_order(self, *routes: str, since: int = 0) -> None:
        """The routes were asked in this order; others may lie between."""
        seen = self.of(since=since)
        left = deque(routes)
        for one in seen:
            if left and one.route == left[0]:
                left.popleft()
        if left:
            raise AssertionError(f"{left[0]} did not follow in:\n{_listed(seen)}")

    def assert_headers(self, *names: str, since: int = 0) -> None:
        """Every request had all of these headers."""
        lacking = [
            one
            for one in self.of(since=since)
            if any(name.lower() not in one.headers for name in names)
        ]
        if lacking:
            raise AssertionError(f"without {names}:\n{_listed(lacking)}")

    def assert_silent(
        self, *, since: int, slide_id: str | None = None, route: str | None = None
    ) -> None:
        """Nothing was asked since the mark: "no call after cancel"."""
        seen = self.of(route, slide_id=slide_id, since=since)
        if seen:
            raise AssertionError(f"asked after the mark:\n{_listed(seen)}")

    def assert_no_phi_requested(self) -> None:
        """No patient data was ever asked for, neither by PHI nor by a label."""
        seen = [one for one in self.of() if asks_for_phi(one)]
        if seen:
            raise AssertionError(f"patient data was requested:\n{_listed(seen)}")

    def assert_nothing_refused(self, *, since: int = 0) -> None:
        """The application never sent what a strict server refuses (400, 403, 405)."""
        seen = [
            one
            for one in self.of(since=since)
            if one.status in {400, 403, 405, 415} and not one.fault
        ]
        if seen:
            raise AssertionError(f"refused:\n{_listed(seen)}")


def asks_for_phi(exchange: Exchange) -> bool:
    said = (exchange.asked("includePHI") or "").lower()
    return said == "true" or exchange.route == "slides.label"


def _listed(exchanges: list[Exchange]) -> str:
    return "\n".join(f"  {one}" for one in exchanges) or "  (none)"
