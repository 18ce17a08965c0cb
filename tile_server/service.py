"""All state of the tile service, and what its HTTP handlers call.

Stored tiles are read on the event loop: one `pread` from the page cache costs less than
the way to a thread and back. Everything that computes goes to a pool of as many threads
as there are processors, at most once per tile at a time; opening files has threads of
its own, so that a new slide does not wait behind computed tiles.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import openslide

from tile_server import tokens
from tile_server.derived import DerivedTiles, slide_key, tile_key
from tile_server.flights import Flights
from tile_server.ladder import Rung
from tile_server.probing import Prober, ProbeSettings
from tile_server.pyramid import Pyramid, Tile
from tile_server.readers import open_slide
from tile_server.slides import OpenedSlide, Slides
from tile_server.tokens import Capability

log = logging.getLogger(__name__)

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
    look_again_s
        How long a file is believed to be unchanged. Longer spares a look-up in the file
        system now and then; shorter notices a replaced file sooner.
    resource_policy
        Which pages may embed the tiles (Cross-Origin-Resource-Policy).
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
    most_open: int = 128
    look_again_s: float = 1.0
    resource_policy: str = "same-origin"
    probe: ProbeSettings | None = field(default_factory=ProbeSettings)


class TileService:
    """Open slides, kept tiles, known tokens and threads; knows nothing of HTTP.

    Made and used on one event loop, and stopped once.
    """

    def __init__(self, settings: TileSettings, *, prober: Prober | None = None) -> None:
        """Serve as `settings` say; `prober` may be one that stays the caller's."""
        self.settings = settings
        self._resources = ExitStack()
        if prober is None and settings.probe is not None:
            prober = self._resources.enter_context(Prober(settings.probe))
        self._prober = prober
        if prober is not None:
            prober.warm_up()
        self._stopping = threading.Event()
        folder = settings.cache_folder
        if folder is None:
            passing = tempfile.TemporaryDirectory(prefix="theatrum-tiles-")
            folder = Path(self._resources.enter_context(passing))
        else:
            # Tiles are parts of slides, which not everybody on this machine may see.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._derived = DerivedTiles(
            folder,
            disk_bytes=settings.cache_bytes,
            memory_bytes=settings.memory_bytes,
        )
        self._resources.callback(self._derived.close)
        self._decoded = openslide.OpenSlideCache(settings.decoded_bytes)
        self._compute = ThreadPoolExecutor(os.cpu_count() or 2, "tiles")
        self._tiles: Flights[Tile] = Flights(self._compute, self._stopping)
        self._bodies: Flights[bytes] = Flights(self._compute, self._stopping)
        self._openers = ThreadPoolExecutor(4, "open")
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

    async def made_body(
        self, slide: OpenedSlide, what: str, make: Callable[[], bytes]
    ) -> bytes:
        """Another answer that costs work; `what` is the same for the same answer."""
        key = f"{slide_key(slide.path, slide.version)}/{what}"
        return await self._bodies.join(key, slide, make)

    def stop(self) -> None:
        """End work in progress and free everything; call once, after the server."""
        self._stopping.set()
        if self._prober is not None:
            # An opener may be waiting for a worker.
            self._prober.close()
        self._compute.shutdown(wait=True, cancel_futures=True)
        self._openers.shutdown(wait=True)
        self.slides.close()
        self._resources.close()

    def _open(self, path: Path, version: str) -> Pyramid:
        if self._prober is not None:
            self._prober.probe(path, version)
        reader = open_slide(path, decoded_cache=self._decoded)
        keep = self._derived.keeper(slide_key(str(path), version))
        return Pyramid(reader, keep=keep, stopping=self._stopping)
