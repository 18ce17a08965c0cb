"""Work in threads on behalf of visitors: shared, held, and given up when nobody waits.

Visitors who want the same thing share one flight. When the last of them has gone (a
browser that zooms on closes its connections) a flight that has not started is dropped,
and one that has started is told so (`patience`): it ends where it looks next, and
whoever comes meanwhile gets a flight of their own.

The slide of a flight is held until its thread has really ended, whatever becomes of the
visitors. Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from tile_server.errors import Busy, Stopped, TookTooLong
from tile_server.patience import Patience
from tile_server.slides import OpenedSlide

Answer = TypeVar("Answer")


@dataclass
class Queue:
    """Work that waits for threads or is in them, and its limits.

    One queue may serve several `Flights` that share their threads.

    Attributes
    ----------
    most
        How much may be under way; what comes further is refused at once.
    limit_s
        How long a visitor waits, and how long a thread works at most: the work ends
        where it looks next. What it has finished so far is kept, so whoever asks again
        is nearer to the answer.
    under_way
        How much is under way now.
    """

    most: int = 1024
    limit_s: float = 30.0
    under_way: int = 0

    @property
    def is_full(self) -> bool:
        return self.under_way >= self.most


@dataclass
class _Flight(Generic[Answer]):
    """Work in a thread, its end as the loop sees it, and who waits for it."""

    work: Future[Answer]
    end: asyncio.Future[Answer]
    patience: Patience
    visitors: int = 0


class Flights(Generic[Answer]):
    """Work with answers of one kind, by key."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        stopping: threading.Event,
        queue: Queue | None = None,
    ) -> None:
        """Work in `threads`; once `stopping` is set nothing more is started."""
        self._queue = queue or Queue()
        self._threads = threads
        self._stopping = stopping
        self._flights: dict[str, _Flight[Answer]] = {}

    async def join(
        self, key: str, slide: OpenedSlide, work: Callable[[], Answer]
    ) -> Answer:
        """The answer of the flight `key`, which does `work` if it is not under way.

        `slide` must be open when it is called. Raises what `work` raises, or Stopped,
        Busy or TookTooLong.
        """
        flight = self._flights.get(key) or self._start(key, slide, work)
        flight.visitors += 1
        try:
            return await self._within_limit(flight)
        except asyncio.CancelledError:
            if self._stopping.is_set():
                raise Stopped("The tile service is stopping.") from None
            raise
        finally:
            flight.visitors -= 1
            if not flight.visitors and not flight.work.done():
                flight.work.cancel()
                flight.patience.end()
                self._forget(key, flight)

    async def _within_limit(self, flight: _Flight[Answer]) -> Answer:
        try:
            async with asyncio.timeout(self._queue.limit_s) as clock:
                return await asyncio.shield(flight.end)
        except TimeoutError:
            if not clock.expired():
                raise  # the work's own
            raise TookTooLong("The work has not ended in time.") from None

    def _start(
        self, key: str, slide: OpenedSlide, work: Callable[[], Answer]
    ) -> _Flight[Answer]:
        if self._stopping.is_set():
            raise Stopped("The tile service is stopping.")
        if self._queue.is_full:
            raise Busy("Too much work is waiting.")
        loop = asyncio.get_running_loop()
        slide.take()
        self._queue.under_way += 1
        patience = Patience(self._queue.limit_s)

        def patiently() -> Answer:
            with patience.working():
                return work()

        started = self._threads.submit(patiently)
        started.add_done_callback(
            lambda _: loop.call_soon_threadsafe(self._ended, slide),
        )
        flight = _Flight(started, asyncio.wrap_future(started), patience)
        self._flights[key] = flight
        flight.end.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    def _ended(self, slide: OpenedSlide) -> None:
        self._queue.under_way -= 1
        slide.let_go()

    def _forget(self, key: str, flight: _Flight[Answer]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.end.done() and not flight.end.cancelled():
            flight.end.exception()  # seen, even when every visitor has gone
