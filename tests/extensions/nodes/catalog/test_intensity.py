"""Brightness: percentiles, windows, N4 and Nyul against numpy and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from skimage.filters import threshold_otsu
from theatrum.node import BadInputs, BadValue
from theatrum.nodes.catalog import (
    clip_percentile,
    minmax,
    n4,
    nyul,
    nyul_standard,
    rescale_slope,
    window,
    zscore,
)

from tests.extensions.nodes.catalog.phantoms import ball, head, plane


def test_slope_and_intercept_are_applied_once() -> None:
    stored = head().assign_attrs(rescale_slope=2.0, rescale_intercept=-1024.0)
    real = rescale_slope(stored)
    assert np.allclose(real, stored.values * 2.0 - 1024)
    assert np.array_equal(rescale_slope(real), real)
    with pytest.raises(BadValue, match="leaves nothing"):
        rescale_slope(stored, slope=0.0)


def test_a_window_is_linear_between_its_ends() -> None:
    shown = window(head(), centre=4000, width=2000)
    assert np.allclose(shown, np.clip((head().values - 3000) / 2000, 0, 1), atol=1e-6)


def test_percentiles_are_numpys() -> None:
    image = plane()
    out = clip_percentile(image, low=2, high=98, within="all")
    low, high = np.percentile(image, (2, 98))
    assert np.allclose(out, np.clip((image - low) / (high - low), 0, 1), atol=1e-5)
    assert out.attrs["clipped_percent"] == pytest.approx(4, abs=0.2)


def test_a_hot_voxel_does_not_flatten_the_image() -> None:
    image = plane()
    image.values[0, 0] = 1e6
    assert float(minmax(image).median()) < 1e-3
    assert float(clip_percentile(image, within="all").median()) > 0.02


def test_the_foreground_is_what_otsu_says() -> None:
    body = plane().values[plane().values > threshold_otsu(plane().values)]
    out = clip_percentile(plane(), low=0, high=100)
    assert out.attrs["range"] == pytest.approx([body.min(), body.max()], rel=1e-5)
    scaled = zscore(plane(), within="foreground")
    assert np.allclose(scaled, (plane() - body.mean()) / body.std(), atol=1e-3)


@pytest.mark.parametrize("scale", [clip_percentile, zscore, minmax])
def test_a_constant_image_becomes_zeros_with_a_warning(scale: object) -> None:
    flat = plane() * 0 + 7
    out = scale(flat)  # type: ignore[operator]
    assert (out.values == 0).all()
    assert "constant" in out.attrs["warnings"][0]


def test_pixels_that_are_no_numbers_count_for_nothing() -> None:
    image = plane()
    image.values[3, 3] = np.nan
    out = minmax(image)
    assert np.isnan(out.values[3, 3])
    assert np.nanmax(out) == 1


def test_n4_is_simpleitks_and_takes_the_bias_off() -> None:
    volume = ball()
    x = np.linspace(-1, 1, volume.sizes["x"])
    bent = volume.copy(data=(volume.values * np.exp(0.5 * x)).astype(np.float32))
    out = n4(bent, shrink=2)
    inside = volume.values > 90
    before, after = (
        one.values[inside].std() / one.values[inside].mean() for one in (bent, out)
    )
    assert after < before / 3
    image = SimpleITK.GetImageFromArray(bent.values)
    small = SimpleITK.Shrink(image, [2, 2, 2])
    mask = SimpleITK.Shrink(SimpleITK.OtsuThreshold(image, 0, 1, 200), [2, 2, 2])
    corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([50, 50, 50])
    corrector.Execute(small, mask)
    field = SimpleITK.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    assert np.allclose(out, bent.values / np.exp(field), rtol=1e-3)


def test_nyul_brings_two_scanners_to_one_scale() -> None:
    one = ball()
    two = (one * 3.7 + 40).assign_attrs(one.attrs)
    standard = nyul_standard([one, two])
    assert standard.columns["value"][0] == 0
    assert standard.columns["value"][-1] == pytest.approx(100)
    a, b = nyul(one, standard), nyul(two, standard)
    assert np.allclose(a, b, atol=1e-2)
    rising = np.argsort(one.values, axis=None)
    assert (np.diff(a.values.ravel()[rising]) >= -1e-4).all()


def test_nyul_says_what_it_cannot_use() -> None:
    from theatrum.node import Table

    with pytest.raises(BadValue, match="nyul_standard"):
        nyul(ball(), Table({"percentile": [1.0], "value": [2.0]}))
    with pytest.raises(BadValue, match="constant"):
        nyul_standard([ball() * 0])
    with pytest.raises(BadInputs):
        nyul.run({"image": ball()})
