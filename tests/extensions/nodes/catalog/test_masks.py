"""Masks, labels and their measures against scikit-image and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage
from skimage import filters, measure
from theatrum.node import BadInputs, BadValue
from theatrum.nodes.catalog import (
    brain_mask,
    clusters,
    colocalise,
    histogram,
    label,
    merge_channels,
    regionprops,
    threshold,
)

from tests.extensions.nodes.catalog.phantoms import ball, plane


@pytest.mark.parametrize(
    "rule", ["otsu", "li", "triangle", "yen", "isodata", "mean", "minimum"]
)
def test_thresholds_are_scikit_images(rule: str) -> None:
    image = plane()
    found = threshold(image, rule=rule)
    level = float(getattr(filters, f"threshold_{rule}")(image.values))
    assert found.threshold == pytest.approx(level)
    assert np.array_equal(found.mask, image.values > level)
    assert found.share == pytest.approx(100 * (image.values > level).mean())
    assert found.mask.attrs["is_label"]


def test_a_fixed_threshold_is_as_it_is_told_and_a_constant_image_has_none() -> None:
    assert threshold(plane(), rule="fixed", value=30).threshold == 30
    with pytest.raises(BadValue, match="constant"):
        threshold(plane() * 0)


@pytest.mark.parametrize("corners", [False, True])
def test_labels_are_scipys(corners: bool) -> None:
    mask = threshold(plane()).mask
    mask.values[0, 0] = mask.values[1, 1] = 1
    found = label(mask, corners=corners)
    near = ndimage.generate_binary_structure(2, 2 if corners else 1)
    want, count = ndimage.label(mask.values, near)
    assert found.count == count
    assert np.array_equal(found.labels, want)


def test_small_things_are_left_out_and_numbers_have_no_gaps() -> None:
    mask = threshold(plane()).mask
    mask.values[0, :2] = 1
    found = label(mask, smallest=5)
    assert found.labels.values[0, 0] == 0
    assert set(np.unique(found.labels)) == set(range(found.count + 1))


def test_frames_of_time_are_labelled_each_by_itself() -> None:
    mask = threshold(plane()).mask
    series = xr.concat([mask, mask], dim="t")
    found = label(series)
    assert found.count == 2 * label(mask).count
    assert not set(np.unique(found.labels[0])) & set(np.unique(found.labels[1])) - {0}


def test_clusters_measure_what_otsu_finds() -> None:
    found = clusters(plane(), smallest=10)
    assert found.count == 3
    areas = np.array(found.table.columns["area"])
    assert np.allclose(areas, np.array(found.table.columns["pixels"]) * 0.25)


def test_regions_agree_with_scipy() -> None:
    labels = label(threshold(plane()).mask).labels
    table = regionprops(labels, plane())
    index = table.columns["label"]
    sums = ndimage.sum_labels(np.ones(labels.shape), labels.values, index)
    assert np.allclose(table.columns["area"], sums)
    means = ndimage.mean(plane().values, labels.values, index)
    assert np.allclose(table.columns["intensity_mean"], means, rtol=1e-5)
    centres = ndimage.center_of_mass(labels.values > 0, labels.values, index)
    assert np.allclose(table.columns["y_mm"], [0.5 * one[0] for one in centres])
    assert table.units["mm2"] == "mm2"
    with pytest.raises(BadInputs):
        regionprops(labels, plane(shape=(4, 4)))


def test_regions_of_a_volume_are_measured_in_mm3() -> None:
    volume = ball()
    volume.attrs["affine"] = np.diag([2.0, 3.0, 4.0, 1.0]).tolist()
    inside = (volume > 95).astype(np.uint8).assign_attrs(volume.attrs)
    labels = label(inside, smallest=100).labels
    table = regionprops(labels)
    assert table.columns["mm3"][0] == pytest.approx(table.columns["area"][0] * 24)


def test_the_brain_of_a_phantom_is_found_without_its_skull() -> None:
    volume = ball(radius=12, edge=40)
    mask = brain_mask(volume, opening_mm=2)
    z, y, x = np.mgrid[:40, :40, :40] - 19.5
    truth = np.sqrt(z * z + y * y + x * x) < 12
    both = (mask.values > 0) & truth
    dice = 2 * both.sum() / (mask.values.sum() + truth.sum())
    assert dice > 0.97
    assert mask.attrs["brain_tool"] == "morphology"


def test_a_tool_that_is_not_installed_is_told() -> None:
    with pytest.raises(BadInputs, match="not installed"):
        brain_mask(ball(), tool="hd-bet")


@pytest.mark.parametrize("lazy", [False, True])
def test_a_histogram_is_numpys(lazy: bool) -> None:
    image = plane().chunk({"y": 20}) if lazy else plane()
    table = histogram(image, bins=32, low=0, high=80)
    want, edges = np.histogram(plane().values, 32, (0, 80))
    assert table.columns["count"] == want.tolist()
    assert np.allclose(table.columns["from"], edges[:-1])
    several = histogram(merge_channels([plane(0), plane(1)]))
    assert sum(several.columns["image 1"]) == plane().size


def test_colocalisation_is_scikit_images() -> None:
    first, second = plane(0), plane(1) + plane(0) / 2
    image = merge_channels([first, second])
    found = colocalise(image, above=(30.0, 40.0))
    pearson, _ = measure.pearson_corr_coeff(first.values, second.values)
    assert found.pearson == pytest.approx(pearson, rel=1e-5)
    assert found.manders_1 == pytest.approx(
        measure.manders_coloc_coeff(first.values, second.values > 40), rel=1e-5
    )
    assert found.manders_2 == pytest.approx(
        measure.manders_coloc_coeff(second.values, first.values > 30), rel=1e-5
    )
    overlap = measure.manders_overlap_coeff(first.values, second.values)
    assert found.overlap == pytest.approx(overlap, rel=1e-5)


def test_a_constant_channel_has_no_correlation() -> None:
    image = merge_channels([plane(0), plane(1) * 0])
    assert colocalise(image, above=(0.0, 0.0)).pearson is None
    mask = xr.zeros_like(plane(), dtype=np.uint8)
    with pytest.raises(BadValue, match="empty"):
        colocalise(image, mask)
