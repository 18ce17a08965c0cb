"""Outlines of masks: exact areas, holes where holes are; what of a polygon is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from theatrum.node import ArrayImage, BadValue, Polygon
from theatrum.nodes.outlines import on_slide, outlines, simplified
from theatrum.nodes.raster import raster_at

from tests.extensions.nodes.pictures import rectangle

SLIDE = ArrayImage(np.zeros((100, 200, 3), np.uint8))


@settings(max_examples=150, deadline=None)
@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_outlines_are_the_mask_again(mask: np.ndarray) -> None:
    found = outlines(mask)
    assert sum(one.area_px for one in found) == mask.sum()
    raster = raster_at(ArrayImage(np.zeros((*mask.shape, 3), np.uint8)), 0.5)
    again = np.zeros(mask.shape, np.int64)
    for one in found:
        again += raster.mask(one, raster.box)
    assert np.array_equal(again, mask)


def test_a_piece_with_holes_is_one_polygon_and_the_largest_is_first() -> None:
    mask = np.zeros((20, 30), bool)
    mask[0:3, 0:3] = True
    mask[5:18, 5:25] = True
    mask[7:9, 7:9] = mask[11:15, 12:20] = False
    mask[13, 15] = True
    large, small, island = outlines(mask)
    assert [len(one.holes) for one in (large, small, island)] == [2, 0, 0]
    assert large.area_px == 13 * 20 - 4 - 32
    assert large.bounds == (5, 5, 25, 18)
    assert len(large.exterior) == 4
    assert island.bounds == (15, 13, 16, 14)


def test_pieces_that_touch_at_a_corner_are_two() -> None:
    assert len(outlines(np.eye(3, dtype=bool))) == 3
    assert outlines(np.zeros((3, 3), bool)) == []


def test_a_simplified_outline_has_fewer_corners_and_nearly_the_area() -> None:
    rows, columns = np.ogrid[:400, :400]
    (disk,) = outlines((rows - 200) ** 2 + (columns - 200) ** 2 <= 150**2)
    simple = simplified(disk, 2.0)
    assert len(simple.exterior) < len(disk.exterior) / 5
    assert simple.area_px == pytest.approx(disk.area_px, rel=0.02)
    assert simplified(disk, 0.0).area_px == disk.area_px


def test_a_polygon_is_clipped_to_the_slide() -> None:
    (part,) = on_slide(rectangle(-50, -50, 50, 50), SLIDE)
    assert (part.area_px, part.bounds) == (2500, (0, 0, 50, 50))
    (whole,) = on_slide(rectangle(-5, -5, 900, 900), SLIDE)
    assert whole.area_px == 200 * 100
    hook = Polygon([(10, 50), (10, 150), (60, 150), (60, 50), (50, 50), (50, 140)])
    assert sum(one.area_px for one in on_slide(hook, SLIDE)) < hook.area_px


def test_a_hole_stays_a_hole() -> None:
    ring = Polygon(
        rectangle(0, 0, 60, 60).exterior, [rectangle(20, 20, 40, 40).exterior]
    )
    (part,) = on_slide(ring, SLIDE)
    assert part.area_px == 3600 - 400


def test_a_line_that_crosses_itself_is_taken_as_even_odd() -> None:
    bow = Polygon([(0, 0), (40, 40), (40, 0), (0, 40)])
    parts = on_slide(bow, SLIDE)
    assert len(parts) == 2
    assert sum(part.area_px for part in parts) == pytest.approx(800)
    raster = raster_at(SLIDE, 0.5)
    pixels = sum(int(raster.mask(part, raster.box).sum()) for part in parts)
    assert pixels == raster.mask(bow, raster.box).sum()


@pytest.mark.parametrize(
    "polygon",
    [rectangle(300, 300, 400, 400), Polygon([(0, 0), (10, 10), (20, 20)])],
)
def test_a_polygon_without_an_area_on_the_slide_is_refused(polygon: Polygon) -> None:
    with pytest.raises(BadValue, match="draw it anew"):
        on_slide(polygon, SLIDE)
