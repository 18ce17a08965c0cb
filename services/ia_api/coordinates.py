"""The two planes of a slide at this interface, and the only conversion between them.

Level-0 pixels: x to the right, y down, origin at the top-left corner. Normalised: the
same, with BOTH axes divided by the slide's width, so that the lower edge of a slide
lies at height / width and a portrait slide has y above 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Point = tuple[float, float]


def normalised(points: Iterable[Point], width: int) -> list[dict[str, float]]:
    """Return level-0 pixels as the `{"x", "y"}` of the interface."""
    return [{"x": x / width, "y": y / width} for x, y in points]


def level0(points: Iterable[Mapping[str, Any]], width: int) -> list[Point]:
    """Return the interface's points as level-0 pixels (x, y)."""
    return [(float(at["x"]) * width, float(at["y"]) * width) for at in points]


def outline(width: int, height: int) -> list[dict[str, float]]:
    """Return the four corners of the whole slide, normalised."""
    return normalised([(0, 0), (width, 0), (width, height), (0, height)], width)
