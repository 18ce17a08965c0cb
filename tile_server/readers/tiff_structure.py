"""The directories of a TIFF, without their values: is it complete, what is it called?

A file that was cut off often keeps its first picture; what it said about that picture
(how many channels, how large a pixel) may lie past the end, and would silently be lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import tifffile

from tile_server.errors import UnreadableSlide

# Bytes of a value, by its type's number (TIFF 6.0 section 2, and BigTIFF's 13 to 18).
_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8), 1))
_MOST_DIRECTORIES = 2**17
# StripOffsets, StripByteCounts, TileOffsets, TileByteCounts.
_TABLES = (273, 279, 324, 325)
_IMAGE_DESCRIPTION = 270

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def refuse_cut(path: Path) -> None:
    """Raise UnreadableSlide where a directory or a value lies past the file's end."""
    end = path.stat().st_size
    try:
        with path.open("rb") as file:
            cut = _reaches(file) > end
    except struct.error:
        cut = True
    if cut:
        raise UnreadableSlide(
            f"{path.name} is cut off: parts of its description lie past the end of the "
            "file. Copy it again."
        )


def first_description(file: BinaryIO, most_bytes: int) -> str:
    """The description of the first page, "" where it has none or a longer one."""
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(order + "H", start, 2)[0] == 43
        count, entry, offset = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
        room = struct.calcsize(offset)
        (at,) = struct.unpack_from(order + offset, start, 8 if big else 4)
        file.seek(at)
        size = struct.calcsize(order + count)
        (entries,) = struct.unpack(order + count, file.read(size))
        table = file.read(min(entries, 2**16) * struct.calcsize(order + entry))
        for tag, kind, number, value in struct.iter_unpack(order + entry, table):
            length = number * _SIZES.get(kind, 0)
            if tag != _IMAGE_DESCRIPTION or not room < length <= most_bytes:
                continue
            file.seek(value)
            text = file.read(length)
            return text.split(b"\0")[0].decode("utf-8", "replace")
    except (struct.error, OverflowError, OSError):
        return ""
    return ""


def forget_tables(pages: Iterable[tifffile.TiffPage]) -> None:
    """Free what tifffile has read of where the tiles of `pages` lie.

    That is ten megabytes for a large slide, in objects that refer to each other in
    circles, and so stay until Python looks for such.
    """
    for page in pages:
        page.dataoffsets = page.databytecounts = ()
        for code in _TABLES:
            tag = page.tags.get(code)
            if tag is not None:
                tag.value = ()


def _reaches(file: BinaryIO) -> int:
    """The end of what lies farthest back; struct.error where a directory is cut."""
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", start, 2)[0] == 43
    count, entry, offset = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    room = struct.calcsize(offset)
    (at,) = struct.unpack_from(order + offset, start, 8 if big else 4)
    farthest = 0
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(at)
        file.seek(at)
        (entries,) = struct.unpack(
            order + count, file.read(struct.calcsize(order + count))
        )
        size = struct.calcsize(order + entry)
        table = file.read(min(entries, 2**16) * size)
        if len(table) != entries * size:
            raise struct.error("cut off")
        for _, kind, number, value in struct.iter_unpack(order + entry, table):
            length = number * _SIZES.get(kind, 0)
            if length > room:
                farthest = max(farthest, value + length)
        (at,) = struct.unpack(order + offset, file.read(room))
    return farthest
