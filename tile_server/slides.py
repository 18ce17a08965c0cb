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
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tile_server.errors import SlideMissing, SlideReplaced, Stopped
from tile_server.pyramid import Pyramid
from tile_server.tokens import Capability
from tile_server.versions import file_version

log = logging.getLogger(__name__)

Key = tuple[str, str]
# Of one slide; each costs up to 400 kB a channel for its table of colours.
_MOST_STYLES = 16
# All else waits for a look: it gets 49 times as much time.
_LOOKS_SHARE = 50


class OpenedSlide:
    """One slide in the table, with the number of requests that are reading it.

    In another style it is one more of these, which shares the file of the `whole` and
    is open as long as that one.
    """

    def __init__(
        self,
        key: Key,
        pyramid: Pyramid,
        whole: OpenedSlide | None = None,
        *,
        changed_s: float = 0.0,
    ) -> None:
        """Share `pyramid`; `changed_s` is when its file changed, since 1970."""
        self.path, self.version = key
        self.pyramid = pyramid
        self.changed_s: float = whole.changed_s if whole else changed_s
        self._whole = whole
        # By the style's key, least recently used first.
        self._styled: OrderedDict[str, OpenedSlide] = OrderedDict()
        self._looked_at = time.monotonic()
        self._look_s = 0.0
        self._holders = 0
        self._left = False

    def check_file(self, interval_s: float) -> None:
        """Look the file up unless that was less than `interval_s` ago.

        A look that takes long, at an image of many files, is made less often, unless
        `interval_s` is 0.

        Raises SlideMissing or SlideReplaced.
        """
        now = time.monotonic()
        pause_s = max(interval_s, _LOOKS_SHARE * self._look_s) if interval_s else 0.0
        if now - self._looked_at >= pause_s:
            check_version(self.path, self.version)
            self._looked_at = time.monotonic()
            self._look_s = self._looked_at - now

    def take(self) -> None:
        if self._whole is not None:
            self._whole.take()
            return
        self._holders += 1

    def let_go(self) -> None:
        if self._whole is not None:
            self._whole.let_go()
            return
        self._holders -= 1
        self._close_if_unused()

    def in_style(self, style_key: str) -> OpenedSlide | None:
        """The slide in a style that was used lately."""
        slide = self._styled.get(style_key)
        if slide is not None:
            self._styled.move_to_end(style_key)
        return slide

    def keep_style(self, style_key: str, pyramid: Pyramid) -> OpenedSlide:
        """The slide in a new style; its version is its own, and so are its tiles."""
        slide = OpenedSlide((self.path, f"{self.version}-{style_key}"), pyramid, self)
        self._styled[style_key] = slide
        while len(self._styled) > _MOST_STYLES:
            self._styled.popitem(last=False)
        return slide

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the slide open as long as this lasts."""
        self.take()
        try:
            yield
        finally:
            self.let_go()

    def leave(self) -> None:
        """Close as soon as nobody reads any more."""
        self._left = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._left and not self._holders:
            self.pyramid.reader.close()


@dataclass
class _Opening:
    """A slide that is being opened, and how many wait for it."""

    task: asyncio.Task[OpenedSlide]
    visitors: int = 0
    _let_go: bool = False

    def let_go_once(self) -> None:
        """Let go of what the opening took, when it is done and nobody waits for it."""
        if self._let_go or self.visitors or not self.task.done():
            return
        self._let_go = True
        if not self.task.cancelled() and self.task.exception() is None:
            self.task.result().let_go()


class Slides:
    """The table of open slides, least recently used first."""

    def __init__(
        self,
        open_pyramid: Callable[[Path, str], Pyramid],
        threads: Executor,
        *,
        most_open: int,
        look_again_s: float,
    ) -> None:
        """Open slides with `open_pyramid(path, version)` in `threads`."""
        self._open_pyramid = open_pyramid
        self._threads = threads
        self._most_open = most_open
        self._look_again_s = look_again_s
        self._table: OrderedDict[Key, OpenedSlide] = OrderedDict()
        self._opening: dict[Key, _Opening] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._table)

    def ready(self, capability: Capability) -> OpenedSlide | None:
        """The slide if it is open; raises SlideMissing or SlideReplaced.

        Not taken: good until the next `await`.
        """
        key = capability.path, capability.version
        slide = self._table.get(key)
        if slide is None:
            return None
        try:
            slide.check_file(self._look_again_s)
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
        slide = self.ready(capability)
        if slide is None:
            slide = await self._open(capability)
        else:
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
        opening = self._opening.get(key)
        if opening is None:
            opening = _Opening(asyncio.ensure_future(self._open_once(key)))
            self._opening[key] = opening
            opening.task.add_done_callback(lambda _: self._opened(key))
        opening.visitors += 1
        try:
            # One visitor who leaves must not end the opening that others wait for.
            slide = await asyncio.shield(opening.task)
            slide.take()
            return slide
        finally:
            opening.visitors -= 1
            opening.let_go_once()

    def _opened(self, key: Key) -> None:
        self._opening.pop(key).let_go_once()

    async def _open_once(self, key: Key) -> OpenedSlide:
        """Open a slide and take it: it may have to leave before a visitor sees it."""
        loop = asyncio.get_running_loop()
        pyramid, changed_s = await loop.run_in_executor(
            self._threads, self._open_file, key
        )
        slide = OpenedSlide(key, pyramid, changed_s=changed_s)
        if self._closed:
            slide.leave()
            raise Stopped("The tile service is stopping.")
        slide.take()
        self._table[key] = slide
        while len(self._table) > self._most_open:
            self._table.popitem(last=False)[1].leave()
        return slide

    def _open_file(self, key: Key) -> tuple[Pyramid, float]:
        path, version = key
        check_version(path, version)
        pyramid = self._open_pyramid(Path(path), version)
        try:
            # The file may have been replaced between looking and opening.
            changed_s = Path(path).stat().st_mtime
            check_version(path, version)
        except FileNotFoundError as error:
            pyramid.reader.close()
            raise SlideMissing("The slide's file is not there any more.") from error
        except BaseException:
            pyramid.reader.close()
            raise
        return pyramid, changed_s


def check_version(path: str, version: str) -> None:
    """Raise SlideMissing or SlideReplaced unless the file still has this version."""
    try:
        now = file_version(Path(path))
    except OSError as error:
        log.info("a slide cannot be looked up: %s", type(error).__name__)
        raise SlideMissing("The slide's file is not there any more.") from error
    if now != version:
        raise SlideReplaced("The slide's file has changed since it was opened.")
