"""What goes wrong, and when: a plan of steps for each route.

A step is a value. Requests of a route take the steps of its plan one after the other,
and then everything works again:

    server.faults.plan("results.create", Status(503), Status(503))  # then it works
    server.faults.plan("results.create", DropAfter())  # stored, but nobody hears of it
    server.faults.chance("results.update", Status(503), probability=0.05, seed=7)
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict, deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """Nothing goes wrong: a gap between faults."""


@dataclass(frozen=True)
class Status:
    """Answers with a status, and does nothing else; `location` is for redirects."""

    code: int
    retry_after_s: int | None = None
    location: str | None = None
    text: str = "the fault plan says so"


@dataclass(frozen=True)
class Delay:
    """Waits, then works."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Resets the connection; the request had no effect."""


@dataclass(frozen=True)
class DropAfter:
    """Does what was asked, then resets the connection without an answer."""


@dataclass(frozen=True)
class Truncate:
    """Announces the whole body, sends so many bytes of it, and closes."""

    at_bytes: int


@dataclass(frozen=True)
class WrongLength:
    """Announces a body that is longer (or shorter) by so many bytes than what comes."""

    by_bytes: int


@dataclass(frozen=True)
class Stall:
    """Sends so many bytes of the body, then nothing until the client goes away."""

    after_bytes: int = 0


Fault = Passes | Status | Delay | Reset | DropAfter | Truncate | WrongLength | Stall


class FaultPlan:
    """The faults of a server by the route's name; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[str, deque[tuple[str | None, Fault]]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self._chances: dict[str, list[tuple[random.Random, float, Fault]]] = (
            defaultdict(list)
        )

    def plan(self, route: str, *steps: Fault, slide_id: str | None = None) -> None:
        """Add steps to a route's plan; `slide_id` keeps them for one slide."""
        with self._lock:
            self._steps[route].extend((slide_id, step) for step in steps)

    def always(self, route: str, fault: Fault) -> None:
        """Let every request of the route that no step takes meet the fault."""
        with self._lock:
            self._always[route] = fault

    def chance(
        self, route: str, fault: Fault, *, probability: float, seed: int
    ) -> None:
        """Let a share of the requests meet the fault; the same ones in every run."""
        with self._lock:
            # A seeded generator repeats a run; nothing is kept secret by it.
            source = random.Random(seed)  # noqa: S311
            self._chances[route].append((source, probability, fault))

    def clear(self) -> None:
        """Let everything work from now on."""
        with self._lock:
            self._steps.clear()
            self._always.clear()
            self._chances.clear()

    def pending(self, route: str) -> int:
        """How many steps of the route's plan no request has taken yet."""
        with self._lock:
            return len(self._steps[route])

    def take(self, route: str, slide_id: str | None) -> Fault:
        """The fault that this request meets."""
        with self._lock:
            steps = self._steps[route]
            for place, (wanted, step) in enumerate(steps):
                if wanted is None or wanted == slide_id:
                    del steps[place]
                    return step
            if route in self._always:
                return self._always[route]
            for source, probability, fault in self._chances[route]:
                if source.random() < probability:
                    return fault
        return Passes()
