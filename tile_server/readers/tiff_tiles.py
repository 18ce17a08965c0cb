"""The reader for tiled TIFF slides that must be decoded: on their own grid, by tile.

openslide would decode the same tiles to another grid, through RGBA. Here a tile of the
map is a tile of the file, read by one `pread` and decoded by its codec. JPEG 2000 also
gives tiles that are smaller already when they are decoded (`read_smaller`), of which
composed levels are made.

openslide stays the authority on which pages are levels, on the metadata and on every
level that is coded otherwise; of files whose codec it lacks, `bare_tiff` knows as much.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import tifffile

from tile_server.errors import DamagedTile
from tile_server.pixels import Pixels, plain
from tile_server.readers import tiff_codecs
from tile_server.readers.bare_tiff import BareTiff
from tile_server.readers.chunks import paste
from tile_server.readers.protocol import Level, SlideFacts
from tile_server.readers.through_openslide import OpenSlideReader
from tile_server.readers.tiff_codecs import TileCoding
from tile_server.readers.tiff_tables import PLAIN_VENDORS, Slide, TileTable, tables

_DIFFERENCES = 2
# By samples of a pixel.
_PHOTOMETRIC = {
    1: {tifffile.PHOTOMETRIC.MINISBLACK},
    3: {tifffile.PHOTOMETRIC.RGB},
}
# A level's table, and how its tiles are coded.
Stored = tuple[TileTable, TileCoding]


class TiledReader:
    """A slide of tiles that are decoded one by one; see `protocol.Reader`."""

    def __init__(self, slide: Slide, fd: int, tiles: Mapping[int, Stored]) -> None:
        """Take over `slide` and the descriptor `fd`; both are closed with this."""
        self._slide = slide
        self._fd = fd
        self._tiles = dict(tiles)
        self._levels = tuple(
            replace(
                level,
                tile_width=tiles[number][0].edge,
                tile_height=tiles[number][0].edge,
            )
            if number in tiles
            else level
            for number, level in enumerate(slide.levels)
        )
        codec = tiff_codecs.NAMES[tiles[0][1].codec]
        self._facts = replace(slide.facts, format=f"{slide.facts.format}, {codec}")
        if isinstance(slide, OpenSlideReader):
            slide.set_aside()

    @classmethod
    def probe(cls, slide: Slide) -> TiledReader | None:
        """A reader over the file of `slide`, or None where openslide serves it better.

        The caller keeps `slide` in the second case. Raises UnreadableSlide where the
        file ends before its tiles do.
        """
        fd = os.open(slide.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            tiles = tables(slide, fd, PLAIN_VENDORS, _coding)
        except BaseException:
            os.close(fd)
            raise
        if 0 not in tiles or (isinstance(slide, BareTiff) and _misses(slide, tiles)):
            os.close(fd)
            return None
        return cls(slide, fd, tiles)

    @property
    def path(self) -> Path:
        return self._slide.path

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._levels

    @property
    def facts(self) -> SlideFacts:
        return self._facts

    @property
    def properties(self) -> Mapping[str, str]:
        return self._slide.properties

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:  # noqa: ARG002
        return None

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        if level not in self._tiles:
            return self._slide.read(level, l_x, l_y, size)
        return self._read(level, (l_x, l_y), size, 0)

    def read_smaller(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], factor: int
    ) -> Pixels | None:
        """`size` pixels of the level, made `factor` times smaller while decoding.

        None where the level's codec cannot do that, or the corner is no whole number of
        `factor`. The last row and column stand for what is left of the size.
        """
        tiles = self._tiles.get(level)
        if tiles is None or tiles[1].codec not in tiff_codecs.IS_JPEG_2000:
            return None
        reduce = factor.bit_length() - 1
        if tiles[1].edge % factor or l_x % factor or l_y % factor:
            return None
        small = -(-size[0] // factor), -(-size[1] // factor)
        return self._read(level, (l_x // factor, l_y // factor), small, reduce)

    def associated_image(self, name: str) -> Pixels:
        return self._slide.associated_image(name)

    def close(self) -> None:
        for table, _ in self._tiles.values():
            table.let_go()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._slide.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(
        self, level: int, corner: tuple[int, int], size: tuple[int, int], reduce: int
    ) -> Pixels:
        """A rectangle of a level that is 2**`reduce` times smaller, in its pixels."""
        (table, coding), full = self._tiles[level], self._levels[level]
        edge = coding.edge >> reduce
        width, height = -(-full.width >> reduce), -(-full.height >> reduce)
        pixels = plain(*size, self._facts.background)

        def decoded(t_x: int, t_y: int) -> Pixels | None:
            offset, length = table.find(t_x, t_y)
            if not length:
                return None
            stream = os.pread(self._fd, length, offset)
            if len(stream) != length:
                raise DamagedTile("The file ends within this tile.")
            if reduce:
                return tiff_codecs.decode_smaller(stream, coding, reduce)
            return tiff_codecs.decode(stream, coding)

        paste(pixels, Level(width, height, edge, edge, encoded=False), corner, decoded)
        return pixels


def _misses(slide: BareTiff, tiles: Mapping[int, Stored]) -> bool:
    return any(number not in tiles for number in range(len(slide.levels)))


def _coding(
    page: tifffile.TiffPage, table: TileTable, _: list[int]
) -> TileCoding | None:
    """How the tiles of a page are coded, None where they cannot be decoded here."""
    samples = page.samplesperpixel
    photometric = _PHOTOMETRIC.get(samples, set())
    if page.compression == tiff_codecs.APERIO_YCBCR and samples == 3:
        photometric = {tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR}
    suitable = (
        page.compression in tiff_codecs.NAMES
        and page.photometric in photometric
        and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
        and page.fillorder == tifffile.FILLORDER.MSB2LSB
        and page.predictor in (1, _DIFFERENCES)
    )
    if not suitable:
        return None
    differences = page.predictor == _DIFFERENCES
    return TileCoding(int(page.compression), table.edge, samples, differences)
