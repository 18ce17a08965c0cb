"""Tiles and strips of TIFF pages: tifffile's structure, one `pread`, one decode.

The pages' tables are read once, at opening; after that a segment costs one read on the
reader's own descriptor, so threads share it without a lock.

Planes: `t_` segments of a page (a strip is a segment as wide as the page).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers.chunks import LONGEST_CHUNK, ChunkCache, paste
from tile_server.readers.protocol import Level

Page = tifffile.TiffPage | tifffile.TiffFrame
Array = npt.NDArray[Any]

# What tifffile and the codecs raise at bytes that are no such segment.
DECODE_ERRORS = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    # ElementTree's ParseError is one.
    SyntaxError,
    struct.error,
    tifffile.TiffFileError,
    zlib.error,
    imagecodecs.DelayedImportError,
)


@dataclass(frozen=True)
class _Table:
    """Where one page's segments lie, in the file of that descriptor."""

    fd: int
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint64]
    # Anything decodable by `decode`; one object serves all pages of a level.
    keyframe: tifffile.TiffPage
    tables: bytes | None


class TiffSegments:
    """The segments of a pyramid: for each level one page for each plane."""

    def __init__(
        self, path: Path, levels: Sequence[Sequence[Page]], chunks: ChunkCache
    ) -> None:
        """Read the tables of `levels`, whose file must still be open, and open `path`.

        Pages may lie in several files, all of which are opened.

        Raises UnreadableSlide for segments past the end of the file, of more bytes than
        `LONGEST_CHUNK`, or of a compression that cannot be read.
        """
        self._name = path.name
        self._chunks = chunks
        self._owner = chunks.owner()
        self._fds: dict[str, int] = {}
        try:
            self.levels = tuple(_level(_keyframe(pages[0])) for pages in levels)
            self._tables = tuple(
                tuple(self._table(page, level) for page in pages)
                for pages, level in zip(levels, self.levels, strict=True)
            )
        except BaseException:
            self.close()
            raise

    def segment(
        self, level: int, page: int, sample: int, t_x: int, t_y: int
    ) -> Array | None:
        """One segment's (height, width) of one sample; None where the file has none.

        Raises DamagedTile.
        """
        every = self.samples(level, page, t_x, t_y, sample)
        if every is None or every.shape[2] == 1:
            return None if every is None else every[:, :, 0]
        return every[:, :, sample]

    def samples(
        self, level: int, page: int, t_x: int, t_y: int, sample: int = 0
    ) -> Array | None:
        """One segment, (height, width, samples); raises DamagedTile.

        Where the file keeps samples apart only `sample` is in it.
        """
        table = self._tables[level][page]
        shape = self.levels[level]
        number = t_y * shape.columns + t_x
        if table.keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            number += sample * shape.columns * shape.rows
        return self._chunks.chunk(
            self._owner, (level, page, number), lambda: self._decode(table, number)
        )

    @property
    def pages(self) -> int:
        """How many pages each level has."""
        return len(self._tables[0])

    @property
    def samples_per_pixel(self) -> int:
        return self._tables[0][0].keyframe.samplesperpixel

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numbers' type, in native byte order."""
        return np.dtype(self._tables[0][0].keyframe.dtype).newbyteorder("=")

    def plane(self, page: int, sample: int) -> Array:
        """One sample of a whole page of level 0, (height, width)."""
        level = self.levels[0]
        whole = np.zeros((level.height, level.width), self.dtype)
        paste(
            whole,
            level,
            (0, 0),
            lambda t_x, t_y: self.segment(0, page, sample, t_x, t_y),
        )
        return whole

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
        self._chunks.forget(self._owner)

    def _descriptor(self, path: str) -> int:
        """The descriptor of a file, opened once."""
        if path not in self._fds:
            flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
            self._fds[path] = os.open(path, flags)
        return self._fds[path]

    def _decode(self, table: _Table, number: int) -> Array | None:
        length = int(table.lengths[number])
        if length == 0:
            return None
        stored = os.pread(table.fd, length, int(table.offsets[number]))
        where = f"Segment {number} of {self._name}"
        if len(stored) != length:
            raise DamagedTile(f"{where} is cut off.")
        page = table.keyframe
        try:
            decoded, _, _ = page.decode(stored, number, jpegtables=table.tables)
        except DECODE_ERRORS as error:
            raise DamagedTile(f"{where} cannot be decoded.") from error
        if decoded is None:
            return None
        segment = decoded[0]
        return np.ascontiguousarray(segment, segment.dtype.newbyteorder("="))

    def _table(self, page: Page, level: Level) -> _Table:
        keyframe = _keyframe(page)
        fd = self._descriptor(page.parent.filehandle.path)
        file_bytes = os.fstat(fd).st_size
        offsets = np.asarray(page.dataoffsets, np.uint64)
        lengths = np.asarray(page.databytecounts, np.uint64)
        shape = _level(keyframe)
        if shape != level:
            raise UnreadableSlide(f"{self._name} has planes of different sizes.")
        apart = keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        planes = keyframe.samplesperpixel if apart else 1
        if not len(offsets) == len(lengths) == shape.columns * shape.rows * planes:
            raise UnreadableSlide(f"{self._name} has a wrong table of its tiles.")
        together = 1 if apart else keyframe.samplesperpixel
        pixels = shape.tile_width * shape.tile_height * together
        most = pixels * max(keyframe.bitspersample // 8, 1)
        if max(most, int(lengths.max(initial=0))) > LONGEST_CHUNK:
            raise UnreadableSlide(
                f"{self._name} is one piece of {most} bytes or more; write it as a "
                "tiled TIFF."
            )
        # Compared without adding, which could overflow for a hostile header.
        room = np.where(offsets <= file_bytes, np.uint64(file_bytes) - offsets, 0)
        cut = int(np.count_nonzero((lengths > room) & (lengths > 0)))
        if cut:
            raise UnreadableSlide(
                f"{self._name} is cut off: {cut} of the {len(offsets)} tiles of one "
                "plane lie past the end of the file. Copy it again."
            )
        try:
            keyframe.decode  # noqa: B018 - builds the decoder while the file is open
            tables = page.jpegtables
        except DECODE_ERRORS as error:
            raise UnreadableSlide(
                f"{self._name} uses a compression that cannot be read here."
            ) from error
        return _Table(fd, offsets, lengths, keyframe, tables)


def _keyframe(page: Page) -> tifffile.TiffPage:
    """The page whose structure `page` shares."""
    keyframe = page.keyframe
    if keyframe is None:
        raise UnreadableSlide("A page of this TIFF has no structure.")
    return keyframe


def _level(page: tifffile.TiffPage) -> Level:
    if page.is_tiled:
        across, down = page.tilewidth, page.tilelength
    else:
        across, down = page.imagewidth, min(page.rowsperstrip, page.imagelength)
    if min(page.imagewidth, page.imagelength, across, down) < 1 or page.imagedepth > 1:
        raise UnreadableSlide("A page of this TIFF has no flat picture.")
    return Level(page.imagewidth, page.imagelength, across, down, encoded=False)
