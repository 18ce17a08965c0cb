"""Tiles that cost work, kept: the newest in memory, more of them on disk.

Only made tiles come here; reading a stored tile again is cheaper than looking it up.
The disk part is a `diskcache` with a byte budget, safe between processes. Nobody waits
for it to be written: processes that write at once wait for each other by sleeping (as
SQLite does), which held visitors up for seconds while the processor was idle. One
thread writes what was made, many tiles in one transaction. A key names
the slide by path and version together, hashed: two files can share a version, and paths
do not belong into a cache's folder. A token is never part of a key.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import diskcache

from tile_server import patience
from tile_server.errors import Abandoned, TookTooLong
from tile_server.pyramid import JPEG, PNG, WEBP, Keep, Make, Tile

log = logging.getLogger(__name__)

# Raised when the same address would give other bytes (quality, filling, filter).
VARIANT = "1"
_PNG_START, _RIFF_START = b"\x89PNG", b"RIFF"


class DerivedTiles:
    """The store of made tiles; may be used from several threads."""

    def __init__(self, folder: Path, *, disk_bytes: int, memory_bytes: int) -> None:
        """Keep up to `disk_bytes` in `folder` and up to `memory_bytes` in memory.

        Each budget costs what it says; a smaller one costs more repeated work.
        """
        self._disk = diskcache.Cache(
            str(folder),
            size_limit=disk_bytes,
            eviction_policy="least-recently-stored",
        )
        self._memory_bytes = memory_bytes
        self._recent: OrderedDict[str, Tile] = OrderedDict()
        self._recent_bytes = 0
        self._flights: dict[str, Future[Tile]] = {}
        self._lock = threading.Lock()
        self._writer = _Writer(self._disk)

    def recent(self, key: str) -> Tile | None:
        """The tile if it is in memory; never waits."""
        with self._lock:
            tile = self._recent.get(key)
            if tile is not None:
                self._recent.move_to_end(key)
            return tile

    def keeper(self, slide_key: str) -> Keep:
        """The `Keep` of one slide, for its pyramid."""

        def keep(key: tuple[int, int, int], make: Make) -> Tile:
            return self.tile(tile_key(slide_key, *key), make)

        return keep

    def tile(self, key: str, make: Make) -> Tile:
        """The tile of `key`, made by `make` if it is not kept.

        Threads that ask for the same key at once wait for the first of them; where that
        gives up, because its own visitors have gone, the next one makes the tile. A
        tile is only ever made from finer ones, so these waits form no circle.
        """
        while True:
            tile = self.recent(key)
            if tile is not None:
                return tile
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    own: Future[Tile] = Future()
                    self._flights[key] = own
                    break
            try:
                return flight.result()
            except (Abandoned, TookTooLong):
                patience.check()
        return self._make(key, make, own)

    def _make(self, key: str, make: Make, own: Future[Tile]) -> Tile:
        """Fetch or make a tile for all who wait for `own`."""
        try:
            tile = self._load(key)
            if tile is None:
                tile = make()
                self._writer.put(key, tile.body)
            self._remember(key, tile)
            own.set_result(tile)
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[key]
        return tile

    def kept_bytes(self) -> tuple[int, int]:
        """How much is kept in memory and on disk."""
        try:
            on_disk = int(self._disk.volume())
        except (OSError, sqlite3.Error, diskcache.Timeout) as error:
            log.warning("the tile cache cannot be measured: %s", error)
            on_disk = 0
        return self._recent_bytes, on_disk

    def flush(self) -> None:
        """Wait until all that was made so far is on the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is still to be written, and let go of the folder."""
        self._writer.close()
        self._disk.close()

    def _load(self, key: str) -> Tile | None:
        try:
            body = self._disk.get(key)
        except (OSError, sqlite3.Error, diskcache.Timeout) as error:
            log.warning("the tile cache cannot be read: %s", error)
            return None
        if not isinstance(body, bytes):
            return None
        return Tile(body, _media_type(body), kept=True)

    def _remember(self, key: str, tile: Tile) -> None:
        with self._lock:
            before = self._recent.pop(key, None)
            self._recent_bytes += len(tile.body) - (len(before.body) if before else 0)
            self._recent[key] = replace(tile, kept=True)
            while self._recent_bytes > self._memory_bytes:
                _, oldest = self._recent.popitem(last=False)
                self._recent_bytes -= len(oldest.body)


class _Writer:
    """Puts tiles on the disk, later. More than it can hold at once is not written."""

    WAITING_BYTES = 16 << 20
    AT_ONCE = 64
    CLOSING_S = 5.0

    def __init__(self, disk: diskcache.Cache) -> None:
        self._disk = disk
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._writing = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, key: str, body: bytes) -> None:
        """Note a tile; never waits. One that finds no room is made again some day."""
        with self._changed:
            if self._waiting_bytes + len(body) > self.WAITING_BYTES or self._closing:
                return
            self._waiting.append((key, body))
            self._waiting_bytes += len(body)
            if self._thread is None:
                # Not before there is work: many a store only ever reads.
                self._thread = threading.Thread(
                    target=self._run, name="tile-writer", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until nothing is left to be written."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._waiting and not self._writing, timeout_s
            )

    def close(self) -> None:
        """Write the rest, for a few seconds at most."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(self.CLOSING_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    # A connection is a thread's own; the log stays while one is open.
                    self._disk.close()
                    return
                some = [
                    self._waiting.popleft()
                    for _ in range(min(self.AT_ONCE, len(self._waiting)))
                ]
                self._waiting_bytes -= sum(len(body) for _, body in some)
                self._writing = True
            self._write(some)
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _write(self, some: list[tuple[str, bytes]]) -> None:
        try:
            with self._disk.transact(retry=True):
                for key, body in some:
                    self._disk.set(key, body)
        except (OSError, sqlite3.Error, diskcache.Timeout) as error:
            # A full disk must not stop anyone from looking at slides.
            log.warning("the tile cache cannot be written: %s", error)


def slide_key(path: str, version: str) -> str:
    """What stands for one version of one slide in a key."""
    text = f"{version}\0{path}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def tile_key(slide: str, k: int, t_x: int, t_y: int) -> str:
    """The key of a tile of rung k."""
    return f"{slide}/{k}/{t_x}/{t_y}/{VARIANT}"


def _media_type(body: bytes) -> str:
    """What an encoded tile is, by its beginning."""
    if body.startswith(_PNG_START):
        return PNG
    return WEBP if body.startswith(_RIFF_START) else JPEG
