"""A region that somebody drew, as what a node takes: a line or an area.

The region's row is told with the value, so that the lineage of what is made of it leads
to the region, and on to whoever drew it.

Plane: pixels of level 0, x before y.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.keys import given
from theatrum.catalog.engine.work import Given
from theatrum.catalog.rows import Row
from theatrum.node import Line, Polygon

_OPPOSITE: Final = 2
"""Corners by which a box may be told."""


def source_of_region(region: Row) -> Given:
    """A row of `rois` as a source; raises BadBatch for what is no line and no area."""
    return replace(given(shape_of(region)), kind="roi", id=str(region.id))


def shape_of(region: Row) -> Line | Polygon:
    """The line or the area of a row of `rois`; raises BadBatch for anything else."""
    geometry = region.geometry or {}
    corners = geometry.get("coordinates") or []
    if geometry.get("type") == "LineString":
        return Line([point[:2] for point in corners])
    if geometry.get("type") == "Polygon" and corners:
        # One ring may come without the brackets that GeoJSON has for holes.
        nested = isinstance(corners[0][0], list | tuple)
        rings = corners if nested else [corners]
        flat = [[point[:2] for point in ring] for ring in rings]
        if len(flat[0]) == _OPPOSITE:
            (x0, y0), (x1, y1) = flat[0]
            flat = [[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]]
        return Polygon(flat[0], flat[1:])
    raise BadBatch(
        f"The region {region.name or region.id} is a {region.kind}, which is no "
        "line and no area: give a line, a polyline, a box or a polygon."
    )
