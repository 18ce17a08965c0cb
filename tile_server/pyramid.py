"""Tiles of a slide's ladder: passed through, filled at the edge, or composed.

* A tile inside a stored JPEG level leaves as the file has it.
* A tile at the right or bottom edge holds rubbish past the picture, and a map stretches
  a smaller picture to a whole tile. So it is decoded, the rubbish is painted over with
  the background, and it leaves without loss (PNG): its valid pixels stay the file's.
* A tile of a level that must be decoded anyway leaves as JPEG.
* A tile of a rung that is not in the file is composed from up to 64 tiles of a finer
  one, each made smaller while it is decoded; farther up, from composed tiles.

All of it may be called from several threads. What costs work goes through `keep`, which
stores a tile by its address and makes sure that two threads never make the same one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from tile_server import codecs, patience
from tile_server.ahead import Ahead
from tile_server.errors import DamagedTile, Stopped
from tile_server.ladder import Ladder, Rung, build
from tile_server.pixels import Colour, Pixels, plain
from tile_server.readers.protocol import Reader, Reduces
from tile_server.reading import KnowsPlaces, Place

log = logging.getLogger(__name__)

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"
# libjpeg makes a picture up to 8 times smaller while decoding.
_LONGEST_JPEG = 3
# Other formats are decoded in full: a quarter each way is 16 tiles' worth of pixels.
_LONGEST_OTHER = 2
# A damaged tile within a larger picture: clearly neither tissue nor glass.
DAMAGED: Colour = (128, 128, 128)


@dataclass(frozen=True)
class Tile:
    """An encoded tile and its media type; `kept` is True where nothing had to be made.

    Stored tiles are never kept: they are read.
    """

    body: bytes
    media_type: str
    kept: bool = field(default=False, compare=False)

    def decode(self) -> Pixels:
        """The tile's pixels; raises DamagedTile."""
        if self.media_type == PNG:
            return codecs.decode_png(self.body)
        return codecs.decode_jpeg(self.body)


Make = Callable[[], Tile]


class Keep(Protocol):
    """Gives the tile of a key, and makes it when it is not kept yet."""

    def __call__(self, key: tuple[int, int, int], make: Make) -> Tile: ...


def keep_nothing(key: tuple[int, int, int], make: Make) -> Tile:  # noqa: ARG001
    """A `Keep` for short uses: every tile is made anew."""
    return make()


