"""Values of ports: what they hold, what they refuse, what they are for others."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from theatrum.marks import checked
from theatrum.node import (
    ArrayImage,
    BadValue,
    Image,
    Labels,
    Marks,
    Number,
    Polygon,
    Quality,
    Table,
    Volume,
    polygons_of,
)

RING = [(0, 0), (10, 0), (10, 10), (0, 10)]
HOLE = [(2, 2), (2, 4), (4, 4), (4, 2)]


# ---- polygons ------------------------------------------------------------------------


def test_a_polygon_is_its_exterior_without_its_holes() -> None:
    polygon = Polygon(RING, [HOLE])
    assert polygon.area_px == 96
    assert polygon.bounds == (0, 0, 10, 10)
    assert polygon.perimeter() == 48
    assert polygon.perimeter(0.5, 2.0) == 50 + 10


def test_a_repeated_last_corner_is_dropped_and_nothing_can_be_written() -> None:
    polygon = Polygon([*RING, RING[0]])
    assert len(polygon.exterior) == 4
    assert polygon == Polygon(RING)
    assert hash(polygon) == hash(Polygon(RING))
    with pytest.raises(ValueError, match="read-only"):
        polygon.exterior[0, 0] = 3
    assert pickle.loads(pickle.dumps(polygon)) == polygon  # noqa: S301  (our own)


@pytest.mark.parametrize(
    ("corners", "told"),
    [
        ([(0, 0), (1, 1)], "three corners"),
        ([(0, 0), (1, 1), (0, 0)], "three corners"),
        ([(0, 0), (1, 1), (float("nan"), 3)], "finite"),
        ([(0, 0), (1, 1), (float("inf"), 3)], "finite"),
        ([(0, 0, 0), (1, 1, 1), (2, 2, 1)], r"\(n, 2\)"),
        ([("a", "b"), (1, 1), (2, 2)], "no numbers"),
    ],
)
def test_corners_that_make_no_polygon_are_refused(corners: object, told: str) -> None:
    with pytest.raises(BadValue, match=told):
        Polygon(corners)  # type: ignore[arg-type]


@given(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7))
def test_the_area_does_not_depend_on_the_place(x: float, y: float) -> None:
    by = np.array([x, y])
    moved = Polygon(np.array(RING) + by, [np.array(HOLE) + by])
    assert moved.area_px == pytest.approx(96, rel=1e-6)


def test_geojson_and_the_viewer_s_marks_become_polygons_and_back() -> None:
    polygon = Polygon(RING, [HOLE])
    geometry = polygon.to_geojson()
    assert geometry["coordinates"][0][0] == geometry["coordinates"][0][-1]
    assert Polygon.from_geojson(geometry) == polygon
    point = {"type": "Point", "coordinates": [1, 2]}
    drawn = checked(
        {
            "type": "FeatureCollection",
            "features": [
                {"type": "Feature", "geometry": geometry},
                {"type": "Feature", "geometry": point},
            ],
        }
    )
    assert polygons_of(drawn) == (polygon,)
    with pytest.raises(BadValue, match="GeoJSON Polygon"):
        Polygon.from_geojson(point)


# ---- pictures ------------------------------------------------------------------------


def test_an_array_is_an_image_whose_levels_are_means() -> None:
    array = np.random.default_rng(1).integers(0, 255, (300, 520, 3), np.uint8)
    image = ArrayImage(array, mpp=0.5)
    assert isinstance(image, Image)
    assert [level.downsample for level in image.levels] == [1, 2, 4]
    assert np.array_equal(image.region(10, 20, 30, 40), array[20:60, 10:40])
    half = image.region(10, 20, 30, 40, level=1)
    blocks = array[20:60, 10:40].reshape(20, 2, 15, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - blocks).max() <= 0.5
    assert np.array_equal(image.region(10, 20, 30, 40, mpp=1.0), half)


def test_an_array_s_outside_is_background_and_tiles_join() -> None:
    array = np.zeros((64, 64, 3), np.uint8)
    image = ArrayImage(array, background=240)
    around = image.region(-8, -8, 80, 80)
    assert around[:8].min() == around[:, -8:].min() == 240
    assert around[8:72, 8:72].max() == 0
    assert image.region(1000, -500, 10, 10).min() == 240
    assert image.region(-1000, 500, 10, 10).min() == 240


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(BadValue):
        ArrayImage(array)


def test_a_region_that_cannot_be_is_refused() -> None:
    image = ArrayImage(np.zeros((4, 4, 3), np.uint8))
    for arguments, how in (
        ((0, 0, 0, 1), {}),
        ((0, 0, 1, 1), {"level": 0, "mpp": 1.0}),
        ((0, 0, 1, 1), {"mpp": 1.0}),
    ):
        with pytest.raises(BadValue):
            image.region(*arguments, **how)  # type: ignore[arg-type]


# ---- scans ---------------------------------------------------------------------------


def test_a_scan_knows_its_spacing_and_its_voxel() -> None:
    affine = np.diag([-0.5, -0.5, 3.0, 1.0])
    volume = Volume(np.zeros((2, 3, 4)), affine, "CT")
    assert volume.spacing_mm == (0.5, 0.5, 3.0)
    assert volume.voxel_ml == pytest.approx(0.00075)
    for array, wrong in (
        (np.zeros((3, 4)), affine),
        (np.zeros((2, 3, 4)), np.eye(3)),
        (np.zeros((2, 3, 4)), np.diag([1, 1, 0, 1])),
        (np.zeros((2, 3, 4)), np.full((4, 4), np.nan)),
    ):
        with pytest.raises(BadValue):
            Volume(array, wrong)


def test_labels_are_found_by_name() -> None:
    labels = Labels(np.array([[0, 1], [2, 1]]), {1: "Left", 2: "Right"})
    assert labels.mask("Left").tolist() == [[False, True], [False, True]]
    with pytest.raises(BadValue, match="no label 'Middle': Left, Right"):
        labels.mask("Middle")
    with pytest.raises(BadValue, match="whole numbers"):
        Labels(np.zeros((2, 2)), {})
    with pytest.raises(BadValue, match="affine_lps"):
        Labels(np.zeros((2, 2, 2), int), {})


# ---- findings ------------------------------------------------------------------------


def test_marks_are_counted_sorted_and_drawn() -> None:
    marks = Marks(
        np.array([[1, 2], [3, 4]]), np.array([0, 1]), ("A", "B"), np.array([0.5, 1])
    )
    assert (len(marks), marks.count("A")) == (2, 1)
    assert marks.with_classes([1, 1]).count("B") == 2
    drawn = checked(marks.to_geojson())["features"]
    assert [one["properties"]["class"] for one in drawn] == ["A", "B"]
    assert drawn[1]["geometry"]["coordinates"] == [3, 4]
    outlined = Marks(marks.points, marks.classes, ("A", "B"), None, [Polygon(RING)] * 2)  # type: ignore[arg-type]
    shapes = checked(outlined.to_geojson())["features"]
    assert [one["geometry"]["type"] for one in shapes] == ["Polygon", "Polygon"]


def test_marks_that_do_not_fit_together_are_refused() -> None:
    two = np.array([[1, 2], [3, 4]])
    for arguments in (
        (two, [0], ("A",)),
        (two, [0, 1], ("A",)),
        (two, [0, -1], ("A",)),
        (two * np.nan, [0, 0], ("A",)),
        (two, [0, 0], ("A",), [1.0]),
        (two, [0, 0], ("A",), None, (Polygon(RING),)),
        (two, [0, 0], ("A",), None, None, ("#fff", "#000")),
    ):
        with pytest.raises(BadValue):
            Marks(*arguments)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="no class 'B'"):
        Marks(two, [0, 0], ("A",)).count("B")  # type: ignore[arg-type]


def test_a_table_has_columns_of_one_length_with_units() -> None:
    table = Table({"area": [1, 2], "size": [0.5, None]}, {"size": "mm2"})
    assert len(table) == 2
    assert list(table.rows())[1] == {"area": 2, "size": None}
    assert list(table.to_pandas().columns) == ["area", "size [mm2]"]
    with pytest.raises(BadValue, match="one length"):
        Table({"a": [1], "b": []})
    with pytest.raises(BadValue, match="no column 'c'"):
        Table({"a": [1]}, {"c": "mm"})


def test_a_number_is_written_with_its_unit_and_digits() -> None:
    assert str(Number(1.2345, "mm2", "Area", 2)) == "1.23 mm2"
    assert str(Number(3, "", "Nuclei", 2)) == "3"


def test_a_verdict_is_one_of_the_two_that_there_are() -> None:
    assert Quality("Rejected", "blurred").verdict == "Rejected"
    with pytest.raises(BadValue, match="QualityOk"):
        Quality("Fine", "")  # type: ignore[arg-type]
