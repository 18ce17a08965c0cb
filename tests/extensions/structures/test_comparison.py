import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from theatrum.structures import StructureError, compare

SPACING = (2.0, 1.0, 0.5)
MASKS = arrays(bool, (4, 6, 7))


def cube(start=5, side=10, shape=(20, 20, 20)):
    mask = np.zeros(shape, bool)
    mask[5:15, 5:15, start : start + side] = True
    return mask


def test_equal_structures_agree_in_every_measure():
    same = compare(cube(), cube(), (1, 1, 1))
    assert (same.dice, same.jaccard, same.surface_dice) == (1, 1, 1)
    assert (same.hausdorff_mm, same.hausdorff_95_mm, same.mean_surface_mm) == (0, 0, 0)
    assert same.added_path_mm == 0
    assert same.volume_ml == pytest.approx(1.0)


def test_a_shift_is_measured_in_millimetres_of_its_axis():
    shifted = compare(cube(), cube(start=7), (1, 1, 1.5), tolerance_mm=2)
    assert shifted.dice == pytest.approx(2 * 8 / 20)
    assert shifted.hausdorff_mm == pytest.approx(3.0)
    assert shifted.surface_dice < 1
    assert compare(cube(), cube(start=7), (1, 1, 1.5), 3).surface_dice == 1
    assert compare(cube(), cube(start=7), (1, 1, 1.5), 3).added_path_mm == 0


def test_empty_structures_have_their_own_answers():
    nothing = np.zeros((20, 20, 20), bool)
    both = compare(nothing, nothing, (1, 1, 1))
    assert (both.dice, both.hausdorff_mm, both.surface_dice) == (1, 0, 1)
    one = compare(nothing, cube(), (1, 1, 1))
    assert (one.dice, one.surface_dice, one.volume_ml) == (0, 0, 0)
    assert math.isinf(one.hausdorff_95_mm)
    assert one.added_path_mm > 0


@given(MASKS, MASKS)
@settings(max_examples=100, deadline=None)
def test_measures_are_the_same_both_ways_and_in_their_bounds(one, other):
    there, back = compare(one, other, SPACING), compare(other, one, SPACING)
    for name in ("dice", "jaccard", "hausdorff_mm", "hausdorff_95_mm", "surface_dice"):
        assert getattr(there, name) == pytest.approx(getattr(back, name))
    assert 0 <= there.jaccard <= there.dice <= 1
    assert there.hausdorff_95_mm <= there.hausdorff_mm
    assert 0 <= there.surface_dice <= 1


@given(MASKS, MASKS)
@settings(max_examples=30, deadline=None)
def test_distances_are_those_of_every_pair_of_surface_voxels(one, other):
    from scipy.ndimage import binary_erosion
    from scipy.spatial.distance import cdist

    surfaces = [
        np.argwhere(mask & ~binary_erosion(mask)) * SPACING for mask in (one, other)
    ]
    if not all(map(len, surfaces)):
        return
    away = cdist(*surfaces)
    expected = max(away.min(axis=0).max(), away.min(axis=1).max())
    assert compare(one, other, SPACING).hausdorff_mm == pytest.approx(expected)


def test_masks_of_other_images_are_not_compared():
    with pytest.raises(StructureError):
        compare(cube(), np.zeros((2, 2, 2), bool), (1, 1, 1))
