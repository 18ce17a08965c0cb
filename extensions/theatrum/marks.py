"""People's marks on a slide, between two forms of GeoJSON.

A *mark* is a feature in level-0 pixels with an `id` that stays through every edit, and
`properties.kind`: rectangle, polygon or point. A *drawing* is the same mark as the
draw control holds it: on the map's plane, the id inside its properties (Leaflet keeps
only those), and a Leaflet style. The draw control's list is the only truth about what
is on the map; what follows reads it as a whole each time, whatever event caused it.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from theatrum.errors import BadMarks
from theatrum.planes import geometry_in_pixels, geometry_on_map

Feature = dict[str, Any]  # GeoJSON: as open as the standard leaves it

STYLE: Mapping[str, object] = {
    "color": "#0b57d0",
    "weight": 3,
    "fill": True,
    "fillColor": "#0b57d0",
    "fillOpacity": 0.04,
}
"""Blue, which no common stain is; the style sheet adds a light rim for dark tissue."""

LEAFLET_TYPES = {"rectangle": "rectangle", "polygon": "polygon", "point": "marker"}
KINDS = {leaflet_type: kind for kind, leaflet_type in LEAFLET_TYPES.items()}


def collection(features: Iterable[Feature]) -> dict[str, Any]:
    """Return features as a GeoJSON FeatureCollection."""
    return {"type": "FeatureCollection", "features": list(features)}


def checked(marks: Mapping[str, Any]) -> dict[str, Any]:
    """Return marks that somebody gave as marks in their full form.

    Ids and kinds that are missing are added, open rings closed. Raises BadMarks, which
    names the first feature that cannot be drawn.
    """
    if marks.get("type") != "FeatureCollection" or not isinstance(
        marks.get("features"), Sequence
    ):
        raise BadMarks(
            'Give a GeoJSON FeatureCollection: {"type": "FeatureCollection", '
            '"features": [...]}.'
        )
    features = [
        _checked_feature(feature, number)
        for number, feature in enumerate(marks["features"], start=1)
    ]
    return collection({feature["id"]: feature for feature in features}.values())


def drawings(marks: Mapping[str, Any]) -> list[Feature]:
    """Return marks as the draw control takes them."""
    return [_drawing(feature) for feature in marks["features"]]


def marks_from_drawings(
    drawn: Iterable[Feature], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the marks that the draw control holds.

    Parameters
    ----------
    drawn
        The draw control's list. An edit may leave a shape in it twice: of one id the
        last is kept, and a shape without an id that equals another is dropped.
    known
        The marks before: what else is in their properties stays theirs.
    """
    before = {feature["id"]: feature for feature in known["features"]}
    after: dict[str, Feature] = {}
    for drawing in drawn:
        geometry = geometry_in_pixels(drawing["geometry"])
        properties = drawing.get("properties") or {}
        same = [f["id"] for f in after.values() if f["geometry"] == geometry]
        if same and not properties.get("id"):
            continue
        mark_id = properties.get("id") or _id_of_equal(geometry, before, after)
        kept = before[mark_id]["properties"] if mark_id in before else {}
        kind = properties.get("kind") or KINDS.get(
            str(properties.get("type")), "polygon"
        )
        after[mark_id] = {
            "type": "Feature",
            "id": mark_id,
            "geometry": geometry,
            "properties": {**kept, "kind": _kind(kind, geometry)},
        }
    return collection(after.values())


def newest(marks: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """Return the marks without the oldest ones beyond a limit (None: no limit)."""
    features = marks["features"]
    return collection(features if limit is None else features[-limit:])


def _checked_feature(feature: Any, number: int) -> Feature:
    # Whatever somebody wrote into a cell: hence Any.
    geometry = feature.get("geometry") if isinstance(feature, Mapping) else None
    if not isinstance(geometry, Mapping):
        geometry = {}
    kind = geometry.get("type")
    if kind not in ("Point", "Polygon"):
        raise BadMarks(
            f"Feature {number} is a {kind or 'feature without a geometry'}: "
            "only Point and Polygon can be drawn."
        )
    coordinates = geometry.get("coordinates", ())
    try:
        if kind == "Point":
            plain: Any = _position(coordinates)
        else:
            plain = [_ring(ring) for ring in coordinates]
            if not plain:
                raise ValueError("no ring")
    except (TypeError, ValueError, IndexError) as error:
        raise BadMarks(
            f"The coordinates of feature {number} are not those of a {kind} ({error})."
        ) from error
    clean = {"type": kind, "coordinates": plain}
    properties = dict(feature.get("properties") or {})
    wished = str(properties.get("kind") or ("point" if kind == "Point" else "polygon"))
    return {
        "type": "Feature",
        "id": str(feature.get("id") or uuid.uuid4()),
        "geometry": clean,
        "properties": {**properties, "kind": _kind(wished, clean)},
    }


def _position(position: Sequence[Any]) -> list[float]:
    x, y = float(position[0]), float(position[1])
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError("a position is not finite")
    # As Leaflet rounds: a mark that was only redrawn is equal to itself.
    return [round(x, 6), round(y, 6)]


def _ring(ring: Sequence[Sequence[Any]]) -> list[list[float]]:
    positions = [_position(position) for position in ring]
    if positions[0] != positions[-1]:
        positions.append(positions[0])
    if len(positions) < 4:
        raise ValueError("a ring needs three corners")
    return positions


def _kind(wished: str, geometry: Mapping[str, Any]) -> str:
    """Return a kind that is true: an edited rectangle may be none any more."""
    if geometry["type"] == "Point":
        return "point"
    return "rectangle" if wished == "rectangle" and _is_upright(geometry) else "polygon"


def _is_upright(geometry: Mapping[str, Any]) -> bool:
    rings = geometry["coordinates"]
    corners = {tuple(position) for position in rings[0]}
    xs, ys = {x for x, _ in corners}, {y for _, y in corners}
    return len(rings) == 1 and len(corners) == 4 and len(xs) == len(ys) == 2


def _drawing(feature: Feature) -> Feature:
    kind = feature["properties"]["kind"]
    style = {} if kind == "point" else dict(STYLE)
    return {
        "type": "Feature",
        "geometry": geometry_on_map(feature["geometry"]),
        "properties": {
            "id": feature["id"],
            "kind": kind,
            "type": LEAFLET_TYPES[kind],
            "style": style,
        },
    }


def _id_of_equal(
    geometry: Mapping[str, Any],
    before: Mapping[str, Feature],
    after: Mapping[str, Feature],
) -> str:
    """Return the id of the known mark that has this shape, or a new id."""
    for mark_id, feature in before.items():
        if mark_id not in after and feature["geometry"] == geometry:
            return mark_id
    return str(uuid.uuid4())
