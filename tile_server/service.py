"""All state of the tile service, and what its HTTP handlers call.

Stored tiles that the system has in memory are read on the event loop, since that costs
less than the way to a thread and back; those on the disk are read in threads of their
own, many, because they wait. Everything that computes goes to a pool of as many threads
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import openslide

from tile_server import tokens
from tile_server.colours import Converted
from tile_server.derived import DerivedTiles, slide_key, tile_key
from tile_server.errors import Stopped
from tile_server.flights import Flights, Queue
from tile_server.formats import Form, encode, transparent_outside
from tile_server.ladder import Rung
from tile_server.metrics import Tally
from tile_server.probing import Prober, ProbeSettings
from tile_server.pyramid import JPEG, Pyramid, Tile
from tile_server.readers import open_slide
from tile_server.readers.chunks import ChunkCache
from tile_server.readers.imports import IMPORT_BYTES, IMPORTS, Imports
from tile_server.readers.protocol import Reader
from tile_server.readers.rendering import styled
from tile_server.readers.style import Style
from tile_server.reading import read_now
from tile_server.slides import OpenedSlide, Slides
from tile_server.tokens import Capability

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_REMEMBERED_TOKENS = 4096
# A disk, and more so a network folder, is at its best with several reads under way.
_DISK_THREADS = 16


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
        Budget of openslide's decoded tiles, shared by all slides, and as much again for
        the chunks that other readers decode. More helps neighbours of a tile just made
        in formats that are not JPEG tiles.
    import_bytes
        Budget on disk of the copies of images that cannot be served as they lie. More
        spares making them again.
    most_open
        How many slides stay open. More spares the 5 to 30 ms of opening; each costs a
        file descriptor and up to a tenth of a megabyte, those that openslide has to
        decode some megabytes.
    look_again_s
        How long a file is believed to be unchanged. Longer spares a look-up in the file
        system now and then; shorter notices a replaced file sooner.
    resource_policy
        Which pages may embed the tiles (Cross-Origin-Resource-Policy).
    cors_origins
        Origins whose pages may also read the tiles' pixels (CORS); "*" is all of them.
    most_waiting
        How many made answers may be under way; further ones get 503. More keeps a
        crowd's requests instead of asking it to come again; each waits longer.
    answer_s
        How long a visitor waits for a made answer before 503, and how long a thread
        works on one. Longer serves slow disks and large projections; shorter frees the
        processors from what nobody will wait for.
    probe
        Limits of the processes that open every file before the service does; None
        trusts all files, which saves 100 MB and the time of opening a file twice.
    """

    key: bytes
    base: str = "/"
    cache_folder: Path | None = None
    cache_bytes: int = 2 * 2**30
    memory_bytes: int = 64 * 2**20
    decoded_bytes: int = 64 * 2**20
    import_bytes: int = IMPORT_BYTES
    most_open: int = 256
    look_again_s: float = 1.0
    resource_policy: str = "same-origin"
    cors_origins: tuple[str, ...] = ()
    most_waiting: int = 1024
    answer_s: float = 30.0
    probe: ProbeSettings | None = field(default_factory=ProbeSettings)


