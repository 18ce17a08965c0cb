"""Outlines of masks, and what of a polygon lies on a slide.

An outline runs along the edges of pixels, so its area is exactly that of the mask. Two
pieces that touch at a corner only are two polygons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from theatrum.node import BadValue, Image, Polygon
from theatrum.nodes.raster import Mask

# East, south, west, north: each next one is a turn to the right (y points down).
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))

Corners = list[tuple[int, int]]


def outlines(mask: Mask) -> list[Polygon]:
    """Return the pieces of a mask as polygons with their holes, in its own pixels.

    The largest comes first. Pieces are joined through edges, not corners.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(mask)
    exteriors: dict[int, Corners] = {}
    holes: dict[int, list[Corners]] = {number: [] for number in range(1, count + 1)}
    for piece, corners in _rings(mask, pieces):
        if _turns_right(corners):
            exteriors[piece] = corners
        else:
            holes[piece].append(corners)
    polygons = [Polygon(exteriors[piece], holes[piece]) for piece in exteriors]
    return sorted(polygons, key=lambda polygon: -polygon.area_px)


def simplified(polygon: Polygon, tolerance: float) -> Polygon:
    """Return a polygon with fewer corners, nowhere further off than `tolerance`.

    Douglas and Peucker 1973, as GEOS has it: rings do not come to cross each other.
    """
    import shapely

    shape = shapely.Polygon(polygon.exterior, polygon.holes)
    simple = shape.simplify(tolerance, preserve_topology=True)
    if simple.geom_type != "Polygon" or simple.is_empty or not simple.is_valid:
        return polygon  # such as one whose outline touches itself at a corner
    return _polygon(simple)


def on_slide(polygon: Polygon, image: Image) -> tuple[Polygon, ...]:
    """Return what of a person's polygon lies on the slide, as sound polygons.

    A line that crosses itself is taken as even-odd. Raises BadValue if nothing is left.
    """
    import shapely

    shape = shapely.make_valid(shapely.Polygon(polygon.exterior, polygon.holes))
    shape = shape.intersection(shapely.box(0, 0, image.width, image.height))
    parts = [_polygon(part) for part in _flat(shape) if part.area > 0]
    if not parts:
        raise BadValue("This polygon has no area on the slide: draw it anew.")
    return tuple(parts)


def _flat(shape: Any) -> list[Any]:
    # A collection of shapely's shapes can hold collections.
    import shapely

    if shape.geom_type == "Polygon":
        return [shape]
    if shape.geom_type in ("MultiPolygon", "GeometryCollection"):
        return [one for part in shapely.get_parts(shape) for one in _flat(part)]
    return []


def _polygon(shape: Any) -> Polygon:
    return Polygon(
        np.asarray(shape.exterior.coords),
        [np.asarray(ring.coords) for ring in shape.interiors],
    )


def _rings(
    mask: Mask, pieces: npt.NDArray[np.int32]
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Return all rings with the piece that they belong to, inside to their right."""
    leaving = _edges(mask, pieces)
    rings = []
    while leaving:
        start = next(iter(leaving))
        first, piece = next(iter(leaving[start].items()))
        corner, heading, corners = start, first, []
        while True:
            corner = corner[0] + _STEPS[heading][0], corner[1] + _STEPS[heading][1]
            following = _next(leaving[corner], heading)
            if following != heading:
                corners.append(corner)
            # The first edge is taken out last: it is what the ring ends with.
            del leaving[corner][following]
            if not leaving[corner]:
                del leaving[corner]
            if corner == start and following == first:
                break
            heading = following
        rings.append((piece, corners))
    return rings


def _next(edges: dict[int, int], heading: int) -> int:
    """Return the heading of the edge that goes on from a corner.

    To the right first: so two pieces that touch at the corner part there.
    """
    return next(
        turned for turn in (1, 0, 3) if (turned := (heading + turn) % 4) in edges
    )


def _edges(
    mask: Mask, pieces: npt.NDArray[np.int32]
) -> dict[tuple[int, int], dict[int, int]]:
    """Return corner -> heading -> piece of all edges with the mask at their right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    leaving: dict[tuple[int, int], dict[int, int]] = {}
    sides = (
        (inside & ~padded[:-2, 1:-1], (0, 0), 0),  # its upper side, eastwards
        (inside & ~padded[1:-1, 2:], (1, 0), 1),  # its right side, southwards
        (inside & ~padded[2:, 1:-1], (1, 1), 2),  # its lower side, westwards
        (inside & ~padded[1:-1, :-2], (0, 1), 3),  # its left side, northwards
    )
    for where, (dx, dy), heading in sides:
        y, x = np.nonzero(where)
        for corner_x, corner_y, piece in zip(
            (x + dx).tolist(), (y + dy).tolist(), pieces[y, x].tolist(), strict=True
        ):
            leaving.setdefault((corner_x, corner_y), {})[heading] = piece
    return leaving


def _turns_right(corners: list[tuple[int, int]]) -> bool:
    """Whether the inside of a ring is what it surrounds (y points down)."""
    x, y = np.array(corners, dtype=np.int64).T
    return bool(x @ np.roll(y, -1) - y @ np.roll(x, -1) > 0)
