"""Work in threads on behalf of visitors: shared, held, and given up when nobody waits.

Visitors who want the same thing share one flight. When the last of them has gone (a
browser that zooms on closes its connections) a flight that has not started is dropped;
one that has started goes on, and whoever comes meanwhile joins it.

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

from tile_server.errors import Stopped
from tile_server.slides import OpenedSlide

Answer = TypeVar("Answer")


@dataclass
class _Flight(Generic[Answer]):
    """Work in a thread, its end as the loop sees it, and who waits for it."""

    work: Future[Answer]
    end: asyncio.Future[Answer]
    visitors: int = 0


class Flights(Generic[Answer]):
    """Work with answers of one kind, by key."""

    def __init__(self, threads: ThreadPoolExecutor, stopping: threading.Event) -> None:
        """Work in `threads`; once `stopping` is set nothing more is started."""
        self._threads = threads
        self._stopping = stopping
        self._flights: dict[str, _Flight[Answer]] = {}

    async def join(
        self, key: str, slide: OpenedSlide, work: Callable[[], Answer]
    ) -> Answer:
        """The answer of the flight `key`, which does `work` if it is not under way.

        `slide` must be open when it is called. Raises what `work` raises, or Stopped.
        """
        flight = self._flights.get(key) or self._start(key, slide, work)
        flight.visitors += 1
        try:
            return await asyncio.shield(flight.end)
        except asyncio.CancelledError:
            if self._stopping.is_set():
                raise Stopped("The tile service is stopping.") from None
            raise
        finally:
            flight.visitors -= 1
            if not flight.visitors and flight.work.cancel():
                self._forget(key, flight)

    def _start(
        self, key: str, slide: OpenedSlide, work: Callable[[], Answer]
    ) -> _Flight[Answer]:
        if self._stopping.is_set():
            raise Stopped("The tile service is stopping.")
        loop = asyncio.get_running_loop()
        slide.take()
        started = self._threads.submit(work)
        started.add_done_callback(
            lambda _: loop.call_soon_threadsafe(slide.let_go),
        )
        flight = _Flight(started, asyncio.wrap_future(started))
        self._flights[key] = flight
        flight.end.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    def _forget(self, key: str, flight: _Flight[Answer]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.end.done() and not flight.end.cancelled():
            flight.end.exception()  # seen, even when every visitor has gone
