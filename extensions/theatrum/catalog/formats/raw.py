"""Numbers that lie in a file one after another, x fastest: NIfTI, MGH, NRRD, MetaImage.

Only the bytes that are wanted are read: neighbouring planes in one piece, and a small
part of wide rows row by row. A compressed file cannot be read from its middle, so it is
unpacked once into a folder of this account's own.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import File, Numbers, Ranges
from tile_server.errors import UnreadableSlide
from tile_server.readers.imports import Imports

UNPACKED_BYTES = 16 * 2**30
"""Of one file. A larger one should be stored uncompressed or as OME-Zarr."""
_STEP = 2**20
_NARROW = 4
"""Rows are read whole where more than one part in so many of them is wanted."""


@dataclass(frozen=True)
class RawVolume:
    """An opener of numbers in C order.

    Attributes
    ----------
    file
        Plain, or packed as `packing` says.
    packing
        "", "gzip", "bzip2" or "zlib".
    packed_from
        Where the packed stream begins; `offset` then counts in what it unpacks to.
    shape
        Slowest first, x last.
    stored
        numpy's name of the type, with its byte order.
    slope, intercept
        From stored numbers to those that are meant; (1, 0) leaves them as they are.
    """

    file: File
    offset: int
    shape: tuple[int, ...]
    stored: str
    slope: float = 1.0
    intercept: float = 0.0
    packing: str = ""
    packed_from: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers that are given: floats where they are scaled."""
        plain = np.dtype(self.stored)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return plain.newbyteorder("=")
        return np.dtype(np.float32 if plain.itemsize <= 2 else np.float64)

    @property
    def end(self) -> int:
        """The first byte after the numbers."""
        count = 1
        for one in self.shape:
            count *= one
        return self.offset + count * np.dtype(self.stored).itemsize

    def open(self) -> _OpenRaw:
        path = self.file.checked()
        if self.packing:
            path = unpacked(path, self.packing, self.packed_from, self.end)
        return _OpenRaw(self, path, self.file.path.name)


class _OpenRaw:
    serial = False

    def __init__(self, volume: RawVolume, path: Path, name: str) -> None:
        self._volume = volume
        self._name = name
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        if os.fstat(self._fd).st_size < volume.end:
            os.close(self._fd)
            raise Damaged(f"{name} is cut off. Copy it again.")

    def read(self, ranges: Ranges) -> Numbers:
        volume = self._volume
        dtype = np.dtype(volume.stored)
        wanted = tuple(one.stop - one.start for one in ranges)
        row = volume.shape[-1]
        cut = ranges[-1]
        if wanted[-1] * _NARROW > row:
            # One read for whole rows is quicker than one for each row's part.
            ranges = (*ranges[:-1], slice(0, row))
        room = np.empty([one.stop - one.start for one in ranges], dtype)
        flat = room.reshape(-1)
        at = 0
        for start, count in _runs(ranges, volume.shape):
            content = self._bytes(
                volume.offset + start * dtype.itemsize, count * dtype.itemsize
            )
            flat[at : at + count] = np.frombuffer(content, dtype)
            at += count
        if room.shape != wanted:
            room = room[..., cut]
        if (volume.slope, volume.intercept) == (1.0, 0.0):
            return room.astype(volume.dtype, copy=False)
        scaled = room.astype(np.float64) * volume.slope + volume.intercept
        return np.asarray(scaled.astype(volume.dtype))

    def close(self) -> None:
        os.close(self._fd)

    def _bytes(self, start: int, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.pread(self._fd, min(length, 2**30), start)
            if not piece:
                raise Damaged(f"{self._name} is cut off. Copy it again.")
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _runs(ranges: Ranges, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Where the wanted numbers lie: runs of neighbours, each its start and length."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    inner = len(shape) - 1
    while inner > 0 and ranges[inner] == slice(0, shape[inner]):
        inner -= 1
    length = (ranges[inner].stop - ranges[inner].start) * strides[inner]
    first = ranges[inner].start * strides[inner]
    outer = [range(one.start, one.stop) for one in ranges[:inner]]
    for place in itertools.product(*outer):
        at = sum(one * stride for one, stride in zip(place, strides, strict=False))
        yield first + at, length


def cache_folder() -> Path:
    """The folder of unpacked copies: of this account, and closed to others."""
    wanted = os.environ.get("XDG_CACHE_HOME")
    base = Path(wanted) if wanted else Path.home() / ".cache"
    if not os.access(base if base.exists() else base.parent, os.W_OK):
        base = Path(tempfile.gettempdir()) / f"theatrum-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            raise PermissionError(f"{base} belongs to somebody else")
    return base / "theatrum" / "unpacked"


def unpacked(path: Path, packing: str, start: int, end: int) -> Path:
    """A copy of what `path` unpacks to, made once; raises Damaged.

    `start` is where the packed stream begins. A stream that does not end after `end`
    bytes is cut there: a small file may unpack to more than any disk holds.
    """
    if end > UNPACKED_BYTES:
        raise Damaged(
            f"{path.name} is {end} bytes when unpacked, more than is taken in; store "
            "it uncompressed or as OME-Zarr."
        )

    def make(to: Path) -> None:
        with path.open("rb") as file, to.open("wb") as copy:
            file.seek(start)
            left = end
            for block in _blocks(file, packing):
                copy.write(block[:left])
                left -= len(block)
                if left <= 0:
                    return
        raise Damaged(f"{path.name} is cut off within its compressed data.")

    try:
        suffix = f".{packing}-{start}-{end}"
        return Imports(cache_folder()).copy(path, suffix, make)
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        raise Damaged(
            f"{path.name} is damaged within its compressed data. Copy it again."
        ) from error
    except UnreadableSlide as error:
        raise Damaged(str(error)) from error


def _blocks(file: IO[bytes], packing: str) -> Iterator[bytes]:
    if packing == "zlib":
        machine = zlib.decompressobj()
        while piece := file.read(_STEP):
            rest = piece
            while rest:
                yield machine.decompress(rest, 4 * _STEP)
                rest = machine.unconsumed_tail
        yield machine.flush()
        return
    with (
        bz2.BZ2File(file) if packing == "bzip2" else gzip.GzipFile(fileobj=file) as (
            stream
        )
    ):
        while block := stream.read(_STEP):
            yield block
