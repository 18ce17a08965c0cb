"""Along lines: scikit-image's profile, straight bands, lengths in millimetres."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from skimage.measure import profile_line
from theatrum.node import BadValue, Line
from theatrum.nodes.catalog import length, profile, straighten_line

from tests.extensions.nodes.catalog.phantoms import plane

SLANTED = Line([(10, 12), (40, 52)])


def test_a_straight_profile_is_scikit_images() -> None:
    table = profile(plane(), SLANTED)
    theirs = profile_line(plane().values, (12, 10), (52, 40), order=1, mode="nearest")
    assert np.allclose(table.columns["value"], theirs, rtol=1e-4)
    assert table.columns["distance_px"][-1] == pytest.approx(50)
    assert table.columns["distance"][-1] == pytest.approx(25)  # half a mm a pixel


def test_a_wide_profile_is_the_mean_of_scikit_images() -> None:
    table = profile(plane(), SLANTED, width=5)
    theirs = profile_line(
        plane().values, (12, 10), (52, 40), linewidth=5, order=1, mode="nearest"
    )
    assert np.allclose(table.columns["value"], theirs, rtol=1e-4)


def test_an_upright_band_is_a_crop() -> None:
    image = plane()
    band = straighten_line(image, Line([(10, 30), (50, 30)]), width=7)
    assert np.allclose(band, image[27:34, 10:51], atol=1e-4)
    down = straighten_line(image, Line([(30, 10), (30, 40)]), width=5)
    assert np.allclose(down, image.values[10:41, 28:33].T[::-1], atol=1e-4)


def test_a_bent_line_is_laid_straight() -> None:
    y, x = np.mgrid[:80, :80].astype(float)
    distance = np.hypot(y - 5, x - 5)
    rings = xr.DataArray(np.cos(distance / 3), dims=("y", "x"))
    angles = np.linspace(0.1, np.pi / 2 - 0.1, 60)
    arc = Line(np.stack([5 + 50 * np.cos(angles), 5 + 50 * np.sin(angles)], axis=1))
    band = straighten_line(rings, arc, width=15)
    assert band.values[:, 5:-5].std(axis=1).max() < 0.05  # each row is one ring
    assert band.values.std() > 0.3


def test_channels_are_straightened_together() -> None:
    both = xr.concat([plane(0), plane(1)], dim="c")
    band = straighten_line(both, SLANTED, width=9)
    assert band.dims == ("c", "y", "x")
    alone = straighten_line(plane(1), SLANTED, width=9)
    assert np.allclose(band[1], alone)


def test_a_length_is_told_in_pixels_and_millimetres() -> None:
    found = length(SLANTED, plane())
    assert found.pixels == pytest.approx(50)
    assert found.mm == pytest.approx(25)
    assert length(SLANTED).mm is None


def test_only_what_is_bright_along_a_line_counts() -> None:
    image = xr.zeros_like(plane())
    image.values[30, 20:41] = 100
    found = length(Line([(5, 30), (70, 30)]), image, above=50)
    assert found.starts_px == pytest.approx(15)
    assert found.ends_px == pytest.approx(35)
    assert found.mm == pytest.approx(10)
    assert length(Line([(5, 3), (70, 3)]), image, above=50).pixels == 0
    with pytest.raises(BadValue, match="image is needed"):
        length(SLANTED, above=3)
