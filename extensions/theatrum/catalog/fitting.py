"""What a row that somebody writes has to fit beyond the types of its columns.

A region's geometry fits its kind, a file rule can be used, a saved query be asked. What
does not is refused while its author looks, and not where others meet it later.

Geometry is GeoJSON-like (RFC 7946): `type` and `coordinates`, in pixels of level 0.
Rings may be left open, and a box, an ellipse and a cube may be two opposite corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from theatrum.catalog.errors import BadRecord, near
from theatrum.catalog.facts import box_of
from theatrum.catalog.query.fields import table_of
from theatrum.catalog.query.spec import Leaf, Parameter, Q, Spec, spec_from_json
from theatrum.catalog.query.sql import Compiler
from theatrum.catalog.tables import Base, FileRule, Roi, SavedQuery

_CORNERS = ("Polygon",)
KINDS: Mapping[str, Sequence[str]] = {
    "point": ("Point", "MultiPoint"),
    "line": ("LineString", "MultiLineString"),
    "polyline": ("LineString", "MultiLineString"),
    "polygon": ("Polygon", "MultiPolygon"),
    "box": _CORNERS,
    "ellipse": _CORNERS,
    "cube": _CORNERS,
    "mask": ("Polygon", "MultiPolygon"),
}
"""The kinds of regions, and the types of geometry that each can have."""
_DEPTH = {
    "Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2,
    "MultiPolygon": 3,
}  # fmt: skip
"""How deep positions lie in the coordinates of each type."""
_LEAST = {"MultiPoint": 1, "LineString": 2, "MultiLineString": 2, "Polygon": 3,
          "MultiPolygon": 3}  # fmt: skip
"""How many positions a line or a ring has at least."""
_AXES = ("x", "y", "z", "c", "t")


# Any here and below: what somebody wrote
def fitted(
    model: type[Base], values: Mapping[str, Any], row: Base | None = None
) -> dict[str, Any]:
    """The values of a row that is made, or of `row` that is changed, if they fit.

    A region's box follows from its geometry. Raises BadRecord, BadRule and BadQuery.
    """

    def whole(name: str, otherwise: Any) -> Any:
        return values.get(name, getattr(row, name, otherwise))

    said = dict(values)
    if model is Roi and (row is None or {"kind", "geometry", "axes"} & said.keys()):
        # A geometry that is drawn anew says its own axes, or has the usual ones.
        axes = said.get("axes") if "geometry" in said else whole("axes", None)
        geometry = whole("geometry", None)
        said["axes"] = _region(whole("kind", None), geometry, axes or [])
        if row is not None:
            box = dict.fromkeys(f"{axis}{end}" for axis in "xyzt" for end in "01")
            said = box | box_of(geometry or {}, said["axes"]) | said
    elif model is FileRule:
        from theatrum.catalog.ingest.rules import parse

        name, pattern = str(whole("name", "")), str(whole("pattern", ""))
        parse(name, pattern, whole("fields", None) or {})
    elif model is SavedQuery and (row is None or {"spec", "parameters"} & said.keys()):
        _asked(whole("spec", None), whole("parameters", None) or {})
    return said


def _region(kind: Any, geometry: Any, axes: Any) -> list[str]:
    """The axes of a region whose geometry fits its kind; raises BadRecord."""
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise BadRecord(f"a region is a {known}, not {kind!r}.{near(str(kind), KINDS)}")
    if not isinstance(axes, list) or not all(one in _AXES for one in axes):
        raise BadRecord(f"axes are some of {', '.join(_AXES)}, in order")
    if len(set(axes)) < len(axes):
        raise BadRecord("each of the axes is named once")
    if not geometry and kind == "mask":
        return axes or ["x", "y"]  # its pixels are an image
    if not isinstance(geometry, Mapping) or geometry.get("type") not in KINDS[kind]:
        types = " or ".join(KINDS[kind])
        raise BadRecord(
            f'the geometry of a {kind} is {{"type": ..., "coordinates": ...}}, of type '
            f"{types}"
        )
    type_ = geometry["type"]
    coordinates: Any = geometry.get("coordinates")
    least = _LEAST.get(type_, 1)
    if KINDS[kind] is _CORNERS and _is_line(coordinates):
        if len(coordinates) == 2:
            type_, least = "LineString", 2
        else:
            coordinates = [coordinates]
    sizes = {*_sizes(coordinates, _DEPTH[type_], least, type_)}
    if len(sizes) != 1:
        raise BadRecord("every position of a geometry has as many numbers")
    (size,) = sizes
    if axes and size != len(axes):
        raise BadRecord(f"positions have {size} numbers, and axes name {len(axes)}")
    if not axes and size > 3:
        raise BadRecord("say as axes what the numbers of a position are")
    return axes or ["x", "y", "z"][:size]


def _is_line(coordinates: Any) -> bool:
    return (
        isinstance(coordinates, list | tuple)
        and len(coordinates) > 0
        and isinstance(coordinates[0], list | tuple)
        and len(coordinates[0]) > 0
        and not isinstance(coordinates[0][0], list | tuple)
    )


def _sizes(coordinates: Any, depth: int, least: int, type_: str) -> Iterator[int]:
    """Of each position how many numbers it has; raises BadRecord for what is none."""
    if not isinstance(coordinates, list | tuple) or not coordinates:
        raise BadRecord(f"coordinates of a {type_} are lists of numbers, as in GeoJSON")
    if depth == 0:
        if len(coordinates) < 2 or not all(_is_number(one) for one in coordinates):
            raise BadRecord(
                f"a position is two or more finite numbers: {type_} has not"
            )
        yield len(coordinates)
        return
    if depth == 1 and len(coordinates) < least:
        raise BadRecord(f"each part of a {type_} has {least} positions at least")
    for inner in coordinates:
        yield from _sizes(inner, depth - 1, least, type_)


def _is_number(one: Any) -> bool:
    return (
        isinstance(one, int | float)
        and not isinstance(one, bool)
        and math.isfinite(one)
    )


def _asked(said: Any, parameters: Mapping[str, Any]) -> None:
    """Refuse a query that could not be asked; BadQuery says what is wrong with it."""
    spec = spec_from_json(said)
    table_of(spec.of)
    given = {
        name: one["default"]
        for name, one in parameters.items()
        if isinstance(one, Mapping) and "default" in one
    }
    if given.keys() >= {*_needed(spec)}:
        Compiler("sqlite").rows(spec.filled(given))


def _needed(spec: Spec) -> Iterator[str]:
    """The names of the parameters that a query has."""
    waiting: list[Any] = [*spec.where]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Parameter):
            yield part.name
        elif isinstance(part, Spec):
            waiting.extend(part.where)
        elif isinstance(part, Q):
            waiting.extend(part.parts)
        elif isinstance(part, Leaf):
            waiting.append(part.value)
        elif isinstance(part, tuple):
            waiting.extend(part)
