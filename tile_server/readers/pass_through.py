"""The reader for TIFF slides whose JPEG tiles leave the file undecoded.

tifffile reads the structure once, at opening, and the TIFF object is closed. From then
on a tile is one `pread` on the reader's own descriptor (no shared file position, so no
lock) plus the level's JPEG prefix.

openslide stays the authority on which pages are levels, on the metadata and on every
level that is not stored as such tiles. Its handle takes more memory than all of ours,
so it is open only while it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import tifffile

from tile_server import codecs, jpeg_streams, reading
from tile_server.errors import DamagedTile
from tile_server.pixels import Pixels, plain
from tile_server.readers.chunks import paste
from tile_server.readers.protocol import Level, SlideFacts
from tile_server.readers.through_openslide import OpenSlideReader
from tile_server.readers.tiff_tables import PHILIPS, PLAIN_VENDORS, TileTable, tables
from tile_server.reading import Place

_APERIO = "aperio"
_VENDORS = PLAIN_VENDORS | {PHILIPS}
_COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
# A level's table, and what replaces the first two bytes of each of its tiles.
Stored = tuple[TileTable, bytes]


class PassThroughReader:
    """A slide with JPEG tiles that need no decoding; see `protocol.Reader`."""

    def __init__(
        self, slide: OpenSlideReader, fd: int, stored: Mapping[int, Stored]
    ) -> None:
        """Take over `slide` and the descriptor `fd`; both are closed with this.

        `stored` are the levels that pass through.
        """
        self._slide = slide
        self._fd = fd
        self._stored = dict(stored)
        # Aperio leaves single tiles out of coarse levels only: the finer have them.
        plain = slide.vendor != _APERIO
        self._levels = tuple(
            Level(
                level.width,
                level.height,
                stored[number][0].edge,
                stored[number][0].edge,
                encoded=True,
                absent_is_plain=plain,
            )
            if number in stored
            else level
            for number, level in enumerate(slide.levels)
        )
        self._facts = replace(slide.facts, format=f"{slide.facts.format}, JPEG")
        slide.set_aside()

    @classmethod
    def probe(cls, slide: OpenSlideReader) -> PassThroughReader | None:
        """A reader over the file of `slide`, or None where no tile passes through.

        The caller keeps `slide` in the second case. Raises UnreadableSlide where the
        file ends before its tiles do.
        """
        fd = os.open(slide.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            stored = tables(slide, fd, _VENDORS, partial(_prefix, fd))
        except BaseException:
            os.close(fd)
            raise
        if 0 not in stored:
            os.close(fd)
            return None
        return cls(slide, fd, stored)

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
        stored = self._stored.get(level)
        if stored is None:
            return None
        table, prefix = stored
        found = table.find_now(t_x, t_y)
        if found is None or not found[1]:
            return None
        return Place(self._fd, found[0], found[1], prefix)

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:
        stored = self._stored.get(level)
        if stored is None:
            return None
        table, prefix = stored
        offset, length = table.find(t_x, t_y)
        if not length:
            return None
        stream = reading.read(Place(self._fd, offset, length, prefix))
        if stream is None:
            raise DamagedTile(f"Tile {t_x}, {t_y} of stored level {level} is damaged.")
        return stream

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        if level not in self._stored:
            return self._slide.read(level, l_x, l_y, size)
        pixels = plain(*size, self._facts.background)
        shape = self._levels[level]

        def decoded(t_x: int, t_y: int) -> Pixels | None:
            stream = self.encoded_tile(level, t_x, t_y)
            if stream is None:
                return None
            return codecs.decode_jpeg(stream, size=(shape.tile_width,) * 2)

        paste(pixels, shape, (l_x, l_y), decoded)
        return pixels

    def associated_image(self, name: str) -> Pixels:
        return self._slide.associated_image(name)

    def close(self) -> None:
        for table, _ in self._stored.values():
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


def _prefix(
    fd: int, page: tifffile.TiffPage, table: TileTable, numbers: list[int]
) -> bytes | None:
    """The prefix of a level's tiles; None where a browser must not get them like that.

    Some tiles are asked; a damaged one says nothing of the others.
    """
    if page.compression != tifffile.COMPRESSION.JPEG or table.edge % 16:
        return None
    prefixes = set()
    for number in numbers:
        offset, length = table.find(number % table.columns, number // table.columns)
        tile = os.pread(fd, length, offset)
        if jpeg_streams.starts_like_jpeg(tile):
            prefixes.add(_prefix_for(page, tile))
    return prefixes.pop() if len(prefixes) == 1 else None


def _prefix_for(page: tifffile.TiffPage, tile: bytes) -> bytes | None:
    """The prefix as one tile asks for it.

    TIFF's photometric tag decides what the components are, and openslide obeys it.
    """
    photometric = page.photometric
    if page.samplesperpixel == 1:
        if photometric != tifffile.PHOTOMETRIC.MINISBLACK:
            return None
    elif page.samplesperpixel != 3 or photometric not in _COLOURS:
        return None
    declared = jpeg_streams.Declared(
        width=page.tilewidth,
        height=page.tilelength,
        components=page.samplesperpixel,
        rgb=photometric == tifffile.PHOTOMETRIC.RGB,
    )
    return jpeg_streams.passing_prefix(page.jpegtables, tile, declared)
