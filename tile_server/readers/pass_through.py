"""The reader for TIFF slides whose JPEG tiles leave the file undecoded.

tifffile reads the structure once, at opening; offsets and lengths are kept in arrays
and the TIFF object is closed. From then on a tile is one `pread` on the reader's own
descriptor (no shared file position, so no lock) plus the level's JPEG prefix.

openslide stays the authority on which pages are levels, on the metadata and on every
level that is not stored as such tiles.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import tifffile

from tile_server import codecs, jpeg_streams, reading
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.pixels import Pixels, plain
from tile_server.readers.bare_tiff import TIFF_DAMAGED
from tile_server.readers.protocol import Level, SlideFacts
from tile_server.readers.through_openslide import OpenSlideReader
from tile_server.reading import Place

log = logging.getLogger(__name__)

# openslide gives these formats' levels exactly as the TIFF pages hold them; the other
# TIFF formats overlap, shift or pad their tiles.
_PLAIN_VENDORS = frozenset({"aperio", "generic-tiff"})
# A hostile header could announce any length; no scanner's JPEG tile comes near this.
_LONGEST_TILE = 64 * 2**20
_SMALLEST_TILE, _LARGEST_TILE = 64, 2048


@dataclass(frozen=True)
class TileIndex:
    """Where the JPEG tiles of one level lie in the file, row by row."""

    prefix: bytes
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint64]


class PassThroughReader:
    """A slide with JPEG tiles that need no decoding; see `protocol.Reader`."""

    def __init__(
        self, slide: OpenSlideReader, fd: int, indexes: Mapping[int, TileIndex]
    ) -> None:
        """Take over `slide` and the descriptor `fd`; both are closed with this."""
        self._slide = slide
        self._fd = fd
        self._indexes = dict(indexes)
        self._levels = slide.levels
        self._facts = replace(slide.facts, format=f"{slide.facts.format}, JPEG")

    @classmethod
    def probe(cls, slide: OpenSlideReader) -> PassThroughReader | None:
        """A reader over the file of `slide`, or None where no tile passes through.

        The caller keeps `slide` in the second case. Raises UnreadableSlide where the
        file ends before its tiles do.
        """
        if slide.vendor not in _PLAIN_VENDORS:
            return None
        fd = os.open(slide.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            found = _indexes(slide, fd)
        except BaseException:
            os.close(fd)
            raise
        if 0 not in found:
            os.close(fd)
            return None
        reader = cls(slide, fd, {level: index for level, (_, index) in found.items()})
        reader._levels = tuple(
            found[number][0] if number in found else level
            for number, level in enumerate(slide.levels)
        )
        return reader

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

    def place(self, level: int, t_x: int, t_y: int) -> Place | None:
        index = self._indexes.get(level)
        if index is None:
            return None
        number = t_y * self._levels[level].columns + t_x
        length = int(index.lengths[number])
        if length == 0:
            return None
        return Place(self._fd, int(index.offsets[number]), length, index.prefix)

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:
        place = self.place(level, t_x, t_y)
        if place is None:
            return None
        stream = reading.read(place)
        if stream is None:
            raise DamagedTile(f"Tile {t_x}, {t_y} of stored level {level} is damaged.")
        return stream

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        if level not in self._indexes:
            return self._slide.read(level, l_x, l_y, size)
        shape = self._levels[level]
        pixels = plain(*size, self._facts.background)
        right = min(l_x + size[0], shape.width)
        bottom = min(l_y + size[1], shape.height)
        left, top = max(l_x, 0), max(l_y, 0)
        if right <= left or bottom <= top:
            return pixels
        across, down = shape.tile_width, shape.tile_height
        for t_y in range(top // down, -(-bottom // down)):
            for t_x in range(left // across, -(-right // across)):
                stream = self.encoded_tile(level, t_x, t_y)
                if stream is None:
                    continue
                tile = codecs.decode_jpeg(stream, size=(across, down))
                x, y = t_x * across, t_y * down
                x0, x1 = max(x, left), min(x + across, right)
                y0, y1 = max(y, top), min(y + down, bottom)
                part = tile[y0 - y : y1 - y, x0 - x : x1 - x]
                pixels[y0 - l_y : y1 - l_y, x0 - l_x : x1 - l_x] = part
        return pixels

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


def _indexes(slide: OpenSlideReader, fd: int) -> dict[int, tuple[Level, TileIndex]]:
    """The levels that pass through, with their grid and index."""
    file_bytes = os.fstat(fd).st_size
    found: dict[int, tuple[Level, TileIndex]] = {}
    try:
        with tifffile.TiffFile(slide.path) as tiff:
            pages = [
                page
                for page in tiff.pages
                if isinstance(page, tifffile.TiffPage) and page.is_tiled
            ]
            for number, level in enumerate(slide.levels):
                page = _page_of(level, pages)
                if page is None:
                    continue
                _refuse_cut_file(page, file_bytes, slide.path.name)
                index = _index(page, fd)
                if index is None:
                    continue
                shape = Level(
                    level.width,
                    level.height,
                    page.tilewidth,
                    page.tilelength,
                    encoded=True,
                )
                found[number] = (shape, index)
    except TIFF_DAMAGED as error:
        kind = type(error).__name__
        log.info("openslide reads this TIFF and tifffile does not (%s)", kind)
        return {}
    return found


def _page_of(
    level: Level, pages: Iterable[tifffile.TiffPage]
) -> tifffile.TiffPage | None:
    for page in pages:
        if (page.imagewidth, page.imagelength) == (level.width, level.height):
            return page
    return None


def _refuse_cut_file(page: tifffile.TiffPage, file_bytes: int, name: str) -> None:
    """Raise UnreadableSlide where tiles lie past the end of the file."""
    offsets = np.asarray(page.dataoffsets, np.uint64)
    lengths = np.asarray(page.databytecounts, np.uint64)
    # Compared without adding, which could overflow for a hostile header.
    room = np.where(offsets <= file_bytes, np.uint64(file_bytes) - offsets, 0)
    cut = int(np.count_nonzero((lengths > room) & (lengths > 0)))
    if cut:
        raise UnreadableSlide(
            f"{name} is cut off: {cut} of its {len(offsets)} tiles lie past the end "
            "of the file. Copy it again."
        )


def _index(page: tifffile.TiffPage, fd: int) -> TileIndex | None:
    """The page's index where a browser shows its tiles as they are, else None."""
    across, down = page.tilewidth, page.tilelength
    expected = -(-page.imagewidth // across) * -(-page.imagelength // down)
    offsets = np.asarray(page.dataoffsets, np.uint64)
    lengths = np.asarray(page.databytecounts, np.uint64)
    suitable = (
        page.compression == tifffile.COMPRESSION.JPEG
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.bitspersample == 8
        and page.samplesperpixel in (1, 3)
        and page.imagedepth == 1
        and across == down
        and across % 16 == 0
        and _SMALLEST_TILE <= across <= _LARGEST_TILE
        and len(offsets) == len(lengths) == expected
        and int(lengths.max(initial=0)) <= _LONGEST_TILE
    )
    if not suitable:
        return None
    present = np.flatnonzero(lengths)
    if not len(present):
        return None
    prefixes = set()
    for number in (present[0], present[len(present) // 2], present[-1]):
        tile = os.pread(fd, int(lengths[number]), int(offsets[number]))
        # A damaged tile says nothing of the others.
        if jpeg_streams.starts_like_jpeg(tile):
            prefixes.add(_prefix(page, tile))
    if len(prefixes) != 1:
        return None
    prefix = prefixes.pop()
    return None if prefix is None else TileIndex(prefix, offsets, lengths)


def _prefix(page: tifffile.TiffPage, tile: bytes) -> bytes | None:
    """The prefix of a level as one of its tiles asks for it; None if it must not pass.

    TIFF's photometric tag decides what the components are, and openslide obeys it.
    """
    photometric = page.photometric
    if page.samplesperpixel == 1:
        if photometric != tifffile.PHOTOMETRIC.MINISBLACK:
            return None
    elif photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR):
        return None
    declared = jpeg_streams.Declared(
        width=page.tilewidth,
        height=page.tilelength,
        components=page.samplesperpixel,
        rgb=photometric == tifffile.PHOTOMETRIC.RGB,
    )
    return jpeg_streams.passing_prefix(page.jpegtables, tile, declared)
