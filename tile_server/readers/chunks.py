"""Rectangles made of the chunks in which a file holds a level, decoded chunks kept.

A chunk is a tile, a strip or a Zarr chunk. Neighbouring requests share chunks, and one
decoded chunk often holds several channels or depths, so the last ones are kept under a
byte budget that all open slides share.

Planes: `l_` pixels of a stored level, `t_` chunks of that level.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tile_server import patience
from tile_server.pixels import Pixels
from tile_server.readers.planes import Numbers, Plane, PlaneFacts
from tile_server.readers.protocol import Closes, Level, SlideFacts

# A hostile header could announce any chunk; no writer's comes near this.
LONGEST_CHUNK = 256 * 2**20
CHUNK_BYTES = 64 * 2**20

Array = npt.NDArray[Any]
Fetch = Callable[[int, int], Array | None]


class ChunkCache:
    """Decoded chunks, least recently used first; may be used from several threads."""

    def __init__(self, most_bytes: int = CHUNK_BYTES) -> None:
        """Keep up to `most_bytes`. More spares decoding again what lies side by side;
        a single chunk above half of it is not kept."""
        self._most_bytes = most_bytes
        self._bytes = 0
        self._chunks: OrderedDict[tuple[int, Hashable], Array] = OrderedDict()
        self._owners = itertools.count()
        self._lock = threading.Lock()

    def owner(self) -> int:
        """A number for one open slide, by which its chunks are found and forgotten."""
        return next(self._owners)

    def chunk(
        self, owner: int, key: Hashable, make: Callable[[], Array | None]
    ) -> Array | None:
        """The chunk `key` of `owner`, made if it is not kept; None where none is."""
        whole_key = owner, key
        with self._lock:
            kept = self._chunks.get(whole_key)
            if kept is not None:
                self._chunks.move_to_end(whole_key)
                return kept
        made = make()
        if made is None or made.nbytes > self._most_bytes // 2:
            return made
        # Shared by all who ask for it.
        made.flags.writeable = False
        with self._lock:
            before = self._chunks.pop(whole_key, None)
            self._bytes += made.nbytes - (0 if before is None else before.nbytes)
            self._chunks[whole_key] = made
            while self._bytes > self._most_bytes:
                _, oldest = self._chunks.popitem(last=False)
                self._bytes -= oldest.nbytes
        return made

    def forget(self, owner: int) -> None:
        """Drop the chunks of a slide that was closed."""
        with self._lock:
            for key in [key for key in self._chunks if key[0] == owner]:
                self._bytes -= self._chunks.pop(key).nbytes


def paste(canvas: Array, level: Level, corner: tuple[int, int], fetch: Fetch) -> None:
    """Fill `canvas`, whose corner is at `corner` (l_) of `level`, from chunks.

    `fetch(t_x, t_y)` gives a chunk, shorter at the level's edges or full size, or None
    where the file has none; there, and outside the level, `canvas` keeps what it has.
    """
    l_x, l_y = corner
    right = min(l_x + canvas.shape[1], level.width)
    bottom = min(l_y + canvas.shape[0], level.height)
    left, top = max(l_x, 0), max(l_y, 0)
    if right <= left or bottom <= top:
        return
    across, down = level.tile_width, level.tile_height
    for t_y in range(top // down, -(-bottom // down)):
        for t_x in range(left // across, -(-right // across)):
            patience.check()
            chunk = fetch(t_x, t_y)
            if chunk is None:
                continue
            x, y = t_x * across, t_y * down
            x0, x1 = max(x, left), min(x + chunk.shape[1], right)
            y0, y1 = max(y, top), min(y + chunk.shape[0], bottom)
            part = chunk[y0 - y : y1 - y, x0 - x : x1 - x]
            canvas[y0 - l_y : y1 - l_y, x0 - l_x : x1 - l_x] = part


def _nothing_associated(name: str) -> Pixels:
    raise KeyError(name)


@dataclass(frozen=True)
class ChunkedPlanes(Closes):
    """A `PlaneReader` over a function that gives chunks.

    Attributes
    ----------
    chunk
        `chunk(level, plane, t_x, t_y)` gives the numbers of one chunk, or None.
    associated
        Gives an associated image, or raises KeyError.
    release
        Frees what the reader holds; called once.
    """

    path: Path
    levels: tuple[Level, ...]
    facts: SlideFacts
    planes: PlaneFacts
    chunk: Callable[[int, Plane, int, int], Numbers | None]
    release: Callable[[], None]
    properties: Mapping[str, str] = field(default_factory=dict)
    associated: Callable[[str], Pixels] = _nothing_associated

    def read_plane(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], *, plane: Plane
    ) -> Numbers:
        canvas = np.zeros((size[1], size[0]), self.planes.number_type)
        paste(
            canvas,
            self.levels[level],
            (l_x, l_y),
            lambda t_x, t_y: self.chunk(level, plane, t_x, t_y),
        )
        return canvas

    def associated_image(self, name: str) -> Pixels:
        if name not in self.facts.associated:
            raise KeyError(name)
        return self.associated(name)

    def close(self) -> None:
        self.release()
