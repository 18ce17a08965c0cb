"""The grid that analyses work on: tiles that cover, masks that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum.node import ArrayImage, Polygon
from theatrum.nodes.raster import Box, raster_at

from tests.extensions.nodes.pictures import large_tissue, rectangle

SLIDE = ArrayImage(np.zeros((401, 603, 3), np.uint8), mpp=0.5)


@pytest.mark.parametrize(
    ("mpp", "downsample"), [(0.1, 1), (0.5, 1), (0.68, 1), (0.75, 2), (1, 2), (99, 4)]
)
def test_the_rung_nearest_to_the_scale_is_taken(mpp: float, downsample: float) -> None:
    raster = raster_at(SLIDE, mpp)
    assert (raster.downsample, raster.mpp) == (downsample, 0.5 * downsample)
    assert raster.pixel_mm2 == pytest.approx((0.0005 * downsample) ** 2)


def test_a_slide_without_a_scale_is_taken_as_half_a_micrometre() -> None:
    raster = raster_at(ArrayImage(SLIDE.array), 1.0)
    assert (raster.downsample, raster.known, raster.pixel_mm2) == (2, False, None)


def test_a_slide_too_large_is_looked_at_more_coarsely() -> None:
    raster = raster_at(large_tissue(200_000, 100_000), 8.0, most_pixels=2**24)
    assert raster.downsample == 64
    assert raster.box.width * raster.box.height <= 2**24


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 300), st.integers(0, 200), st.integers(1, 300), st.integers(5, 200)
)
def test_tiles_cover_a_box_once(left: int, top: int, size: int, edge: int) -> None:
    raster = raster_at(SLIDE, 0.5)
    box = Box(left, top, left + size, top + size // 2 + 1)
    seen = np.zeros((600, 800), np.int64)
    for tile in raster.tiles(box, edge):
        assert 0 < tile.width <= edge
        assert 0 < tile.height <= edge
        seen[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert seen[box.top : box.bottom, box.left : box.right].min() == 1
    assert seen.sum() == box.width * box.height


def test_tiles_read_one_by_one_are_the_whole() -> None:
    array = np.random.default_rng(2).integers(0, 255, (401, 603, 3), np.uint8)
    for level_mpp in (0.5, 1.0, 2.0):
        raster = raster_at(ArrayImage(array, mpp=0.5), level_mpp)
        whole = raster.read(raster.box)
        joined = np.zeros_like(whole)
        for tile in raster.tiles(raster.box, 37):
            joined[tile.top : tile.bottom, tile.left : tile.right] = raster.read(tile)
        assert np.array_equal(joined, whole)


_corner = st.tuples(st.floats(-40, 440), st.floats(-40, 440))


@settings(max_examples=60, deadline=None)
@given(st.lists(_corner, min_size=3, max_size=9), st.integers(16, 90))
def test_a_mask_does_not_depend_on_the_tile(
    corners: list[tuple[float, float]], edge: int
) -> None:
    raster = raster_at(ArrayImage(np.zeros((400, 400, 3), np.uint8)), 0.5)
    try:
        polygon = Polygon(corners)
    except ValueError:
        return
    whole = raster.mask(polygon, raster.box)
    joined = np.zeros_like(whole)
    for tile in raster.tiles(raster.box, edge):
        joined[tile.top : tile.bottom, tile.left : tile.right] = raster.mask(
            polygon, tile
        )
    assert np.array_equal(joined, whole)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 100), st.floats(0, 100))
def test_neighbouring_areas_share_no_pixel_and_leave_none_out(
    x: float, y: float
) -> None:
    raster = raster_at(ArrayImage(np.zeros((100, 100, 3), np.uint8)), 0.5)
    inner = (x, y)  # at a corner of the rim, two of the four have no area
    rim = [(0, 0), (100, 0), (100, 100), (0, 100)]
    parts = [
        [inner, first, second]
        for first, second in zip(rim, [*rim[1:], rim[0]], strict=True)
    ]
    total = np.zeros((100, 100), np.int64)
    for part in parts:
        if part[0] not in part[1:]:
            total += raster.mask(Polygon(part), raster.box)
    assert total.min() == total.max() == 1


def test_a_mask_is_the_pixels_whose_centres_lie_inside() -> None:
    raster = raster_at(SLIDE, 1.0)  # two level-0 pixels each
    ring = Polygon(
        [(0, 0), (40, 0), (40, 40), (0, 40)], [[(10, 10), (30, 10), (30, 30), (10, 30)]]
    )
    mask = raster.mask(ring, Box(0, 0, 30, 30))
    assert mask.sum() == 20 * 20 - 10 * 10
    assert not mask[5:15, 5:15].any()
    angle = np.linspace(0, 2 * math.pi, 400)
    disk = Polygon(np.stack([200 + 90 * np.cos(angle), 200 + 90 * np.sin(angle)], 1))
    found = raster.mask(disk, raster.box).sum() * 4
    assert found == pytest.approx(math.pi * 90**2, rel=0.005)


def test_the_part_around_a_polygon_stays_on_the_slide() -> None:
    raster = raster_at(SLIDE, 0.5)
    assert raster.around(rectangle(-50, 390, 20.2, 900)) == Box(0, 390, 21, 401)
    beside = raster.around(rectangle(700, 500, 800, 600))
    assert beside.width <= 0 or beside.height <= 0
    assert raster.tiles(beside) == []