class TileService:
    """Open slides, kept tiles, known tokens and threads; knows nothing of HTTP.

    Made and used on one event loop, and stopped once.
    """

    def __init__(self, settings: TileSettings, *, prober: Prober | None = None) -> None:
        """Serve as `settings` say; `prober` may be one that stays the caller's."""
        self.settings = settings
        self._resources = ExitStack()
        self._stopping = threading.Event()
        self.tally = Tally()
        folder = settings.cache_folder
        if folder is None:
            passing = tempfile.TemporaryDirectory(prefix="theatrum-tiles-")
            folder = Path(self._resources.enter_context(passing))
        else:
            # Tiles are parts of slides, which not everybody on this machine may see.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if prober is None and settings.probe is not None:
            # Copies are made where a hostile file does least harm.
            probe = replace(settings.probe, imports=folder / IMPORTS)
            prober = self._resources.enter_context(Prober(probe))
        self._prober = prober
        if prober is not None:
            prober.warm_up()
        self._derived = DerivedTiles(
            folder,
            disk_bytes=settings.cache_bytes,
            memory_bytes=settings.memory_bytes,
        )
        self._resources.callback(self._derived.close)
        self._decoded = openslide.OpenSlideCache(settings.decoded_bytes)
        self._chunks = ChunkCache(settings.decoded_bytes)
        self._imports = Imports(folder / IMPORTS, settings.import_bytes)
        self._compute = ThreadPoolExecutor(os.cpu_count() or 2, "tiles")
        self._queue = Queue(settings.most_waiting, settings.answer_s)
        self._tiles: Flights[Tile] = Flights(self._compute, self._stopping, self._queue)
        self._bodies: Flights[bytes] = Flights(
            self._compute, self._stopping, self._queue
        )
        self._shown: Flights[Reader] = Flights(
            self._compute, self._stopping, self._queue
        )
        self._openers = ThreadPoolExecutor(4, "open")
        self._disk = ThreadPoolExecutor(_DISK_THREADS, "disk")
        self.slides = Slides(
            self._open,
            self._openers,
            most_open=settings.most_open,
            look_again_s=settings.look_again_s,
        )
        self._tokens: OrderedDict[str, Capability] = OrderedDict()

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

    @property
    def is_ready(self) -> bool:
        """False while made answers would be refused, or all would be."""
        return not (self._queue.is_full or self._stopping.is_set())

    def levels(self) -> dict[str, float]:
        """What rises and falls, by name, for the metrics."""
        memory, disk = self._derived.kept_bytes()
        return {
            "open_slides": len(self.slides),
            "work_under_way": self._queue.under_way,
            "kept_in_memory_bytes": memory,
            "kept_on_disk_bytes": disk,
            "ready": float(self.is_ready),
        }

    def tile_in_memory(
        self, slide: OpenedSlide, rung: Rung, t_x: int, t_y: int
    ) -> Tile | None:
        """The file's own tile, where it is there without waiting."""
        place = slide.pyramid.place(rung, t_x, t_y)
        stream = None if place is None else read_now(place)
        return None if stream is None else Tile(stream, JPEG)

    async def stored_tile(
        self, slide: OpenedSlide, rung: Rung, t_x: int, t_y: int
    ) -> Tile | None:
        """The file's own tile, or None where it has none that can leave undecoded.

        `slide` must be open when this is called. Raises DamagedTile and Stopped.
        """
        pyramid = slide.pyramid
        if not pyramid.passes(rung, t_x, t_y):
            return None
        if pyramid.knows_places and pyramid.place(rung, t_x, t_y) is None:
            return None
        return await self.from_disk(slide, lambda: pyramid.cold_tile(rung, t_x, t_y))

    async def from_disk(self, slide: OpenedSlide, read: Callable[[], Answer]) -> Answer:
        """What `read` gives in a thread that may wait for the disk.

        `slide` must be open when this is called, and stays so until the thread is done,
        whatever becomes of the visitor. Raises what `read` raises, or Stopped.
        """
        if self._stopping.is_set():
            raise Stopped("The tile service is stopping.")
        loop = asyncio.get_running_loop()
        end: asyncio.Future[Answer] = loop.create_future()

        def landed(work: Future[Answer]) -> None:
            slide.let_go()
            if end.done():
                return  # the visitor has gone
            if work.cancelled():
                end.cancel()  # the service stops
                return
            error = work.exception()
            if error is None:
                end.set_result(work.result())
            else:
                end.set_exception(error)

        slide.take()
        # The loop is woken once for all of it: each time costs as much as a read.
        self._disk.submit(read).add_done_callback(
            lambda work: loop.call_soon_threadsafe(landed, work)
        )
        return await end

    async def made_tile(
        self, slide: OpenedSlide, rung: Rung, t_x: int, t_y: int
    ) -> Tile:
        """A tile that costs work, from memory or from a thread.

        `slide` must be open when this is called.
        """
        key = tile_key(slide_key(slide.path, slide.version), rung.k, t_x, t_y)
        tile = self._derived.recent(key)
        if tile is not None:
            return tile
        return await self._tiles.join(
            key, slide, lambda: slide.pyramid.tile(rung, t_x, t_y)
        )

    async def tile_in_form(
        self, slide: OpenedSlide, place: tuple[Rung, int, int], form: Form
    ) -> Tile:
        """A tile in a form that the file does not have it in, made and kept likewise.

        In a transparent form, what lies past the picture is transparent. `slide` must
        be open when this is called.
        """
        rung, t_x, t_y = place
        known = slide_key(slide.path, slide.version)
        key = f"{tile_key(known, rung.k, t_x, t_y)}/{form.key}"
        tile = self._derived.recent(key)
        if tile is not None:
            return tile
        pyramid = slide.pyramid

        def make() -> Tile:
            pixels = pyramid.pixels(rung, t_x, t_y)
            if form.is_transparent:
                width, height = pyramid.picture_size(rung)
                edge = pyramid.ladder.tile
                left, low = width - t_x * edge, height - t_y * edge
                if left < edge or low < edge:
                    pixels = transparent_outside(pixels, max(left, 0), max(low, 0))
            return Tile(encode(pixels, form), form.media_type)

        return await self._tiles.join(key, slide, lambda: self._derived.tile(key, make))

    async def made_body(
        self, slide: OpenedSlide, what: str, make: Callable[[], bytes]
    ) -> bytes:
        """Another answer that costs work; `what` is the same for the same answer."""
        key = f"{slide_key(slide.path, slide.version)}/{what}"
        return await self._bodies.join(key, slide, make)

    async def styled(self, slide: OpenedSlide, style: Style) -> OpenedSlide:
        """The slide in a style, open as long as `slide` is.

        `slide` must be held by the caller. Raises BadRequest for a style that does not
        fit the image, and DamagedTile.
        """
        reader = slide.pyramid.reader
        # It may read a little, to find a window.
        return await self._variant(slide, style.key, lambda: styled(reader, style))

    async def in_srgb(self, slide: OpenedSlide) -> OpenedSlide:
        """The slide in sRGB, open as long as `slide` is; without a profile, itself.

        `slide` must be held by the caller. Raises BadRequest for a useless profile.
        """
        reader = slide.pyramid.reader
        if reader.facts.profile is None:
            return slide
        return await self._variant(slide, "srgb", lambda: Converted(reader))

    async def _variant(
        self, slide: OpenedSlide, key: str, show: Callable[[], Reader]
    ) -> OpenedSlide:
        """The slide as `show` gives it, which may take a while the first time."""
        known = slide.in_style(key)
        if known is not None:
            return known
        version = f"{slide.version}-{key}"
        named = slide_key(slide.path, version)
        shown = await self._shown.join(named, slide, show)
        keep = self._derived.keeper(named)
        pyramid = Pyramid(shown, keep=keep, stopping=self._stopping)
        return slide.in_style(key) or slide.keep_style(key, pyramid)

    def stop(self) -> None:
        """End work in progress and free everything; call once, after the server."""
        self._stopping.set()
        if self._prober is not None:
            # An opener may be waiting for a worker.
            self._prober.close()
        self._compute.shutdown(wait=True, cancel_futures=True)
        self._openers.shutdown(wait=True)
        self._disk.shutdown(wait=True, cancel_futures=True)
        self.slides.close()
        self._resources.close()

    def _open(self, path: Path, version: str) -> Pyramid:
        if self._prober is not None:
            self._prober.probe(path, version)
        reader = open_slide(
            path,
            decoded_cache=self._decoded,
            chunks=self._chunks,
            imports=self._imports,
        )
        keep = self._derived.keeper(slide_key(str(path), version))
        return Pyramid(reader, keep=keep, stopping=self._stopping)
