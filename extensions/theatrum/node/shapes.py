"""Polygons and lines on a slide.

Plane: level-0 pixels of the full slide, x to the right, y down, corners of pixels at
whole numbers. A ring is stored open: its first corner is not repeated at its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from theatrum.node.errors import BadValue

Ring = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Polygon:
    """An area of a slide, with holes or without; its arrays cannot be written to.

    Attributes
    ----------
    exterior
        (n, 2) level-0 pixels, n >= 3; a repeated last corner is dropped.
    holes
        Rings like it, inside of it.

    Raises BadValue for fewer than three corners and for numbers that are not finite.
    """

    exterior: Ring
    holes: tuple[Ring, ...] = ()

    def __init__(
        self, exterior: npt.ArrayLike, holes: Sequence[npt.ArrayLike] = ()
    ) -> None:
        object.__setattr__(self, "exterior", ring(exterior))
        object.__setattr__(self, "holes", tuple(ring(hole) for hole in holes))

    @property
    def area_px(self) -> float:
        """Area in level-0 pixels, without the holes."""
        return abs(_signed_area(self.exterior)) - sum(
            abs(_signed_area(hole)) for hole in self.holes
        )

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The smallest upright rectangle around it: left, top, right, bottom."""
        left, top = self.exterior.min(axis=0)
        right, bottom = self.exterior.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def perimeter(self, unit_x: float = 1.0, unit_y: float = 1.0) -> float:
        """Return the length of all its rings; a pixel is `unit_x` by `unit_y`."""
        return sum(
            _length(one * (unit_x, unit_y)) for one in (self.exterior, *self.holes)
        )

    def to_geojson(self) -> dict[str, Any]:
        """Return the GeoJSON geometry (RFC 7946 3.1.6: closed rings), in pixels."""
        rings = [[*one.tolist(), one[0].tolist()] for one in self._rings()]
        return {"type": "Polygon", "coordinates": rings}

    @classmethod
    def from_geojson(cls, shape: Mapping[str, Any]) -> Polygon:
        """Return the polygon of a GeoJSON geometry or feature, in level-0 pixels."""
        geometry = shape.get("geometry", shape)
        if not isinstance(geometry, Mapping) or geometry.get("type") != "Polygon":
            raise BadValue("Give a GeoJSON Polygon, or a feature that holds one.")
        rings = geometry["coordinates"]
        return cls(rings[0], rings[1:])

    def _rings(self) -> tuple[Ring, ...]:
        return (self.exterior, *self.holes)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same corners in the same order."""
        if not isinstance(other, Polygon):
            return NotImplemented
        ours, theirs = self._rings(), other._rings()
        return len(ours) == len(theirs) and all(
            np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)
        )

    def __hash__(self) -> int:
        return hash(tuple(one.tobytes() for one in self._rings()))

    def __reduce__(self) -> tuple[type[Polygon], tuple[Ring, tuple[Ring, ...]]]:
        return Polygon, (self.exterior, self.holes)


@dataclass(frozen=True, eq=False)
class Line:
    """A path from corner to corner, in pixels of the image's full resolution.

    Attributes
    ----------
    points
        (n, 2) level-0 pixels x and y, n >= 2; centres of pixels are whole numbers, as
        they are the indices of the array.

    Raises BadValue for fewer than two points and for numbers that are not finite.
    """

    points: Ring

    def __init__(self, points: npt.ArrayLike) -> None:
        try:
            found = np.array(points, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise BadValue(f"These points are no numbers ({error}).") from error
        if found.ndim != 2 or found.shape[1] != 2 or len(found) < 2:
            raise BadValue("Give a line as (n, 2) numbers, two points or more.")
        if not np.isfinite(found).all():
            raise BadValue("A point of this line is not a finite number.")
        found.flags.writeable = False
        object.__setattr__(self, "points", found)

    def length(self, unit_x: float = 1.0, unit_y: float = 1.0) -> float:
        """Return its length; a pixel is `unit_x` by `unit_y`."""
        steps = np.diff(self.points, axis=0) * (unit_x, unit_y)
        return float(np.hypot(steps[:, 0], steps[:, 1]).sum())

    def to_geojson(self) -> dict[str, Any]:
        """Return the GeoJSON geometry, in pixels."""
        return {"type": "LineString", "coordinates": self.points.tolist()}

    def __eq__(self, other: object) -> bool:
        """Whether both go through the same points."""
        if not isinstance(other, Line):
            return NotImplemented
        return np.array_equal(self.points, other.points)

    def __hash__(self) -> int:
        return hash(self.points.tobytes())

    def __reduce__(self) -> tuple[type[Line], tuple[Ring]]:
        return Line, (self.points,)


def polygons_of(marks: Mapping[str, Any]) -> tuple[Polygon, ...]:
    """Return the polygons of a GeoJSON FeatureCollection, such as `viewer.marks`."""
    return tuple(
        Polygon.from_geojson(feature)
        for feature in marks.get("features", ())
        if (feature.get("geometry") or {}).get("type") == "Polygon"
    )


def ring(corners: npt.ArrayLike) -> Ring:
    """Return corners as an open ring that cannot be written to; raises BadValue."""
    try:
        points = np.array(corners, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadValue(f"These corners are no numbers ({error}).") from error
    if points.ndim != 2 or points.shape[1] != 2:
        raise BadValue("Give corners as (n, 2) numbers: x and y of each.")
    if not np.isfinite(points).all():
        raise BadValue("A corner of this polygon is not a finite number.")
    if len(points) > 1 and np.array_equal(points[0], points[-1]):
        points = points[:-1]
    if len(points) < 3:
        raise BadValue("A polygon needs at least three corners.")
    points.flags.writeable = False
    return points


def _signed_area(points: Ring) -> float:
    x, y = (points - points[0]).T  # near the origin: large coordinates cost digits
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _length(points: Ring) -> float:
    steps = np.roll(points, -1, axis=0) - points
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())
