"""Regions on a slide, as shapely geometries in level-0 pixels.

A teacher's region must be right as it stands: what is wrong with it raises
`BadReference`. A student's outline is taken as it was meant: where it crosses itself,
all that it goes round counts as inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import Polygon, shape
from shapely.validation import explain_validity

from theatrum.quiz.answers import Position
from theatrum.quiz.errors import BadReference, UnusableAnswer

MAX_CROSSINGS = 1000
"""Repair takes a second for a hundred thousand crossings; a hand draws some dozens."""

_NO_REGION = "Your outline cannot be used as a region; draw it again."

# shapely ships no types: a Polygon or MultiPolygon that is valid and not empty.
Region = Any

# A polygon as a reference names it: its corners, or GeoJSON as `viewer.marks` gives.
Shape = Sequence[Sequence[float]] | Mapping[str, Any]


def reference_region(polygon: Shape) -> Region:
    """Return the region that a reference names.

    Parameters
    ----------
    polygon
        The corners `[(x, y), ...]` in level-0 pixels, or GeoJSON in level-0 pixels:
        a Polygon, a MultiPolygon, a Feature of one, or a FeatureCollection of them,
        whose union counts (`viewer.marks` is such a collection).

    Raises
    ------
    BadReference
        It encloses nothing, crosses itself, or is no polygon.
    """
    try:
        parts = [_polygon(part) for part in _parts(polygon)]
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise BadReference(
            "The reference polygon must be a list of at least three corners "
            "[(x, y), ...] in level-0 pixels, or GeoJSON of polygons, as "
            "viewer.marks gives it."
        ) from error
    if not parts:
        raise BadReference("The reference polygon is empty: it has no corners.")
    for part in parts:
        if not all(math.isfinite(edge) for edge in part.bounds) or part.area == 0:
            raise BadReference("The reference polygon is empty: it encloses no area.")
        if not part.is_valid:
            raise BadReference(
                f"The reference polygon is not valid: {explain_validity(part)} "
                "(level-0 pixels). Draw it again without crossing lines."
            )
    return shapely.union_all(parts)


def outline_region(corners: Sequence[Position]) -> Region:
    """Return the region that a student's outline goes round, repaired where needed.

    Raises `UnusableAnswer` where it encloses no area or crosses itself without end.
    """
    try:
        outline = Polygon(corners)
        if outline.is_valid:
            region = outline
        elif _crosses_often(outline):
            raise UnusableAnswer(
                f"Your outline crosses itself more than {MAX_CROSSINGS} times; draw it "
                "again as one simple line around the region."
            )
        else:
            # "structure" keeps what a line goes round twice; the default would make a
            # hole of it, where a hand overshoots its own start.
            repaired = shapely.make_valid(
                outline, method="structure", keep_collapsed=False
            )
            region = _polygonal(repaired)
    except ShapelyError as error:
        raise UnusableAnswer(_NO_REGION) from error
    if region.area <= 0:
        raise UnusableAnswer("Your outline encloses no area.")
    return region


def crosses_itself(corners: Sequence[Position]) -> bool:
    """Say whether the line around these corners crosses or touches itself."""
    return not Polygon(corners).is_valid


def overlap(first: Region, second: Region) -> float:
    """Return intersection over union of two regions, 0 to 1."""
    try:
        shared = float(first.intersection(second).area)
    except ShapelyError as error:
        raise UnusableAnswer(_NO_REGION) from error
    union = float(first.area) + float(second.area) - shared
    return min(max(shared / union, 0.0), 1.0)


def _parts(polygon: Shape) -> list[Any]:
    if not isinstance(polygon, Mapping):
        return [polygon] if len(polygon) else []
    match polygon["type"]:
        case "FeatureCollection":
            return [part for one in polygon["features"] for part in _parts(one)]
        case "Feature":
            return _parts(polygon["geometry"])
        case "MultiPolygon":
            return [
                {"type": "Polygon", "coordinates": part}
                for part in polygon["coordinates"]
            ]
        case "Polygon":
            return [polygon] if polygon["coordinates"] else []
        case other:
            raise ValueError(f"{other} is no polygon")


def _polygon(part: Any) -> Region:
    return shape(part) if isinstance(part, Mapping) else Polygon(part)


def _polygonal(geometry: Any) -> Region:
    """Return the polygons of a geometry; lines and points have no area."""
    parts = [
        part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"
    ]
    return shapely.union_all(parts) if len(parts) != 1 else parts[0]


def _crosses_often(outline: Region) -> bool:
    """Say whether the outline has more crossings than repair can bear.

    Counts in batches and stops early, so that a scribble costs neither much time nor
    the memory for all its pairs of lines.
    """
    corners = shapely.get_coordinates(outline)
    lines = shapely.linestrings(np.stack([corners[:-1], corners[1:]], axis=1))
    tree = shapely.STRtree(lines)
    # Each line meets itself and its two neighbours; each other meeting counts twice.
    allowed = 3 * len(lines) + 2 * MAX_CROSSINGS
    met = 0
    for start in range(0, len(lines), 100):
        batch = lines[start : start + 100]
        met += tree.query(batch, predicate="intersects").shape[1]
        if met > allowed:
            return True
    return False
