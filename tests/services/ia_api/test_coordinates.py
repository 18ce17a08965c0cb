import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ia_api.coordinates import level0, normalised, outline

PIXELS = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(PIXELS, PIXELS)), st.integers(1, 300_000))
def test_points_come_back_from_the_interface_where_they_were(points, width):
    back = level0(normalised(points, width), width)
    for (x, y), (back_x, back_y) in zip(points, back, strict=True):
        assert back_x == pytest.approx(x, abs=1e-6)
        assert back_y == pytest.approx(y, abs=1e-6)


def test_both_axes_are_divided_by_the_width():
    assert outline(200, 300) == [
        {"x": 0.0, "y": 0.0},
        {"x": 1.0, "y": 0.0},
        {"x": 1.0, "y": 1.5},
        {"x": 0.0, "y": 1.5},
    ]


def test_the_shared_vectors_are_followed(shared_data):
    file = shared_data.parent / "ia_api" / "coordinate_vectors.json"
    if not file.is_file():
        pytest.skip("the interface's vectors are not here")
    for vector in json.loads(file.read_text())["vectors"]:
        point, width = (vector["px"], vector["py"]), vector["width"]
        (there,) = normalised([point], width)
        assert there == pytest.approx({"x": vector["x"], "y": vector["y"]}, abs=1e-9)
        assert level0([there], width)[0] == pytest.approx(point, abs=1e-3)
