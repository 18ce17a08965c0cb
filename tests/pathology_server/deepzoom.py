"""Deep Zoom addressing: which tiles a slide has on each level.

Planes: `l0` is the full slide, `level` pixels are those of one Deep Zoom level. Level
`max_level` is the full slide and each lower level halves it, down to one pixel. Tiles
do not overlap; the last column and row are smaller.

How the real server rounds a level's size is not public, so the pyramid knows both ways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Rounding = Literal["ceil", "floor"]

_FILE = re.compile(r"([0-9]{1,9})_([0-9]{1,9})(?:_([^.]+))?\.([A-Za-z0-9]+)")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of one level: corner and size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Pyramid:
    """The levels of a slide of `width` by `height` level-0 pixels."""

    width: int
    height: int
    tile_width: int = 256
    tile_height: int = 256
    rounding: Rounding = "ceil"

    @property
    def max_level(self) -> int:
        """The whole number not below log2 of the longer side, without a float."""
        return (max(self.width, self.height) - 1).bit_length()

    def downsample(self, level: int) -> int:
        return 1 << (self.max_level - level)

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a level, in its own pixels."""
        step = self.downsample(level)
        if self.rounding == "ceil":
            return -(-self.width // step), -(-self.height // step)
        return max(1, self.width // step), max(1, self.height // step)

    def grid(self, level: int) -> tuple[int, int]:
        """Columns and rows of a level."""
        width, height = self.size(level)
        return -(-width // self.tile_width), -(-height // self.tile_height)

    def box(self, level: int, column: int, row: int) -> Box | None:
        """Where a tile lies on its level, or None outside the grid."""
        if not 0 <= level <= self.max_level:
            return None
        columns, rows = self.grid(level)
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        width, height = self.size(level)
        x, y = column * self.tile_width, row * self.tile_height
        return Box(
            x, y, min(self.tile_width, width - x), min(self.tile_height, height - y)
        )


@dataclass(frozen=True)
class TileAddress:
    """A tile as its path names it."""

    slide_id: str
    level: int
    column: int
    row: int
    focal_plane: str | None
    extension: str


def parse_tile(folder: str, level: str, file: str) -> TileAddress | None:
    """Read `{slideId}_files`, `{level}` and `{col}_{row}[_{plane}].{ext}`.

    The slide's id may itself hold underscores, and `_files`: the last one counts.
    """
    slide_id, found, rest = folder.rpartition("_files")
    named = _FILE.fullmatch(file)
    if not found or rest or not slide_id or named is None:
        return None
    if not re.fullmatch(r"[0-9]{1,3}", level):
        return None
    column, row, plane, extension = named.groups()
    return TileAddress(slide_id, int(level), int(column), int(row), plane, extension)
