"""Where the tiles of a TIFF level lie: the file's own table, a block at a time.

A slide of 100 000 x 80 000 px has 139 000 tiles, and their places would take two
megabytes of each open slide. The file holds them as two plain arrays (TIFF 6.0 section
15), so a block of them is read when a tile of it is first asked for, and the blocks
used first are forgotten again. At opening the arrays are looked through once, for tiles
that lie past the end of the file.

Planes: `t_` tiles of the level.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import tifffile

from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers.bare_tiff import TIFF_DAMAGED, BareTiff
from tile_server.readers.protocol import Level
from tile_server.readers.through_openslide import OpenSlideReader
from tile_server.readers.tiff_structure import forget_tables
from tile_server.reading import read_bytes_now

log = logging.getLogger(__name__)

Slide = OpenSlideReader | BareTiff
Kind = TypeVar("Kind")

# openslide gives these formats' levels exactly as the TIFF pages hold them; those of
# the other TIFF formats overlap (Ventana), lie in several regions (Leica), or are no
# tiles (Hamamatsu).
PLAIN_VENDORS = frozenset({"aperio", "generic-tiff"})
# Its pages are as large as their tiles together, its levels as large as the picture.
PHILIPS = "philips"
# A hostile header could announce any length; no scanner's tile comes near this.
LONGEST_TILE = 64 * 2**20
SMALLEST_EDGE, LARGEST_EDGE = 64, 2048

_TILE_OFFSETS, _TILE_BYTE_COUNTS = 324, 325
# By TIFF's number of the type: SHORT, LONG, LONG8.
_NUMBERS = {3: "u2", 4: "u4", 16: "u8"}
# Three rows of a large slide; four kilobytes.
_BLOCK = 512
_MOST_BLOCKS = 32
_LOOK_THROUGH = 2**16

_Read = Callable[[int, int, int], bytes | bytearray | None]
Numbers = npt.NDArray[np.unsignedinteger]


class _Array(NamedTuple):
    """One of the file's two arrays."""

    at: int
    numbers: int
    kind: np.dtype[np.unsignedinteger]

    def span(self, first: int, count: int) -> tuple[int, int]:
        """Where `count` numbers from `first` on lie, and how many bytes they take."""
        each = self.kind.itemsize
        return self.at + each * first, each * min(count, self.numbers - first)


