"""The two planes of the viewer, and the only conversion between them.

Level-0 pixels: x to the right, y down, origin at the top-left corner of the full
slide. The map: Leaflet's `CRS.Simple`, where latitude grows upwards, so `lat = -y` and
`lng = x`; at zoom 0 one map unit is one level-0 pixel. GeoJSON on the map is written
`[lng, lat]`, in pixels `[x, y]`. (`overlay/map.js` holds the same pair for the
browser.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Geometry = dict[str, Any]  # GeoJSON: nested lists of numbers under "coordinates"


def latlng(x: float, y: float) -> tuple[float, float]:
    """Return the map position (lat, lng) of a point in level-0 pixels."""
    return 0.0 - y, x  # not -y: that would turn 0.0 into -0.0


def pixel(lat: float, lng: float) -> tuple[float, float]:
    """Return the level-0 pixels (x, y) of a map position."""
    return lng, 0.0 - lat


def geometry_on_map(geometry: Mapping[str, Any]) -> Geometry:
    """Return a GeoJSON geometry in level-0 pixels as one on the map."""
    return {
        "type": geometry["type"],
        "coordinates": _each_position(geometry["coordinates"], _onto_map),
    }


def geometry_in_pixels(geometry: Mapping[str, Any]) -> Geometry:
    """Return a GeoJSON geometry of the map in level-0 pixels."""
    return {
        "type": geometry["type"],
        "coordinates": _each_position(geometry["coordinates"], _into_pixels),
    }


def _onto_map(position: Sequence[float]) -> list[float]:
    lat, lng = latlng(float(position[0]), float(position[1]))
    return [lng, lat]


def _into_pixels(position: Sequence[float]) -> list[float]:
    return list(pixel(float(position[1]), float(position[0])))


# `nested` is a position, or lists of them to any depth: GeoJSON has no finer type.
def _each_position(nested: Any, convert: Any) -> list[Any]:
    if nested and isinstance(nested[0], int | float):
        return list(convert(nested))
    return [_each_position(inner, convert) for inner in nested]
