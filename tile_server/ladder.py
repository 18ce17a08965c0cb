"""The ladder: the levels a map asks for, each exactly half of the one before.

A map knows one number, the zoom; a slide has whatever levels its scanner stored. The
ladder has rungs k = 0, 1, ... n: rung k is 2**k times smaller than the slide, and n is
the first at which the whole slide fits one tile. In a tile's address z = n - k, so that
z = n is full resolution. All rungs share one square tile size, the grid.

A stored level serves a rung when its size is within one pixel of the rung's: then no
pixel of it is drawn more than one pixel of that rung from its true place. Rungs that no
stored level serves are composed from a finer one.

Planes: `l0_` level 0, `r_` pixels of a rung, `t_` tiles of a rung.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tile_server.errors import OutsideTheGrid
from tile_server.readers.protocol import Level


@dataclass(frozen=True)
class Rung:
    """One level of the ladder.

    Attributes
    ----------
    k
        The rung is 2**k times smaller than level 0.
    width, height
        In the rung's own pixels, rounded up.
    columns, rows
        Of its tile grid.
    level
        The stored level with these pixels, or None where they must be composed.
    stored
        True where the stored level's own tiles are the rung's tiles.
    """

    k: int
    width: int
    height: int
    columns: int
    rows: int
    level: int | None
    stored: bool

    @property
    def downsample(self) -> int:
        return 1 << self.k


@dataclass(frozen=True)
class Ladder:
    """All rungs of a slide, full resolution first, and the tile size they share."""

    tile: int
    rungs: tuple[Rung, ...]

    @property
    def n(self) -> int:
        return len(self.rungs) - 1

    def z(self, rung: Rung) -> int:
        """The z of a rung in a tile's address."""
        return self.n - rung.k

    def rung(self, z: int) -> Rung:
        """The rung of a z; raises OutsideTheGrid."""
        if not 0 <= z <= self.n:
            raise OutsideTheGrid(f"There is no z {z}; this slide has 0 to {self.n}.")
        return self.rungs[self.n - z]

    def tile_rung(self, z: int, t_x: int, t_y: int) -> Rung:
        """The rung of a tile's address; raises OutsideTheGrid where it has no tile."""
        rung = self.rung(z)
        if not (0 <= t_x < rung.columns and 0 <= t_y < rung.rows):
            raise OutsideTheGrid(
                f"There is no tile {t_x}, {t_y} at z {z}; its grid has "
                f"{rung.columns} columns and {rung.rows} rows."
            )
        return rung

    def base(self, rung: Rung) -> Rung:
        """The nearest finer rung that is in the file."""
        return next(
            finer for finer in reversed(self.rungs[: rung.k]) if finer.level is not None
        )

    def source(self, rung: Rung, longest: int) -> Rung:
        """The finer rung to compose `rung` from, at most 2**longest times finer.

        That is its base or, where that is too far, a composed rung a whole number of
        `longest` steps above it, so that few composed rungs serve many.
        """
        base = self.base(rung)
        steps = (rung.k - base.k - 1) // longest
        return self.rungs[base.k + steps * longest]


def build(levels: Sequence[Level]) -> Ladder:
    """The ladder of a slide's stored levels (full resolution first).

    The grid is the tile size of level 0, which must be square.
    """
    full = levels[0]
    tile = full.tile_width
    rungs: list[Rung] = []
    k = 0
    while True:
        width, height = -(-full.width >> k), -(-full.height >> k)
        level = _serving(levels, k)
        stored = level is not None and (
            levels[level].tile_width == levels[level].tile_height == tile
        )
        columns, rows = -(-width // tile), -(-height // tile)
        rungs.append(Rung(k, width, height, columns, rows, level, stored))
        if columns == rows == 1:
            return Ladder(tile, tuple(rungs))
        k += 1


def _serving(levels: Sequence[Level], k: int) -> int | None:
    """The stored level whose size is within one pixel of the rung's, if any."""
    width, height = levels[0].width / 2**k, levels[0].height / 2**k
    for number, level in enumerate(levels):
        if abs(level.width - width) <= 1 and abs(level.height - height) <= 1:
            return number
    return None
