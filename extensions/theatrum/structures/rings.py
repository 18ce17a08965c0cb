"""Masks as rings of points, and back, without losing a pixel.

Everything is in the *image* plane: (x, y) = (column, row), where the centre of a pixel
has whole numbers and its edges lie at halves. A ring is (n, 2) without its first point
again. A pixel belongs to a set of rings when a ray from its centre crosses them an odd
number of times, so a ring within a ring is a hole.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def rings_of(mask: Mask) -> list[Array]:
    """The outlines of a (rows, columns) mask; each hole joined to its outer ring.

    The joint (keyhole) is what PS3.3, C.8.8.6.3 wants of closed planar contours. Drawn
    again with `mask_of` the rings give the mask exactly. The line runs half way
    between pixels inside and outside (marching squares, Lorensen and Cline 1987).
    """
    from shapely import Polygon
    from skimage.measure import find_contours

    if not mask.any():
        return []
    padded = np.pad(mask, 1).astype(np.float32)
    # (row, column) of the padded mask to (x, y), without the repeated last point.
    lines = [
        _without_straight(line[:-1, ::-1] - 1)
        for line in find_contours(padded, 0.5, fully_connected="low")
    ]
    polygons = sorted((Polygon(line) for line in lines), key=lambda one: -one.area)
    outer: list[tuple[Polygon, list[Polygon]]] = []
    for one in polygons:
        within = [pair for pair in outer if pair[0].contains(one)]
        inside = within[-1] if within else None
        if inside is not None and not any(hole.contains(one) for hole in inside[1]):
            inside[1].append(one)
        else:
            # Outermost, or an island within a hole.
            outer.append((one, []))
    return [_keyholed(one, holes) for one, holes in outer]


def mask_of(rings: Iterable[npt.ArrayLike], shape: tuple[int, int]) -> Mask:
    """The pixels whose centres lie within rings, as a (rows, columns) mask.

    A centre exactly on a line counts by the half-open rule: the left and the upper
    line belong to the inside.
    """
    rows, columns = shape
    parity = np.zeros((rows, columns + 1), dtype=np.uint8)
    for ring in rings:
        points = np.asarray(ring, dtype=float)
        if len(points) < 3:
            continue
        _toggle(parity, points, np.roll(points, -1, axis=0))
    inside = np.bitwise_xor.accumulate(parity[:, :columns], axis=1)
    mask: Mask = inside.astype(bool)
    return mask


def _toggle(parity: npt.NDArray[np.uint8], start: Array, end: Array) -> None:
    """Flip every row's parity from where each line crosses it."""
    rows, columns = parity.shape[0], parity.shape[1] - 1
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(low), 0, rows).astype(int)
    behind = np.clip(np.ceil(high), 0, rows).astype(int)
    counts = behind - first
    crossing = counts > 0
    if not crossing.any():
        return
    counts, first = counts[crossing], first[crossing]
    (x0, y0), (x1, y1) = start[crossing].T, end[crossing].T
    line = np.repeat(np.arange(len(counts)), counts)
    # 0, 1, ... within each line's own rows.
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row = first[line] + nth
    along = (row - y0[line]) / (y1[line] - y0[line])
    x = x0[line] + along * (x1[line] - x0[line])
    column = np.clip(np.ceil(x), 0, columns).astype(int)
    np.bitwise_xor.at(parity, (row, column), np.uint8(1))


def _without_straight(points: Array) -> Array:
    """A ring without points in the middle of a straight line."""
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    one, other = points - before, after - points
    bent = np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) > 1e-9
    return points[bent] if bent.sum() >= 3 else points


# shapely ships no types.
def _keyholed(polygon: object, holes: list[object]) -> Array:
    ring = _points(polygon)
    # From the right, so that no bridge crosses a hole that is still to come.
    for hole in sorted(
        (_points(one) for one in holes), key=lambda points: -points[:, 0].max()
    ):
        ring = _joined(ring, hole)
    return ring


def _joined(ring: Array, hole: Array) -> Array:
    """A ring with a hole cut in from its nearest point to the right."""
    tip = int(hole[:, 0].argmax())
    at = hole[tip]
    # Where a ray to the right meets the ring first: a bridge that crosses nothing.
    start, end = ring, np.roll(ring, -1, axis=0)
    spans = (start[:, 1] <= at[1]) != (end[:, 1] <= at[1])
    share = (at[1] - start[spans, 1]) / (end[spans, 1] - start[spans, 1])
    met = start[spans, 0] + share * (end[spans, 0] - start[spans, 0])
    lines = np.flatnonzero(spans)
    right = met >= at[0]
    line = int(lines[right][met[right].argmin()])
    foot = np.array([[met[right].min(), at[1]]])
    around = np.roll(hole, -tip, axis=0)
    return np.concatenate(
        [ring[: line + 1], foot, around, around[:1], foot, ring[line + 1 :]]
    )


def _points(polygon: object) -> Array:
    coords = polygon.exterior.coords  # type: ignore[attr-defined]
    points: Array = np.asarray(coords)[:-1]
    return points
