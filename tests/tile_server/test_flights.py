"""Work is shared, given up when nobody waits, and never outlives its slide."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tile_server.errors import Stopped
from tile_server.flights import Flights
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.slides import OpenedSlide


class Place:
    """One thread, flights in it, and an open slide."""

    def __init__(self, path: Path) -> None:
        self.stopping = threading.Event()
        self.threads = ThreadPoolExecutor(1)
        self.flights: Flights[int] = Flights(self.threads, self.stopping)
        self.reader = open_slide(path)
        self.slide = OpenedSlide((str(path), "v"), Pyramid(self.reader))
        self.gate = threading.Event()
        self.began = threading.Event()
        self.times_done = 0

    def work(self) -> int:
        self.began.set()
        assert self.gate.wait(10)
        self.times_done += 1
        return self.times_done


def run(path: Path, story: Callable[[Place], Awaitable[None]]) -> Place:
    place = Place(path)

    async def told() -> None:
        await story(place)
        place.gate.set()
        await asyncio.to_thread(place.threads.shutdown)

    asyncio.run(told())
    return place


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_visitors_of_one_key_share_a_flight(made_slides: dict[str, Path]) -> None:
    async def story(place: Place) -> None:
        visits = [
            asyncio.ensure_future(place.flights.join("a", place.slide, place.work))
            for _ in range(8)
        ]
        await eventually(place.began.is_set)
        place.gate.set()
        assert await asyncio.gather(*visits) == [1] * 8

    assert run(made_slides["ycbcr"], story).times_done == 1


def test_work_nobody_waits_for_is_not_begun(made_slides: dict[str, Path]) -> None:
    async def story(place: Place) -> None:
        first = asyncio.ensure_future(place.flights.join("a", place.slide, place.work))
        await eventually(place.began.is_set)
        never = threading.Event()
        waiting = [
            asyncio.ensure_future(
                place.flights.join("b", place.slide, lambda: never.set() or 0)
            )
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        waiting[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        place.gate.set()
        assert await first == 1
        again = await place.flights.join("b", place.slide, place.work)
        assert again == 2
        assert not never.is_set()

    run(made_slides["ycbcr"], story)


def test_a_visitor_who_goes_does_not_end_what_another_waits_for(
    made_slides: dict[str, Path],
) -> None:
    async def story(place: Place) -> None:
        one, other = (
            asyncio.ensure_future(place.flights.join("a", place.slide, place.work))
            for _ in range(2)
        )
        await eventually(place.began.is_set)
        one.cancel()
        place.gate.set()
        assert await other == 1

    run(made_slides["ycbcr"], story)


def test_a_slide_stays_open_until_its_thread_has_ended(
    made_slides: dict[str, Path],
) -> None:
    async def story(place: Place) -> None:
        read = []

        def reading() -> int:
            place.work()
            # A longer read would see that nobody waits, and end itself.
            read.append(place.reader.encoded_tile(0, 0, 0))
            return 0

        visit = asyncio.ensure_future(place.flights.join("a", place.slide, reading))
        await eventually(place.began.is_set)
        visit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visit
        place.slide.leave()
        place.gate.set()
        await eventually(lambda: bool(read))
        # Closed now, and only now.
        await eventually(lambda: closed(place))

    def closed(place: Place) -> bool:
        try:
            place.reader.encoded_tile(0, 0, 0)
        except OSError:
            return True
        return False

    run(made_slides["ycbcr"], story)


def test_errors_reach_every_visitor(made_slides: dict[str, Path]) -> None:
    async def story(place: Place) -> None:
        def fail() -> int:
            raise KeyError("broken")

        visits = [place.flights.join("a", place.slide, fail) for _ in range(3)]
        for outcome in await asyncio.gather(*visits, return_exceptions=True):
            assert isinstance(outcome, KeyError)

    run(made_slides["ycbcr"], story)


def test_nothing_is_begun_while_stopping(made_slides: dict[str, Path]) -> None:
    async def story(place: Place) -> None:
        place.stopping.set()
        with pytest.raises(Stopped):
            await place.flights.join("a", place.slide, place.work)

    assert run(made_slides["ycbcr"], story).times_done == 0
