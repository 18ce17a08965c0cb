"""Marks between level-0 pixels and what the draw control holds."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import pytest
from theatrum.errors import BadMarks
from theatrum.marks import checked, collection, drawings, marks_from_drawings, newest

SQUARE = [[10.0, 20.0], [110.0, 20.0], [110.0, 70.0], [10.0, 70.0], [10.0, 20.0]]
NONE = collection([])


def polygon(*corners: list[float], **properties: object) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [list(corners)]},
        "properties": properties,
    }


def drawn(leaflet_type: str, ring: list[list[float]]) -> dict[str, Any]:
    """A shape as the draw control reports it: on the map, without an id."""
    on_map = [[x, -y] for x, y in ring]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [on_map]},
        "properties": {"type": leaflet_type, "style": {"color": "#0b57d0"}},
    }


def test_a_drawn_shape_is_read_in_level_0_pixels_with_an_id_and_its_kind() -> None:
    (mark,) = marks_from_drawings([drawn("rectangle", SQUARE)], NONE)["features"]
    assert mark["geometry"] == {"type": "Polygon", "coordinates": [SQUARE]}
    assert mark["properties"] == {"kind": "rectangle"}
    assert str(uuid.UUID(mark["id"], version=4)) == mark["id"]


def test_an_edit_keeps_the_id_and_what_else_is_known_of_the_mark() -> None:
    marks = checked(collection([polygon(*SQUARE, kind="rectangle", grade="high")]))
    (drawing,) = drawings(marks)
    moved = copy.deepcopy(drawing)
    for corner in moved["geometry"]["coordinates"][0]:
        corner[0] += 5
    # Leaflet makes a polygon of every rectangle that it reads from GeoJSON.
    moved["properties"]["type"] = "polygon"
    (mark,) = marks_from_drawings([moved], marks)["features"]
    assert mark["id"] == marks["features"][0]["id"]
    assert mark["properties"] == {"kind": "rectangle", "grade": "high"}
    assert mark["geometry"]["coordinates"][0][0] == [15.0, 20.0]


def test_a_rectangle_with_one_corner_pulled_out_is_a_polygon() -> None:
    marks = checked(collection([polygon(*SQUARE, kind="rectangle")]))
    (drawing,) = drawings(marks)
    drawing["geometry"]["coordinates"][0][2][0] += 30
    (mark,) = marks_from_drawings([drawing], marks)["features"]
    assert mark["properties"]["kind"] == "polygon"


def test_a_shape_that_an_edit_left_twice_is_one_mark() -> None:
    marks = checked(collection([polygon(*SQUARE)]))
    (drawing,) = drawings(marks)
    newer = copy.deepcopy(drawing)
    newer["geometry"]["coordinates"][0][1][0] = 115.0
    without_id = drawn("polygon", [[x, y] for x, y in SQUARE])
    twice = marks_from_drawings([drawing, without_id, newer], marks)["features"]
    assert [mark["id"] for mark in twice] == [marks["features"][0]["id"]]
    assert twice[0]["geometry"]["coordinates"][0][1] == [115.0, 20.0]


def test_a_shape_without_an_id_that_equals_a_known_mark_is_that_mark() -> None:
    marks = checked(collection([polygon(*SQUARE)]))
    (mark,) = marks_from_drawings([drawn("polygon", SQUARE)], marks)["features"]
    assert mark["id"] == marks["features"][0]["id"]


def test_marks_come_back_from_their_own_drawings() -> None:
    point = {"geometry": {"type": "Point", "coordinates": [1 / 3, 2]}}
    marks = checked(collection([polygon(*SQUARE, kind="rectangle"), point]))
    assert marks_from_drawings(drawings(marks), marks) == marks


def test_only_the_newest_marks_are_kept() -> None:
    marks = checked(collection([polygon(*SQUARE), polygon(*SQUARE), polygon(*SQUARE)]))
    kept = newest(marks, 1)["features"]
    assert kept == marks["features"][-1:]
    assert newest(marks, None) == marks


def test_an_open_ring_is_closed() -> None:
    (mark,) = checked(collection([polygon(*SQUARE[:-1])]))["features"]
    assert mark["geometry"]["coordinates"] == [SQUARE]


@pytest.mark.parametrize(
    ("marks", "why"),
    [
        ({}, "FeatureCollection"),
        ({"type": "FeatureCollection", "features": [1]}, "Feature 1"),
        (
            collection([{"geometry": {"type": "LineString", "coordinates": []}}]),
            "LineString",
        ),
        (collection([{"geometry": {"type": "Point", "coordinates": [1]}}]), "Point"),
        (
            collection([{"geometry": {"type": "Point", "coordinates": [1, "nan"]}}]),
            "finite",
        ),
        (collection([polygon([0, 0], [1, 1])]), "three corners"),
        (collection([{"geometry": {"type": "Polygon", "coordinates": []}}]), "Polygon"),
    ],
)
def test_marks_that_cannot_be_drawn_are_refused_with_the_reason(
    marks: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadMarks, match=why):
        checked(marks)
