"""Open slides, shared by all requests and bounded in number.

Everything here runs on the event loop; only opening goes to a thread. A request holds
its slide while it reads (`Slides.hold`), and a slide that leaves the table is closed
when the last holder lets go, so no read ever meets a closed, or reused, descriptor.

A file can be replaced or removed while it is open, so it is looked up now and then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path

from tile_server.errors import SlideMissing, SlideReplaced, Stopped
from tile_server.pyramid import Pyramid
from tile_server.tokens import Capability
from tile_server.versions import file_version

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0

Key = tuple[str, str]


class OpenedSlide:
    """One slide in the table, with the number of requests that are reading it."""

    def __init__(self, key: Key, pyramid: Pyramid) -> None:
        self.path, self.version = key
        self.pyramid = pyramid
        self._looked_at = time.monotonic()
        self._holders = 0
        self._left = False

    def check_file(self) -> None:
        """Look the file up, at most once a second; raises as `current_version`."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AGAIN_S:
            check_version(self.path, self.version)
            self._looked_at = now

    def take(self) -> None:
        self._holders += 1

    def let_go(self) -> None:
        self._holders -= 1
        self._close_if_unused()

    def leave(self) -> None:
        """Close as soon as nobody reads any more."""
        self._left = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._left and not self._holders:
            self.pyramid.reader.close()


class Slides:
    """The table of open slides, least recently used first."""

    def __init__(
        self,
        open_pyramid: Callable[[Path, str], Pyramid],
        threads: Executor,
        most_open: int,
    ) -> None:
        """Open slides with `open_pyramid(path, version)` in `threads`."""
        self._open_pyramid = open_pyramid
        self._threads = threads
        self._most_open = most_open
        self._table: OrderedDict[Key, OpenedSlide] = OrderedDict()
        self._opening: dict[Key, asyncio.Task[OpenedSlide]] = {}
        self._closed = False

    def ready(self, capability: Capability) -> OpenedSlide | None:
        """The slide if it is open; raises SlideMissing or SlideReplaced.

        Not held: good until the next `await`.
        """
        key = capability.path, capability.version
        slide = self._table.get(key)
        if slide is None:
            return None
        try:
            slide.check_file()
        except (SlideMissing, SlideReplaced):
            self._table.pop(key).leave()
            raise
        self._table.move_to_end(key)
        return slide

    @asynccontextmanager
    async def hold(self, capability: Capability) -> AsyncIterator[OpenedSlide]:
        """The slide, opened if need be, kept open as long as this lasts.

        Raises SlideMissing, SlideReplaced and UnreadableSlide.
        """
        slide = self.ready(capability) or await self._open(capability)
        slide.take()
        try:
            yield slide
        finally:
            slide.let_go()

    def close(self) -> None:
        """Let all slides go, and open no more."""
        self._closed = True
        while self._table:
            self._table.popitem()[1].leave()

    async def _open(self, capability: Capability) -> OpenedSlide:
        if self._closed:
            raise Stopped("The tile service is stopping.")
        key = capability.path, capability.version
        task = self._opening.get(key)
        if task is None:
            task = asyncio.ensure_future(self._open_once(key))
            self._opening[key] = task
            task.add_done_callback(lambda _: self._opening.pop(key, None))
        # One visitor who leaves must not end the opening that others wait for.
        return await asyncio.shield(task)

    async def _open_once(self, key: Key) -> OpenedSlide:
        loop = asyncio.get_running_loop()
        pyramid = await loop.run_in_executor(self._threads, self._open_file, key)
        slide = OpenedSlide(key, pyramid)
        if self._closed:
            slide.leave()
            raise Stopped("The tile service is stopping.")
        self._table[key] = slide
        while len(self._table) > self._most_open:
            self._table.popitem(last=False)[1].leave()
        return slide

    def _open_file(self, key: Key) -> Pyramid:
        path, version = key
        check_version(path, version)
        pyramid = self._open_pyramid(Path(path), version)
        try:
            # The file may have been replaced between looking and opening.
            check_version(path, version)
        except BaseException:
            pyramid.reader.close()
            raise
        return pyramid


def check_version(path: str, version: str) -> None:
    """Raise SlideMissing or SlideReplaced unless the file still has this version."""
    try:
        now = file_version(Path(path))
    except OSError as error:
        log.info("a slide cannot be looked up: %s", type(error).__name__)
        raise SlideMissing("The slide's file is not there any more.") from error
    if now != version:
        raise SlideReplaced("The slide's file has changed since it was opened.")
