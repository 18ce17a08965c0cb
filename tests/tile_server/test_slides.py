"""Open slides: shared, bounded, and never closed under a reader."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tile_server.errors import SlideMissing, SlideReplaced, Stopped, UnreadableSlide
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.slides import OpenedSlide, Slides
from tile_server.tokens import Capability
from tile_server.versions import file_version


class Table:
    """A table of slides whose opening can be held up, and what it has opened."""

    def __init__(self, most_open: int) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.opened: list[Pyramid] = []
        self.threads = ThreadPoolExecutor(4)
        self.slides = Slides(
            self.open, self.threads, most_open=most_open, look_again_s=0
        )

    def open(self, path: Path, _version: str) -> Pyramid:
        assert self.gate.wait(10)
        pyramid = Pyramid(open_slide(path))
        self.opened.append(pyramid)
        return pyramid


def right_to(path: Path) -> Capability:
    return Capability(str(path), file_version(path), False, 2**33)


def is_open(pyramid: Pyramid) -> bool:
    try:
        pyramid.reader.encoded_tile(0, 0, 0)
    except OSError:
        return False
    return True


def run(story: Callable[[Table], Awaitable[None]], most_open: int = 2) -> Table:
    async def told() -> Table:
        table = Table(most_open)
        await story(table)
        table.slides.close()
        table.gate.set()
        await asyncio.to_thread(table.threads.shutdown)
        return table

    table = asyncio.run(told())
    assert not any(map(is_open, table.opened)), "a slide was left open"
    return table


async def turns() -> None:
    """Let everything that is ready happen."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_visitors_share_one_opening(made_slides: dict[str, Path]) -> None:
    right = right_to(made_slides["ycbcr"])

    async def visit(table: Table) -> OpenedSlide:
        async with table.slides.hold(right) as slide:
            return slide

    async def story(table: Table) -> None:
        slides = await asyncio.gather(*(visit(table) for _ in range(6)))
        assert len(set(map(id, slides))) == 1
        assert table.slides.ready(right) is slides[0]

    assert len(run(story).opened) == 1


def test_a_slide_that_is_read_stays_open_when_it_leaves(
    made_slides: dict[str, Path],
) -> None:
    first, second = (right_to(made_slides[name]) for name in ("ycbcr", "rgb_odd"))

    async def story(table: Table) -> None:
        async with table.slides.hold(first) as slide, table.slides.hold(second):
            assert table.slides.ready(first) is None
            assert is_open(slide.pyramid)
        assert not is_open(slide.pyramid)

    run(story, most_open=1)


def test_a_slide_that_has_to_leave_at_once_is_still_held_for_its_visitor(
    made_slides: dict[str, Path],
) -> None:
    names = ("ycbcr", "rgb_odd", "single", "whole_streams")
    rights = [right_to(made_slides[name]) for name in names]

    async def visit(table: Table, right: Capability) -> None:
        async with table.slides.hold(right) as slide:
            await turns()
            assert is_open(slide.pyramid)

    async def story(table: Table) -> None:
        await asyncio.gather(*(visit(table, right) for right in rights * 5))

    run(story, most_open=1)


def test_visitors_who_leave_during_the_opening_change_nothing(
    made_slides: dict[str, Path],
) -> None:
    first, second = (right_to(made_slides[name]) for name in ("ycbcr", "rgb_odd"))

    async def visit(table: Table) -> bool:
        async with table.slides.hold(first) as slide:
            await turns()
            return is_open(slide.pyramid)

    async def story(table: Table) -> None:
        table.gate.clear()
        early = asyncio.ensure_future(visit(table))
        await turns()
        early.cancel()
        await turns()
        late = asyncio.ensure_future(visit(table))
        await turns()
        table.gate.set()
        assert await late
        async with table.slides.hold(second):
            pass

    assert len(run(story, most_open=1).opened) == 2


def test_a_missing_or_replaced_file_is_told_apart(
    made_slides: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(made_slides["ycbcr"].read_bytes())
    right = right_to(path)
    os.utime(path, (1, 1))

    async def story(table: Table) -> None:
        with pytest.raises(SlideReplaced):
            async with table.slides.hold(right):
                pass
        path.write_bytes(b"no slide")
        with pytest.raises(UnreadableSlide):
            async with table.slides.hold(right_to(path)):
                pass
        now = right_to(path)
        path.unlink()
        with pytest.raises(SlideMissing):
            async with table.slides.hold(now):
                pass

    assert run(story).opened == []


def test_a_closed_table_opens_nothing(made_slides: dict[str, Path]) -> None:
    right = right_to(made_slides["ycbcr"])

    async def story(table: Table) -> None:
        table.slides.close()
        with pytest.raises(Stopped):
            async with table.slides.hold(right):
                pass

    run(story)
