"""Reading ahead: the tiles of a view are asked of the disk together.

A browser asks for a view tile by tile. Where they come from a disk, and more so from
another machine, each waits for its own way there and back; told beforehand, the system
fetches whole rows at once (`POSIX_FADV_WILLNEED`), and most tiles are in memory when
they are asked for. Tiles asked for here and there, by nobody who looks at a view, are
not worth it: so it takes two neighbours that were not in memory.

Planes: `t_` tiles of a stored level.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable

from tile_server.reading import KnowsPlaces, Place

# Around a tile: about what a screen shows of tiles of 256 pixels, seen from its middle.
_ACROSS, _DOWN = 4, 2
# As far apart are tiles that a browser asks for at the same time.
_NEAR_ACROSS, _NEAR_DOWN = 2, 1
_REMEMBERED = 64
# Tiles of other rows or levels between two of ours are cheaper read than left out.
_WIDEST_GAP = 2**16
_WILL_NEED = getattr(os, "POSIX_FADV_WILLNEED", None)

Spot = tuple[int, int, int]


class Ahead:
    """What was lately not in memory, of one slide; several threads may call it."""

    def __init__(self, places: KnowsPlaces) -> None:
        """Ask for tiles where `places` says that they lie."""
        self._places = places
        self._cold: deque[Spot] = deque(maxlen=_REMEMBERED)
        self._asked: deque[Spot] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def cold(self, level: int, t_x: int, t_y: int, grid: tuple[int, int]) -> None:
        """Note a tile that was not in memory, and ask for the view that it is part of.

        `grid` is the level's number of columns and rows.
        """
        spot = level, t_x, t_y
        with self._lock:
            in_view = _is_near(spot, self._cold) and not _is_near(spot, self._asked)
            self._cold.append(spot)
            if in_view:
                self._asked.append(spot)
        if in_view:
            columns, rows = grid
            self.ask(
                level,
                range(max(t_x - _ACROSS, 0), min(t_x + _ACROSS + 1, columns)),
                range(max(t_y - _DOWN, 0), min(t_y + _DOWN + 1, rows)),
            )

    def ask(self, level: int, columns: Iterable[int], rows: Iterable[int]) -> None:
        """Let the system fetch these tiles, without waiting for them."""
        if _WILL_NEED is None:
            return
        for t_y in rows:
            found = (self._places.place(level, t_x, t_y) for t_x in columns)
            for descriptor, start, end in _joined(one for one in found if one):
                os.posix_fadvise(descriptor, start, end - start, _WILL_NEED)


def _is_near(spot: Spot, others: Iterable[Spot]) -> bool:
    level, t_x, t_y = spot
    return any(
        level == other[0]
        and abs(t_x - other[1]) <= _NEAR_ACROSS
        and abs(t_y - other[2]) <= _NEAR_DOWN
        for other in others
    )


def _joined(places: Iterable[Place]) -> list[tuple[int, int, int]]:
    """Descriptor, start and end of what lies together."""
    found: list[tuple[int, int, int]] = []
    for place in places:
        start, end = place.offset, place.offset + place.length
        if found:
            descriptor, first, last = found[-1]
            if descriptor == place.descriptor and 0 <= start - last <= _WIDEST_GAP:
                found[-1] = descriptor, first, end
                continue
        found.append((place.descriptor, start, end))
    return found
