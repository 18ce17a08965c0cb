"""References: the rule of each question, and the mistakes a teacher can make."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shapely.affinity import scale, translate
from shapely.geometry import Polygon, mapping
from theatrum.quiz.answers import Answer, Chosen, Clicked, Outlined, SeenImage
from theatrum.quiz.errors import BadReference, UnusableAnswer
from theatrum.quiz.references import (
    Assessment,
    Choice,
    Inside,
    Near,
    Outline,
    Reference,
)
from theatrum.quiz.shapes import (
    MAX_CROSSINGS,
    outline_region,
    overlap,
    reference_region,
)

SLIDE = SeenImage(id="7", name="ihc", version="1f3c")
SQUARE = [(1000, 1000), (2000, 1000), (2000, 2000), (1000, 2000)]
RING = [[list(corner) for corner in [*SQUARE, SQUARE[0]]]]
FAR = [(12345, 1), (12399, 1), (12399, 54399)]
HOLE = [[1400, 1400], [1600, 1400], [1600, 1600], [1400, 1600], [1400, 1400]]


def assess(reference: Reference, answer: Chosen | Clicked | Outlined) -> Assessment:
    return reference.assess(Answer("q1", answer, SLIDE, datetime.now(UTC)))


def chosen(*keys: str) -> Chosen:
    return Chosen(keys)


def outlined(*corners: tuple[float, float]) -> Outlined:
    return Outlined(corners)


@pytest.mark.parametrize(
    ("right", "ticked", "fraction"),
    [
        ({"b"}, "b", 1),
        ("b", "b", 1),
        ({"b"}, "a", 0),
        ({"b"}, "ab", 0),
        ({"a", "b"}, "ab", 1),
        ({"a", "b"}, "a", 0.5),
        ({"a", "b"}, "abc", 0.5),
        ({"a", "b"}, "ac", 0),
        ({"a", "b"}, "acd", 0),
        ({"a", "b", "c"}, "abcd", 2 / 3),
        ({"a", "b"}, "abcdef", 0),
    ],
)
def test_a_choice_earns_right_minus_wrong(
    right: Any, ticked: str, fraction: float
) -> None:
    assert assess(Choice(right), chosen(*ticked)).fraction == fraction


def test_a_string_is_one_key_and_not_its_letters() -> None:
    assert assess(Choice("ab"), chosen("ab")).fraction == 1
    assert assess(Choice("ab"), chosen("a", "b")).fraction == 0


def test_an_unknown_option_earns_nothing_where_the_options_are_known() -> None:
    known = Choice({"a", "b"}, options={"a": "Skin", "b": "Lung", "c": "Liver"})
    found = assess(known, chosen("a", "b", "zzz"))
    assert found.fraction == 0
    assert "does not have" in found.reason
    assert assess(Choice({"a", "b"}), chosen("a", "b", "zzz")).fraction == 0.5


@pytest.mark.parametrize(
    ("x", "y", "fraction"),
    [
        (1500, 1500, 1),
        (1000, 1000, 1),  # corner
        (1000, 1500, 1),  # edge
        (999.98, 1500, 0),
        (0, 0, 0),
    ],
)
def test_a_point_on_the_edge_is_inside(x: float, y: float, fraction: float) -> None:
    assert assess(Inside(SQUARE), Clicked((x, y))).fraction == fraction


@given(st.floats(0, 1))
def test_each_point_of_a_slanting_edge_is_inside(along: float) -> None:
    triangle = [(0, 0), (3000, 1000), (1000, 3000)]
    point = (round(3000 - 2000 * along, 2), round(1000 + 2000 * along, 2))
    assert assess(Inside(triangle), Clicked(point)).fraction == 1


def test_the_tolerance_is_in_micrometres_on_the_slide() -> None:
    near = Inside(SQUARE, mpp=0.5, tolerance_um=20)
    assert assess(near, Clicked((960, 1500))).fraction == 1  # 40 px = 20 µm
    assert assess(near, Clicked((959, 1500))).fraction == 0
    assert "20 µm" in assess(near, Clicked((959, 1500))).reason
    by_pixels = Inside(SQUARE, tolerance_px=20)
    assert assess(by_pixels, Clicked((980, 1500))).fraction == 1
    assert assess(by_pixels, Clicked((979, 1500))).fraction == 0
    assert "20 px" in assess(by_pixels, Clicked((979, 1500))).reason


def test_pixels_that_are_not_square_are_measured_along_each_axis() -> None:
    flat = Inside(SQUARE, mpp=(0.5, 0.25), tolerance_um=20)
    assert assess(flat, Clicked((960, 1500))).fraction == 1
    assert assess(flat, Clicked((950, 1500))).fraction == 0
    assert assess(flat, Clicked((1500, 920))).fraction == 1
    point = Near((0, 0), tolerance_um=20, mpp=(0.5, 0.25))
    assert assess(point, Clicked((0, 80))).fraction == 1
    assert assess(point, Clicked((80, 0))).fraction == 0


def test_a_point_in_a_hole_of_the_region_is_outside() -> None:
    ring = Inside({"type": "Polygon", "coordinates": [*RING, HOLE]})
    assert assess(ring, Clicked((1200, 1200))).fraction == 1
    assert assess(ring, Clicked((1500, 1500))).fraction == 0


@pytest.mark.parametrize(
    ("distance_px", "fraction"),
    [(0, 1), (100, 1), (150, 0.5), (175, 0.25), (200, 0), (5000, 0)],
)
def test_near_falls_linearly_from_the_tolerance_to_the_zero(
    distance_px: float, fraction: float
) -> None:
    click = Clicked((1000 + distance_px, 1000))
    um = Near((1000, 1000), tolerance_um=50, zero_um=100, mpp=0.5)
    assert assess(um, click).fraction == pytest.approx(fraction)
    px = Near((1000, 1000), tolerance_px=100, zero_px=200)
    assert assess(px, click).fraction == pytest.approx(fraction)


def test_near_without_a_zero_gives_nothing_beyond_the_tolerance() -> None:
    near = Near((1000, 1000), tolerance_um=50, mpp=0.5)
    assert assess(near, Clicked((1100, 1000))).fraction == 1
    found = assess(near, Clicked((1101, 1000)))
    assert found.fraction == 0
    assert "50.5 µm" in found.reason
    assert "up to 50 µm" in found.reason


@pytest.mark.parametrize(
    ("width", "iou", "fraction"),
    [(1000, 1, 1), (750, 0.75, 1), (525, 0.525, 0.5), (300, 0.3, 0), (100, 0.1, 0)],
)
def test_an_outline_earns_linearly_between_none_and_full(
    width: float, iou: float, fraction: float
) -> None:
    part = outlined(
        (1000, 1000), (1000 + width, 1000), (1000 + width, 2000), (1000, 2000)
    )
    found = assess(Outline(SQUARE, full=0.75, none=0.3), part)
    assert found.fraction == pytest.approx(fraction)
    assert f"IoU {math.floor(iou * 100) / 100:.2f}" in found.reason
    assert "75 % gives full points" in found.reason


def test_almost_enough_overlap_does_not_read_as_enough() -> None:
    part = outlined((1000, 1000), (1749.9, 1000), (1749.9, 2000), (1000, 2000))
    found = assess(Outline(SQUARE), part)
    assert found.fraction < 1
    assert "by 74 %" in found.reason


def test_the_direction_of_drawing_and_the_first_corner_do_not_matter() -> None:
    corners = [(float(x), float(y)) for x, y in SQUARE]
    for turned in (corners[::-1], corners[2:] + corners[:2]):
        assert assess(Outline(SQUARE), outlined(*turned)).fraction == 1


def test_an_outline_that_overshoots_its_start_counts_as_it_was_meant() -> None:
    # Round the square, then on along its first edge: a tail inside the region.
    overshoot = outlined(
        (1000, 1000), (2000, 1000), (2000, 2000), (1000, 2000), (1000, 1000),
        (1500, 1001), (1500, 1100), (1001, 1100),
    )  # fmt: skip
    assert assess(Outline(SQUARE, full=0.99), overshoot).fraction == 1


def test_both_halves_of_a_crossed_outline_count() -> None:
    eight = outlined((0, 0), (1000, 1000), (1000, 0), (0, 1000))
    assert outline_region(eight.polygon).area == pytest.approx(500_000)


def test_an_outline_without_area_is_told() -> None:
    line = outlined((0, 0), (10, 10), (20, 20))
    with pytest.raises(UnusableAnswer, match="no area"):
        assess(Outline(SQUARE), line)


@pytest.mark.timeout(30)
def test_a_scribble_without_end_is_refused_in_bounded_time() -> None:
    corners = 3999
    turn = 2 * math.pi * (corners // 2) / corners
    star = [
        (round(1e4 * math.cos(turn * i), 2), round(1e4 * math.sin(turn * i), 2))
        for i in range(corners)
    ]
    with pytest.raises(UnusableAnswer, match=f"more than {MAX_CROSSINGS} times"):
        outline_region(star)


triangles = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 500)),
    min_size=3,
    max_size=3,
    unique=True,
).map(Polygon)


@given(triangles, triangles, st.integers(1, 9), st.integers(-99, 99))
def test_overlap_is_symmetric_and_does_not_depend_on_place_or_scale(
    first: Any, second: Any, factor: int, shift: int
) -> None:
    assume(first.area > 1 and second.area > 1)
    iou = overlap(first, second)
    assert 0 <= iou <= 1
    assert overlap(second, first) == pytest.approx(iou)
    assert overlap(first, first) == pytest.approx(1)

    def moved(region: Any) -> Any:
        return scale(translate(region, shift, -shift), factor, factor, origin=(0, 0))

    assert overlap(moved(first), moved(second)) == pytest.approx(iou, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=12)
)
def test_a_repaired_outline_is_valid_and_within_its_hull(
    corners: list[tuple[float, float]],
) -> None:
    try:
        region = outline_region(corners)
    except UnusableAnswer:
        return
    assert region.is_valid
    assert region.geom_type in ("Polygon", "MultiPolygon")
    assert 0 < region.area <= Polygon(corners).convex_hull.area * (1 + 1e-9)


@pytest.mark.parametrize(
    "shape",
    [
        SQUARE,
        [list(corner) for corner in SQUARE],
        {"type": "Polygon", "coordinates": RING},
        {"type": "MultiPolygon", "coordinates": [RING]},
        {
            "type": "Feature",
            "properties": {},
            "geometry": {"type": "Polygon", "coordinates": RING},
        },
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "properties": {},
                    "geometry": {"type": "Polygon", "coordinates": RING},
                }
            ],
        },
    ],
)
def test_a_reference_region_may_be_corners_or_geojson(shape: Any) -> None:
    assert reference_region(shape).equals(Polygon(SQUARE))


def test_overlapping_features_are_one_region() -> None:
    halves = [Polygon(SQUARE), translate(Polygon(SQUARE), 500, 0)]
    features = [
        {"type": "Feature", "properties": {}, "geometry": mapping(half)}
        for half in halves
    ]
    region = reference_region({"type": "FeatureCollection", "features": features})
    assert region.area == pytest.approx(1_500_000)


CROSSED = [(0, 0), (10, 10), (10, 0), (0, 10)]
NO_POLYGON: list[Any] = [
    [],
    [(0, 0), (1, 1)],
    [(0, 0), (5, 5), (10, 10)],
    [(0, 0), (math.nan, 1), (2, 2)],
    [(0, 0), (math.inf, 1), (2, 2)],
    CROSSED,
    None,
    7,
    "polygon",
    {"type": "Point", "coordinates": [1, 2]},
    {"type": "Polygon"},
    {"type": "Polygon", "coordinates": []},
    {"type": "FeatureCollection", "features": []},
    {"type": "Feature", "geometry": None},
    {},
]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("shape", NO_POLYGON)
@pytest.mark.parametrize("kind", [Inside, Outline])
def test_a_reference_that_is_no_region_is_the_teachers_error(
    kind: Any, shape: Any
) -> None:
    with pytest.raises(BadReference, match="reference polygon"):
        kind(shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice(set()), "right option"),
        (lambda: Choice(""), "right option"),
        (lambda: Choice({1}), "as text"),
        (lambda: Choice(None), "as text"),
        (lambda: Choice({"a"}, options={"b"}), "not among the options"),
        (lambda: Choice({"a"}, options=[]), "options"),
        (lambda: Inside(SQUARE, tolerance_um=5), "needs mpp"),
        (lambda: Inside(SQUARE, tolerance_um=5, tolerance_px=5, mpp=1), "not both"),
        (lambda: Inside(SQUARE, tolerance_px=-1), "not negative"),
        (lambda: Inside(SQUARE, tolerance_px=math.nan), "not negative"),
        (lambda: Inside(SQUARE, tolerance_px=None), "not negative"),
        (lambda: Inside(SQUARE, mpp=0), "above zero"),
        (lambda: Inside(SQUARE, mpp=(1, -1)), "above zero"),
        (lambda: Inside(SQUARE, mpp="0.5"), "above zero"),
        (lambda: Inside(SQUARE, image=SLIDE), "version"),
        (lambda: Near((1, 2)), "tolerance_um, or else"),
        (lambda: Near((1, 2), tolerance_um=5), "needs mpp"),
        (lambda: Near((1, 2), tolerance_um=5, tolerance_px=5, mpp=1), "or else"),
        (lambda: Near((1, 2), tolerance_px=5, zero_um=9), "same unit"),
        (lambda: Near((1, 2), tolerance_px=5, zero_px=4), "below the tolerance"),
        (lambda: Near((1, 2, 3), tolerance_px=5), "point"),
        (lambda: Near((1, math.nan), tolerance_px=5), "point"),
        (lambda: Near("12", tolerance_px=5), "point"),
        (lambda: Outline(SQUARE, full=0.3, none=0.3), "0 <= none < full <= 1"),
        (lambda: Outline(SQUARE, full=75, none=30), "0 <= none < full <= 1"),
        (lambda: Outline(SQUARE, full="1"), "0 <= none < full <= 1"),
    ],
)
def test_a_mistake_in_a_reference_is_raised_when_it_is_written(
    make: Any, message: str
) -> None:
    with pytest.raises(BadReference, match=message):
        make()


@pytest.mark.parametrize(
    ("reference", "given_answer"),
    [
        (Choice("a"), Clicked((1, 1))),
        (Inside(SQUARE), chosen("a")),
        (Near((1, 1), tolerance_px=1), outlined((0, 0), (1, 0), (1, 1))),
        (Outline(SQUARE), Clicked((1, 1))),
    ],
)
def test_an_answer_of_another_kind_is_told(reference: Any, given_answer: Any) -> None:
    with pytest.raises(UnusableAnswer, match=r"asks for .* but your answer file holds"):
        assess(reference, given_answer)


@pytest.mark.parametrize(
    ("reference", "given_answer"),
    [
        (Choice({"secret", "hidden"}), chosen("a")),
        (Inside(FAR), Clicked((1, 1))),
        (Near((12345, 54321), tolerance_px=1), Clicked((1, 1))),
        (Outline(FAR), outlined((0, 0), (1, 0), (1, 1))),
    ],
)
def test_no_reason_tells_the_right_answer(reference: Any, given_answer: Any) -> None:
    reason = assess(reference, given_answer).reason
    for secret in ("secret", "hidden", "123", "543"):
        assert secret not in reason