class TileTable:
    """The places of one page's tiles; may be asked by several threads."""

    def __init__(
        self, descriptor: int, edge: int, columns: int, arrays: tuple[_Array, _Array]
    ) -> None:
        """Read two arrays from `descriptor`, which stays the caller's.

        Tiles have `edge` pixels a side; a row of the page has `columns` of them.
        """
        self.edge, self.columns = edge, columns
        self.count = arrays[0].numbers
        self._descriptor = descriptor
        self._arrays = arrays
        self._blocks: dict[int, tuple[Numbers, Numbers]] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, page: tifffile.TiffPage, descriptor: int) -> TileTable | None:
        """The table of a page; None where it is none of its grid."""
        columns = -(-page.imagewidth // page.tilewidth)
        rows = -(-page.imagelength // page.tilelength)
        offsets = _array(page, _TILE_OFFSETS, page.dataoffsets)
        lengths = _array(page, _TILE_BYTE_COUNTS, page.databytecounts)
        if offsets is None or lengths is None:
            return None
        if not offsets.numbers == lengths.numbers == columns * rows:
            return None
        return cls(descriptor, page.tilewidth, columns, (offsets, lengths))

    def find(self, t_x: int, t_y: int) -> tuple[int, int]:
        """Offset and length of a tile, the length 0 where the file has none.

        May wait for the disk. Raises DamagedTile where the file ends before its table.
        """
        number = t_y * self.columns + t_x
        block = self._blocks.get(number // _BLOCK)
        if block is None:
            block = self._load(number // _BLOCK, _read)
            if block is None:
                raise DamagedTile("The file ends within its table of tiles.")
        return _entry(block, number % _BLOCK)

    def find_now(self, t_x: int, t_y: int) -> tuple[int, int] | None:
        """As `find`, but None where it takes waiting to say."""
        number = t_y * self.columns + t_x
        block = self._blocks.get(number // _BLOCK)
        if block is None:
            block = self._load(number // _BLOCK, read_bytes_now)
            if block is None:
                return None
        return _entry(block, number % _BLOCK)

    def let_go(self) -> None:
        """Read no more: the descriptor's number may soon be another file's."""
        self._descriptor = -1

    def look_through(self, file_bytes: int) -> tuple[int, int, list[int]]:
        """How many tiles lie past the end, the longest, and some that are there."""
        cut, longest = 0, 0
        there: list[int] = []
        for first, offsets, lengths in self._pieces():
            present = (lengths > 0) & (offsets > 0)
            # Compared without adding, which could overflow for a hostile header.
            end = np.uint64(file_bytes)
            room = end - np.minimum(offsets.astype(np.uint64), end)
            cut += int(np.count_nonzero(present & (lengths > room)))
            longest = max(longest, int(lengths[present].max(initial=0)))
            numbers = np.flatnonzero(present)
            if len(numbers):
                middle = numbers[len(numbers) // 2]
                there += [first + int(n) for n in (numbers[0], middle, numbers[-1])]
        return cut, longest, there

    def _pieces(self) -> Iterator[tuple[int, Numbers, Numbers]]:
        for first in range(0, self.count, _LOOK_THROUGH):
            loaded = self._numbers(first, _LOOK_THROUGH, _read)
            if loaded is None:
                raise ValueError("a table of tiles past the end of the file")
            yield first, *loaded

    def _load(self, block: int, read: _Read) -> tuple[Numbers, Numbers] | None:
        loaded = self._numbers(block * _BLOCK, _BLOCK, read)
        if loaded is not None:
            with self._lock:
                while len(self._blocks) >= _MOST_BLOCKS:
                    del self._blocks[next(iter(self._blocks))]
                self._blocks[block] = loaded
        return loaded

    def _numbers(
        self, first: int, count: int, read: _Read
    ) -> tuple[Numbers, Numbers] | None:
        found = []
        for array in self._arrays:
            at, size = array.span(first, count)
            raw = read(self._descriptor, size, at)
            if raw is None or len(raw) != size:
                return None
            found.append(np.frombuffer(raw, array.kind))
        return found[0], found[1]


def tables(
    slide: Slide,
    descriptor: int,
    vendors: frozenset[str],
    suit: Callable[[tifffile.TiffPage, TileTable, list[int]], Kind | None],
) -> dict[int, tuple[TileTable, Kind]]:
    """The tables of the levels of `slide` whose tiles can be used as they lie.

    `suit(page, table, numbers)` says how, or None where they cannot; `numbers` are some
    tiles that the file holds. Raises UnreadableSlide where the file ends before its
    tiles do.
    """
    if slide.vendor not in vendors:
        return {}
    file_bytes = os.fstat(descriptor).st_size
    found: dict[int, tuple[TileTable, Kind]] = {}
    try:
        with tifffile.TiffFile(slide.path) as tiff:
            pages = [
                page
                for page in tiff.pages
                if isinstance(page, tifffile.TiffPage) and page.is_tiled
            ]
            left = list(pages)
            for number, level in enumerate(slide.levels):
                page = _page_of(level, left, padded=slide.vendor == PHILIPS)
                if page is None:
                    continue
                # Small levels of whole tiles are equally large.
                left.remove(page)
                if not _is_flat(page):
                    continue
                table = TileTable.of(page, descriptor)
                if table is None:
                    continue
                cut, longest, there = table.look_through(file_bytes)
                if cut:
                    raise UnreadableSlide(
                        f"{slide.path.name} is cut off: {cut} of its {table.count} "
                        "tiles lie past the end of the file. Copy it again."
                    )
                kind = suit(page, table, there) if longest <= LONGEST_TILE else None
                if kind is not None:
                    found[number] = table, kind
            forget_tables(pages)
    except TIFF_DAMAGED as error:
        kind_of_error = type(error).__name__
        log.info("openslide reads this TIFF and tifffile does not (%s)", kind_of_error)
        return {}
    return found


def _is_flat(page: tifffile.TiffPage) -> bool:
    """True for a page of square tiles of whole pixels of 8 bits."""
    return (
        page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.bitspersample == 8
        and page.imagedepth == 1
        and page.tilewidth == page.tilelength
        and SMALLEST_EDGE <= page.tilewidth <= LARGEST_EDGE
    )


def _page_of(
    level: Level, pages: list[tifffile.TiffPage], *, padded: bool
) -> tifffile.TiffPage | None:
    """The first page of a level's size; a `padded` one has whole tiles."""
    for page in pages:
        width, height = level.width, level.height
        if padded:
            width += -width % page.tilewidth
            height += -height % page.tilelength
        if (page.imagewidth, page.imagelength) == (width, height):
            return page
    return None


def _array(
    page: tifffile.TiffPage, code: int, values: tuple[int, ...]
) -> _Array | None:
    """The file's array of a tag; None where it is no array of numbers."""
    tag = page.tags.get(code)
    kind = None if tag is None else _NUMBERS.get(int(tag.dtype))
    if tag is None or kind is None or len(values) != tag.count:
        return None
    order = page.parent.byteorder
    return _Array(tag.valueoffset, tag.count, np.dtype(f"{order}{kind}"))


def _entry(block: tuple[Numbers, Numbers], at: int) -> tuple[int, int]:
    offset = block[0].item(at)
    # Philips leaves out tiles by an offset of 0.
    return offset, block[1].item(at) if offset else 0


def _read(descriptor: int, size: int, at: int) -> bytes:
    return os.pread(descriptor, size, at)
