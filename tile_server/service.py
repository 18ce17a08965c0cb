"""All state of the tile service, and what its HTTP handlers call.

Stored tiles are read on the event loop: one `pread` from the page cache costs less than
the way to a thread and back. Everything that computes goes to a pool of as many threads
as there are processors, at most once per tile at a time; opening files has threads of
its own, so that a new slide does not wait behind computed tiles.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import openslide

from tile_server import tokens
from tile_server.derived import DerivedTiles, slide_key, tile_key
from tile_server.errors import Stopped
from tile_server.ladder import Rung
from tile_server.pyramid import Pyramid, Tile
from tile_server.readers import open_slide
from tile_server.slides import OpenedSlide, Slides
from tile_server.tokens import Capability

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
_REMEMBERED_TOKENS = 4096


@dataclass(frozen=True)
class TileSettings:
    """Settings of one tile service.

    Attributes
    ----------
    key
        Opens the tokens; the issuer has the same.
    base
        The path under which the service is mounted.
    cache_folder
        Where made tiles are kept; None keeps them in a folder that ends with the
        service. A lasting folder saves work after a restart and keeps pixels on disk.
    cache_bytes
        Budget on disk. More saves repeated work where levels are missing or the format
        has to be decoded; JPEG slides with all levels need none.
    memory_bytes
        Budget of made tiles in memory. More spares disk look-ups of a class that looks
        at one slide.
    decoded_bytes
        Budget of openslide's decoded tiles, shared by all slides. More helps neighbours
        of a tile just made in formats that are not JPEG tiles.
    most_open
        How many slides stay open. More spares the 5 to 20 ms of opening; each costs a
        file descriptor and about half a megabyte.
    resource_policy
        Which pages may embed the tiles (Cross-Origin-Resource-Policy).
    """

    key: bytes
    base: str = "/"
    cache_folder: Path | None = None
    cache_bytes: int = 2 * 2**30
    memory_bytes: int = 64 * 2**20
    decoded_bytes: int = 64 * 2**20
    most_open: int = 128
    resource_policy: str = "same-origin"


class TileService:
    """Open slides, kept tiles, known tokens and threads; knows nothing of HTTP.

    Made and used on one event loop, and stopped once.
    """

    def __init__(self, settings: TileSettings) -> None:
        self.settings = settings
        self._resources = ExitStack()
        self._stopping = threading.Event()
        folder = settings.cache_folder
        if folder is None:
            folder = Path(
                self._resources.enter_context(
                    tempfile.TemporaryDirectory(prefix="theatrum-tiles-")
                )
            )
        self._derived = DerivedTiles(
            folder,
            disk_bytes=settings.cache_bytes,
            memory_bytes=settings.memory_bytes,
        )
        self._resources.callback(self._derived.close)
        self._decoded = openslide.OpenSlideCache(settings.decoded_bytes)
        self._compute = ThreadPoolExecutor(os.cpu_count() or 2, "tiles")
        self._openers = ThreadPoolExecutor(4, "open")
        self.slides = Slides(self._open, self._openers, settings.most_open)
        self._tokens: OrderedDict[str, Capability] = OrderedDict()
        self._flights: dict[str, asyncio.Future[Tile]] = {}

    def capability(self, token: str) -> Capability:
        """What a token allows; raises BadToken or ExpiredToken.

        A token is opened once and then found again; its expiry counts every time.
        """
        now = time.time()
        known = self._tokens.get(token)
        if known is None:
            known = tokens.unseal(self.settings.key, token, now)
            self._tokens[token] = known
            if len(self._tokens) > _REMEMBERED_TOKENS:
                self._tokens.popitem(last=False)
        else:
            tokens.check_expiry(known, now)
        return known

    async def made_tile(
        self, slide: OpenedSlide, rung: Rung, t_x: int, t_y: int
    ) -> Tile:
        """A tile that costs work, from memory or from a thread.

        Requests for the same tile share one flight. `slide` must be held.
        """
        key = tile_key(slide_key(slide.path, slide.version), rung.k, t_x, t_y)
        tile = self._derived.recent(key)
        if tile is not None:
            return tile
        flight = self._flights.get(key)
        if flight is None:
            work = self._start(lambda: slide.pyramid.tile(rung, t_x, t_y))
            slide.take()
            flight = asyncio.wrap_future(work)
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._landed(key, slide))
        return await self._landing(asyncio.shield(flight))

    async def compute(self, work: Callable[[], Answer]) -> Answer:
        """Do `work` in a computing thread."""
        return await self._landing(asyncio.wrap_future(self._start(work)))

    def stop(self) -> None:
        """End work in progress and free everything; call once, after the server."""
        self._stopping.set()
        self._compute.shutdown(wait=True, cancel_futures=True)
        self._openers.shutdown(wait=True)
        self.slides.close()
        self._resources.close()

    def _landed(self, key: str, slide: OpenedSlide) -> None:
        flight = self._flights.pop(key)
        slide.let_go()
        if not flight.cancelled():
            flight.exception()  # seen, even when every visitor has left

    async def _landing(self, flight: asyncio.Future[Answer]) -> Answer:
        """Wait for work; what was given up because of `stop` is `Stopped`."""
        try:
            return await flight
        except asyncio.CancelledError:
            if self._stopping.is_set():
                raise Stopped("The tile service is stopping.") from None
            raise

    def _start(self, work: Callable[[], Answer]) -> Future[Answer]:
        if self._stopping.is_set():
            raise Stopped("The tile service is stopping.")
        return self._compute.submit(work)

    def _open(self, path: Path, version: str) -> Pyramid:
        reader = open_slide(path, decoded_cache=self._decoded)
        keep = self._derived.keeper(slide_key(str(path), version))
        return Pyramid(reader, keep=keep, stopping=self._stopping)
