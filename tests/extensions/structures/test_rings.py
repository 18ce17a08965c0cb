import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from theatrum.structures import mask_of, rings_of

MASKS = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: arrays(bool, shape)
)


@given(MASKS)
@settings(max_examples=400)
def test_a_mask_comes_back_from_its_rings_without_losing_a_pixel(mask):
    assert np.array_equal(mask_of(rings_of(mask), mask.shape), mask)


def test_a_ring_with_a_hole_and_an_island_comes_back():
    mask = np.zeros((30, 30), bool)
    mask[2:28, 2:28] = True
    mask[6:24, 6:24] = False
    mask[12:18, 12:18] = True
    mask[14:16, 14:16] = False
    rings = rings_of(mask)
    assert len(rings) == 2, "a hole is joined to its outer ring, an island is its own"
    assert np.array_equal(mask_of(rings, mask.shape), mask)


def test_nothing_has_no_ring():
    assert rings_of(np.zeros((5, 5), bool)) == []


def test_a_straight_side_has_no_points_in_its_middle():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    (ring,) = rings_of(mask)
    assert len(ring) == 8, "a square with its corners cut"


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.5, 20))
def test_the_area_of_a_disc_is_that_of_its_pixels(x, y, radius):
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ring = np.column_stack(
        [50 + x / 2 + radius * np.cos(angles), 50 + y / 2 + radius * np.sin(angles)]
    )
    drawn = mask_of([ring], (100, 100)).sum()
    assert drawn == pytest.approx(np.pi * radius**2, abs=8 + 2 * radius)


def test_a_ring_outside_the_image_draws_nothing_and_one_across_draws_its_part():
    square = np.array([[-5, -5], [5, -5], [5, 5], [-5, 5]], float)
    assert not mask_of([square - 50], (10, 10)).any()
    assert not mask_of([square + 50], (10, 10)).any()
    assert mask_of([square], (10, 10)).sum() == 25


def test_neighbouring_rings_never_share_a_pixel():
    left = np.array([[0, 0], [5, 0], [5, 10], [0, 10]], float)
    right = left + np.array([5, 0])
    both = mask_of([left], (12, 12)).astype(int) + mask_of([right], (12, 12))
    assert both.max() == 1
    assert both.sum() == 100


def test_a_ring_in_a_ring_is_a_hole():
    outer = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], float)
    inner = np.array([[3, 3], [6, 3], [6, 6], [3, 6]], float)
    mask = mask_of([outer, inner], (10, 10))
    assert mask.sum() == 81 - 9
    assert not mask[4, 4]
