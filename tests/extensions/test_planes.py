"""The one conversion between level-0 pixels and the map."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from theatrum.planes import geometry_in_pixels, geometry_on_map, latlng, pixel

lengths = st.floats(-1e7, 1e7, allow_nan=False)
positions = st.lists(lengths, min_size=2, max_size=2)
geometries = st.one_of(
    st.builds(lambda c: {"type": "Point", "coordinates": c}, positions),
    st.builds(
        lambda rings: {"type": "Polygon", "coordinates": rings},
        st.lists(st.lists(positions, min_size=4, max_size=6), min_size=1, max_size=2),
    ),
)


@given(lengths, lengths)
def test_a_point_comes_back_exactly(x: float, y: float) -> None:
    assert pixel(*latlng(x, y)) == (x, y)


@given(geometries)
def test_a_geometry_comes_back_exactly(geometry: dict[str, object]) -> None:
    assert geometry_in_pixels(geometry_on_map(geometry)) == geometry


def test_down_on_the_slide_is_south_on_the_map() -> None:
    assert latlng(30, 20) == (-20, 30)
    on_map = geometry_on_map({"type": "Point", "coordinates": [30, 20]})
    assert on_map["coordinates"] == [30, -20]


def test_the_origin_has_no_negative_zero() -> None:
    lat, lng = latlng(0.0, 0.0)
    assert math.copysign(1, lat) == math.copysign(1, lng) == 1
    x, y = pixel(0.0, 0.0)
    assert math.copysign(1, x) == math.copysign(1, y) == 1
