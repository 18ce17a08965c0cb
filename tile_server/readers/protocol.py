"""What a reader of slides answers.

Planes: `l0_` is a position in level-0 pixels, `l_` one in the pixels of a stored level,
`t_` the address of a tile in the grid of a stored level.

Everything here may be called from several threads at once; nothing knows about HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from tile_server.pixels import Colour, Pixels


@dataclass(frozen=True)
class Level:
    """One stored level.

    Attributes
    ----------
    width, height
        In the level's own pixels.
    tile_width, tile_height
        Of the grid in which `encoded_tile` and the pyramid address the level.
    encoded
        True where `encoded_tile` can give the file's own JPEG streams.
    absent_is_plain
        True where a tile that the file does not hold shows nothing at any level; else
        a finer level may hold what it shows.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    encoded: bool
    absent_is_plain: bool = False

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)


@dataclass(frozen=True)
class SlideFacts:
    """What the file says about itself.

    Attributes
    ----------
    format
        A short name of the format and its codec, for people.
    mpp_x, mpp_y
        Micrometres per level-0 pixel, or None where the file does not say.
    objective
        The objective's magnification, or None.
    background
        The colour of what was not scanned.
    associated
        Names of the associated images, label included.
    series
        An identity shared by all files of one slide of many files, else "".
    profile
        The ICC profile of the pixels as `icc.profile_of` gives it, or None.
    """

    format: str
    mpp_x: float | None
    mpp_y: float | None
    objective: float | None
    background: Colour
    associated: tuple[str, ...]
    series: str = ""
    profile: bytes | None = field(default=None, repr=False)


@runtime_checkable
class Reduces(Protocol):
    """A reader that can make pixels smaller while it decodes them."""

    def read_smaller(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], factor: int
    ) -> Pixels | None:
        """`size` pixels of a stored level, made `factor` (a power of 2) times smaller.

        The answer has as many pixels as whole and begun blocks of `factor`. None where
        this level has to be decoded in full. Raises DamagedTile.
        """


class Closes:
    """What `with` closes; the one thing that readers inherit."""

    def close(self) -> None:
        """Free what is held; called once."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Reader(Protocol):
    """One open slide; a context manager, closed once by its owner."""

    @property
    def path(self) -> Path: ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """Stored levels, full resolution first."""

    @property
    def facts(self) -> SlideFacts: ...

    @property
    def properties(self) -> Mapping[str, str]:
        """The file's own metadata as openslide names it."""

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:
        """A complete JPEG of a tile, or None where the file holds no such tile.

        Costs one read and no decoding. A tile at the right or bottom edge is full
        size and holds whatever the scanner wrote past the picture. Raises
        DamagedTile where the bytes are no JPEG.
        """

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        """The pixels of a rectangle of a stored level, (height, width, 3), RGB.

        What lies outside the level or was not scanned has the background colour.
        Raises DamagedTile.
        """

    def associated_image(self, name: str) -> Pixels:
        """An associated image, (height, width, 3), RGB; raises KeyError if absent."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
