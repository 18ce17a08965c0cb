"""The reader for tiled TIFF slides that must be decoded: on their own grid, by tile.

openslide would decode the same tiles to another grid, through RGBA. Here a tile of the
map is a tile of the file, read by one `pread` and decoded by its codec. JPEG 2000 also
gives tiles that are smaller already when they are decoded (`read_smaller`), of which
composed levels are made.

openslide stays the authority on which pages are levels, on the metadata and on every
level that is coded otherwise; of files whose codec it lacks, `bare_tiff` knows as much.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import tifffile

from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.pixels import Pixels, plain
from tile_server.readers import tiff_codecs
from tile_server.readers.bare_tiff import TIFF_DAMAGED, BareTiff
from tile_server.readers.protocol import Level, SlideFacts
from tile_server.readers.through_openslide import OpenSlideReader
from tile_server.readers.tiff_codecs import TileCoding

log = logging.getLogger(__name__)

# openslide gives these formats' levels exactly as the TIFF pages hold them.
_PLAIN_VENDORS = frozenset({"aperio", "generic-tiff"})
_LONGEST_TILE = 64 * 2**20
_SMALLEST_TILE, _LARGEST_TILE = 64, 2048
_DIFFERENCES = 2

_Slide = OpenSlideReader | BareTiff


@dataclass(frozen=True)
class _Tiles:
    """Where the tiles of one level lie, row by row, and how they are coded."""

    coding: TileCoding
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint64]


class TiledReader:
    """A slide of tiles that are decoded one by one; see `protocol.Reader`."""

    def __init__(self, slide: _Slide, fd: int, tiles: Mapping[int, _Tiles]) -> None:
        """Take over `slide` and the descriptor `fd`; both are closed with this."""
        self._slide = slide
        self._fd = fd
        self._tiles = dict(tiles)
        self._levels = tuple(
            replace(
                level,
                tile_width=tiles[number].coding.edge,
                tile_height=tiles[number].coding.edge,
            )
            if number in tiles
            else level
            for number, level in enumerate(slide.levels)
        )
        codec = tiff_codecs.NAMES[tiles[0].coding.codec]
        self._facts = replace(slide.facts, format=f"{slide.facts.format}, {codec}")

    @classmethod
    def probe(cls, slide: _Slide) -> TiledReader | None:
        """A reader over the file of `slide`, or None where openslide serves it better.

        The caller keeps `slide` in the second case. Raises UnreadableSlide where the
        file ends before its tiles do.
        """
        if slide.vendor not in _PLAIN_VENDORS:
            return None
        fd = os.open(slide.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            tiles = _find(slide, os.fstat(fd).st_size)
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
        if tiles is None or tiles.coding.codec not in tiff_codecs.IS_JPEG_2000:
            return None
        reduce = factor.bit_length() - 1
        if tiles.coding.edge % factor or l_x % factor or l_y % factor:
            return None
        small = -(-size[0] // factor), -(-size[1] // factor)
        return self._read(level, (l_x // factor, l_y // factor), small, reduce)

    def associated_image(self, name: str) -> Pixels:
        return self._slide.associated_image(name)

    def close(self) -> None:
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
        tiles, shape = self._tiles[level], self._levels[level]
        pixels = plain(*size, self._facts.background)
        edge = tiles.coding.edge >> reduce
        width, height = -(-shape.width >> reduce), -(-shape.height >> reduce)
        left, top = max(corner[0], 0), max(corner[1], 0)
        right = min(corner[0] + size[0], width)
        bottom = min(corner[1] + size[1], height)
        if right <= left or bottom <= top:
            return pixels
        for t_y in range(top // edge, -(-bottom // edge)):
            for t_x in range(left // edge, -(-right // edge)):
                tile = self._tile(tiles, t_y * shape.columns + t_x, reduce)
                if tile is None:
                    continue
                x, y = t_x * edge, t_y * edge
                x0, x1 = max(x, left), min(x + edge, right)
                y0, y1 = max(y, top), min(y + edge, bottom)
                part = tile[y0 - y : y1 - y, x0 - x : x1 - x]
                place = slice(y0 - corner[1], y1 - corner[1])
                pixels[place, x0 - corner[0] : x1 - corner[0]] = part
        return pixels

    def _tile(self, tiles: _Tiles, number: int, reduce: int) -> Pixels | None:
        length = int(tiles.lengths[number])
        if length == 0:
            return None
        stream = os.pread(self._fd, length, int(tiles.offsets[number]))
        if len(stream) != length:
            raise DamagedTile("The file ends within this tile.")
        if reduce:
            return tiff_codecs.decode_smaller(stream, tiles.coding, reduce)
        return tiff_codecs.decode(stream, tiles.coding)


def _misses(slide: BareTiff, tiles: Mapping[int, _Tiles]) -> bool:
    return any(number not in tiles for number in range(len(slide.levels)))


def _find(slide: _Slide, file_bytes: int) -> dict[int, _Tiles]:
    """The levels whose tiles can be decoded here."""
    found: dict[int, _Tiles] = {}
    try:
        with tifffile.TiffFile(slide.path) as tiff:
            pages = [
                page
                for page in tiff.pages
                if isinstance(page, tifffile.TiffPage) and page.is_tiled
            ]
            for number, level in enumerate(slide.levels):
                for page in pages:
                    if (page.imagewidth, page.imagelength) != (
                        level.width,
                        level.height,
                    ):
                        continue
                    tiles = _tiles(page, file_bytes, slide.path.name)
                    if tiles is not None:
                        found[number] = tiles
                    break
    except TIFF_DAMAGED as error:
        kind = type(error).__name__
        log.info("openslide reads this TIFF and tifffile does not (%s)", kind)
        return {}
    return found


def _tiles(page: tifffile.TiffPage, file_bytes: int, name: str) -> _Tiles | None:
    edge, samples = page.tilewidth, page.samplesperpixel
    expected = -(-page.imagewidth // edge) * -(-page.imagelength // page.tilelength)
    allowed = {1: {tifffile.PHOTOMETRIC.MINISBLACK}, 3: {tifffile.PHOTOMETRIC.RGB}}
    photometric = allowed.get(samples, set())
    if page.compression == tiff_codecs.APERIO_YCBCR and samples == 3:
        photometric = {tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR}
    suitable = (
        page.compression in tiff_codecs.NAMES
        and page.photometric in photometric
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.bitspersample == 8
        and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
        and page.fillorder == tifffile.FILLORDER.MSB2LSB
        and page.predictor in (1, _DIFFERENCES)
        and page.imagedepth == 1
        and edge == page.tilelength
        and _SMALLEST_TILE <= edge <= _LARGEST_TILE
    )
    if not suitable:
        return None
    offsets = np.asarray(page.dataoffsets, np.uint64)
    lengths = np.asarray(page.databytecounts, np.uint64)
    if not len(offsets) == len(lengths) == expected:
        return None
    if int(lengths.max(initial=0)) > _LONGEST_TILE:
        return None
    # Compared without adding, which could overflow for a hostile header.
    room = np.where(offsets <= file_bytes, np.uint64(file_bytes) - offsets, 0)
    cut = int(np.count_nonzero((lengths > room) & (lengths > 0)))
    if cut:
        raise UnreadableSlide(
            f"{name} is cut off: {cut} of its {expected} tiles lie past the end of the "
            "file. Copy it again."
        )
    differences = page.predictor == _DIFFERENCES
    coding = TileCoding(int(page.compression), edge, samples, differences)
    return _Tiles(coding, offsets, lengths)
