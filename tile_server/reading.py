"""Reading a stored tile from its place in the file, with or without waiting.

A tile that the operating system still has in memory is there after a microsecond, on
the event loop; one that must come from the disk, or from another machine, is read in a
thread. Linux says which of both it is (`RWF_NOWAIT`); where a system or a file system
cannot say, every read counts as one that waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from tile_server import jpeg_streams
from tile_server.errors import DamagedTile

_NOT_WAITING = getattr(os, "RWF_NOWAIT", 0) if hasattr(os, "preadv") else 0
# A tile has some ten kilobytes; copying megabytes would hold up the loop.
_LONGEST_NOW = 2**20


class Place(NamedTuple):
    """Where a stored JPEG tile lies.

    `prefix` replaces the tile's first two bytes; `descriptor` is the reader's own.
    `unpack` takes the tile out of what its format wraps around it, where it does, and
    may raise DamagedTile.
    """

    descriptor: int
    offset: int
    length: int
    prefix: bytes
    unpack: Callable[[bytes | bytearray], bytes] | None = None


@runtime_checkable
class KnowsPlaces(Protocol):
    """A reader that can say where its JPEG tiles lie, without waiting."""

    def place(self, level: int, t_x: int, t_y: int) -> Place | None:
        """The tile's place, or None where there is none, or it takes waiting to say.

        Whoever may wait asks the reader for the tile itself.
        """


def read(place: Place) -> bytes | None:
    """The complete JPEG; may wait. None where there is none at the place."""
    tile = os.pread(place.descriptor, place.length, place.offset)
    return _complete(place, tile)


def read_now(place: Place) -> bytes | None:
    """The complete JPEG, or None where it takes waiting (or is none) to get it."""
    if place.length > _LONGEST_NOW:
        return None
    tile = read_bytes_now(place.descriptor, place.length, place.offset)
    return None if tile is None else _complete(place, tile)


def read_bytes_now(descriptor: int, length: int, offset: int) -> bytearray | None:
    """`length` bytes of a file, or None where it takes waiting to get them."""
    if not _NOT_WAITING:
        return None
    found = bytearray(length)
    try:
        count = os.preadv(descriptor, [found], offset, _NOT_WAITING)
    except OSError:
        # EAGAIN: not in memory. EOPNOTSUPP: this file system cannot say. Whatever else
        # it is, the read that waits meets it again and tells.
        return None
    return found if count == length else None


def _complete(place: Place, tile: bytes | bytearray) -> bytes | None:
    if len(tile) != place.length:
        return None
    if place.unpack is not None:
        try:
            tile = place.unpack(tile)
        except DamagedTile:
            return None
    if not jpeg_streams.starts_like_jpeg(tile):
        return None
    return jpeg_streams.complete(place.prefix, tile)