class Pyramid:
    """The ladder's tiles of one open slide."""

    def __init__(
        self,
        reader: Reader,
        *,
        keep: Keep = keep_nothing,
        stopping: threading.Event | None = None,
    ) -> None:
        """Read from `reader`, which stays the caller's.

        `keep` is asked for every tile that costs work, by (k, x, y); when `stopping` is
        set, work in progress ends with `Stopped`.
        """
        self.reader = reader
        self.ladder: Ladder = build(reader.levels)
        self._keep = keep
        self._stopping = stopping or threading.Event()
        self._place = reader.place if isinstance(reader, KnowsPlaces) else None
        self._ahead = Ahead(reader) if isinstance(reader, KnowsPlaces) else None
        # By k: the columns and rows of the tiles that can leave undecoded.
        self._passing = tuple(self._passing_tiles(rung) for rung in self.ladder.rungs)

    @property
    def knows_places(self) -> bool:
        """True where `place` finds every tile that can leave undecoded."""
        return self._place is not None

    def passes(self, rung: Rung, t_x: int, t_y: int) -> bool:
        """True where the file's own tile can leave undecoded, if the file has it."""
        columns, rows = self._passing[rung.k]
        return t_x < columns and t_y < rows

    def place(self, rung: Rung, t_x: int, t_y: int) -> Place | None:
        """Where the tile that can leave undecoded lies, if that is known."""
        columns, rows = self._passing[rung.k]
        if self._place is None or rung.level is None or t_x >= columns or t_y >= rows:
            return None
        return self._place(rung.level, t_x, t_y)

    def stored_tile(self, rung: Rung, t_x: int, t_y: int) -> Tile | None:
        """The file's own tile, undecoded, or None where there is none that can leave.

        Costs one read, which may wait for the disk. Raises DamagedTile.
        """
        if rung.level is None or not self.passes(rung, t_x, t_y):
            return None
        stream = self.reader.encoded_tile(rung.level, t_x, t_y)
        return None if stream is None else Tile(stream, JPEG)

    def cold_tile(self, rung: Rung, t_x: int, t_y: int) -> Tile | None:
        """As `stored_tile`, of a tile that is not in memory; its view follows it.

        Raises DamagedTile.
        """
        if self._ahead is not None and rung.level is not None:
            self._ahead.cold(rung.level, t_x, t_y, self._passing[rung.k])
        return self.stored_tile(rung, t_x, t_y)

    def tile(self, rung: Rung, t_x: int, t_y: int) -> Tile:
        """Any tile of the grid; may decode, compose and wait. Raises DamagedTile."""
        stored = self.stored_tile(rung, t_x, t_y)
        if stored is not None:
            return stored
        return self._keep((rung.k, t_x, t_y), lambda: self._make(rung, t_x, t_y))

    def pixels(self, rung: Rung, t_x: int, t_y: int) -> Pixels:
        """A tile's pixels, which no encoding of ours has touched. Raises DamagedTile.

        What lies past the picture has the background colour.
        """
        stored = self.stored_tile(rung, t_x, t_y)
        if stored is not None:
            edge = self.ladder.tile
            return codecs.decode_jpeg(stored.body, size=(edge, edge))
        return self._pixels(rung, t_x, t_y)[0]

    def keeps_pixels(self, rung: Rung, t_x: int, t_y: int) -> bool:
        """True for a tile of a JPEG level that is made, and so made without loss."""
        return self._gives_jpeg_tiles(rung) and not self.passes(rung, t_x, t_y)

    def check_stopping(self) -> None:
        """End work that nobody waits for; long work calls this often.

        Raises Stopped when the service is stopping, Abandoned and TookTooLong.
        """
        if self._stopping.is_set():
            raise Stopped("The tile service is stopping.")
        patience.check()

    def _make(self, rung: Rung, t_x: int, t_y: int) -> Tile:
        pixels, whole = self._pixels(rung, t_x, t_y)
        if whole:
            return Tile(codecs.encode_png(pixels), PNG)
        return Tile(codecs.encode_jpeg(pixels), JPEG)

    def _pixels(self, rung: Rung, t_x: int, t_y: int) -> tuple[Pixels, bool]:
        """The pixels of a tile that is made; True where they must lose nothing."""
        self.check_stopping()
        if rung.level is None:
            return self._compose(rung, t_x, t_y), False
        if self._gives_jpeg_tiles(rung):
            return self._edge_or_blank(rung, rung.level, t_x, t_y)
        edge = self.ladder.tile
        part = self.reader.read(rung.level, t_x * edge, t_y * edge, (edge, edge))
        return part, False

    def _edge_or_blank(
        self, rung: Rung, level: int, t_x: int, t_y: int
    ) -> tuple[Pixels, bool]:
        """A tile of a JPEG level that cannot leave as it is."""
        edge, shape = self.ladder.tile, self.reader.levels[level]
        pixels = plain(edge, edge, self.reader.facts.background)
        if t_x < shape.columns and t_y < shape.rows:
            stream = self.reader.encoded_tile(level, t_x, t_y)
            if stream is None and rung.k > 0 and not shape.absent_is_plain:
                return self._compose(rung, t_x, t_y), False
            if stream is not None:
                width = min(edge, shape.width - t_x * edge)
                height = min(edge, shape.height - t_y * edge)
                whole = codecs.decode_jpeg(stream, size=(edge, edge))
                valid = whole[:height, :width]
                pixels[:height, :width] = valid
        return pixels, True

    def _compose(self, rung: Rung, t_x: int, t_y: int) -> Pixels:
        """A tile made of a finer rung's tiles, each `factor` times smaller."""
        from_jpeg = self._gives_jpeg_tiles(self.ladder.base(rung))
        longest = _LONGEST_JPEG if from_jpeg else _LONGEST_OTHER
        source = self.ladder.source(rung, longest)
        factor = 1 << (rung.k - source.k)
        edge = self.ladder.tile
        if source.level is not None and not self._gives_jpeg_tiles(source):
            return self._shrunken_region(source.level, factor, t_x, t_y)
        if self._ahead is not None and source.level is not None:
            columns, rows = self._passing[source.k]
            self._ahead.ask(
                source.level,
                range(t_x * factor, min((t_x + 1) * factor, columns)),
                range(t_y * factor, min((t_y + 1) * factor, rows)),
            )
        part_edge = edge // factor
        canvas = plain(edge, edge, self.reader.facts.background)
        width, height = self.picture_size(source)
        for row in range(factor):
            for column in range(factor):
                s_x, s_y = t_x * factor + column, t_y * factor + row
                if s_x * edge >= width or s_y * edge >= height:
                    continue
                part = self._part(source, factor, s_x, s_y)
                top, left = row * part_edge, column * part_edge
                canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
        return canvas

    def _part(self, source: Rung, factor: int, s_x: int, s_y: int) -> Pixels:
        """One tile of `source`, `factor` times smaller; may be short at the edges."""
        self.check_stopping()
        try:
            stored = self.stored_tile(source, s_x, s_y)
            if stored is not None:
                edge = self.ladder.tile
                return codecs.decode_jpeg(stored.body, factor, size=(edge, edge))
            pixels = self.tile(source, s_x, s_y).decode()
        except DamagedTile as error:
            log.warning("a composed tile has a hole: %s", error)
            edge = self.ladder.tile // factor
            return plain(edge, edge, DAMAGED)
        # Cut first: a block across the slide's edge would mix in background.
        edge = self.ladder.tile
        width, height = self.picture_size(source)
        return shrink(pixels[: height - s_y * edge, : width - s_x * edge], factor)

    def _smaller(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], factor: int
    ) -> Pixels:
        """A region of a stored level, `factor` times smaller."""
        if isinstance(self.reader, Reduces):
            part = self.reader.read_smaller(level, l_x, l_y, size, factor)
            if part is not None:
                return part
        return shrink(self.reader.read(level, l_x, l_y, size), factor)

    def _gives_jpeg_tiles(self, rung: Rung) -> bool:
        """True where the rung's tiles are JPEG tiles of the file."""
        return (
            rung.stored
            and rung.level is not None
            and self.reader.levels[rung.level].encoded
        )

    def _passing_tiles(self, rung: Rung) -> tuple[int, int]:
        """Columns and rows of the file's JPEG tiles that lie wholly in the picture."""
        if rung.level is None or not self._gives_jpeg_tiles(rung):
            return 0, 0
        level = self.reader.levels[rung.level]
        return level.width // level.tile_width, level.height // level.tile_height

    def picture_size(self, rung: Rung) -> tuple[int, int]:
        """How much of the rung is picture; a stored level can be a pixel smaller."""
        if rung.level is None:
            return rung.width, rung.height
        level = self.reader.levels[rung.level]
        return min(rung.width, level.width), min(rung.height, level.height)

    def _shrunken_region(self, level: int, factor: int, t_x: int, t_y: int) -> Pixels:
        """A tile made of a region of a level that has to be decoded in full."""
        edge, shape = self.ladder.tile, self.reader.levels[level]
        l_x, l_y = t_x * edge * factor, t_y * edge * factor
        width = min(edge * factor, shape.width - l_x)
        height = min(edge * factor, shape.height - l_y)
        canvas = plain(edge, edge, self.reader.facts.background)
        if width > 0 and height > 0:
            part = self._smaller(level, l_x, l_y, (width, height), factor)
            canvas[: part.shape[0], : part.shape[1]] = part
        return canvas


def shrink(pixels: Pixels, factor: int) -> Pixels:
    """Means of blocks of `factor` pixels; the last block may be smaller."""
    if factor == 1:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.reduce(factor))
