"""Channels, flat fields and deconvolution against scikit-image and plain algebra."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from skimage import restoration
from theatrum.node import BadInputs, BadValue, Cancelled, Context
from theatrum.nodes.catalog import (
    deconvolve,
    flatfield,
    map_channels,
    merge_channels,
    split_channels,
    unmix,
)

from tests.extensions.nodes.catalog.phantoms import plane


def stack(count: int = 4) -> xr.DataArray:
    """Channels that differ, named a, b, c, d."""
    return merge_channels([plane(at) for at in range(count)]).assign_attrs(
        channels=list("abcdefgh"[:count])
    )


def test_channels_that_are_split_and_merged_are_the_same() -> None:
    parts = split_channels(stack())
    assert [one.attrs["channels"] for one in parts] == [["a"], ["b"], ["c"], ["d"]]
    again = merge_channels(parts)
    assert np.array_equal(again, stack())
    assert again.attrs["channels"] == list("abcd")


def test_channels_are_mapped_to_colours_as_they_are_told() -> None:
    image = stack()
    colours = map_channels(image, red=(0, 3), green=(1,), blue=())
    assert colours.dims == ("c", "y", "x")
    assert np.array_equal(colours[0], np.maximum(image[0], image[3]))
    assert np.array_equal(colours[1], image[1])
    assert not colours[2].values.any()
    assert map_channels(image.chunk({"c": 1})).chunks is not None
    with pytest.raises(BadValue, match="no channel 7"):
        map_channels(image, red=(7,))


def test_images_of_different_size_are_not_merged() -> None:
    with pytest.raises(BadValue, match="one size"):
        merge_channels([plane(), plane(shape=(5, 5))])


@pytest.mark.parametrize("lazy", [False, True])
def test_dyes_are_told_apart(lazy: bool) -> None:
    spectra = ((0.8, 0.2, 0.05), (0.1, 0.7, 0.3))
    dyes = merge_channels([plane(0), plane(1)])
    mixed = xr.dot(
        dyes, xr.DataArray(np.array(spectra), dims=("c", "band")), dim="c"
    ).rename(band="c")
    mixed = mixed.transpose("c", "y", "x")
    found = unmix(
        mixed.chunk({"y": 20}) if lazy else mixed, spectra=spectra, names=("p", "q")
    )
    assert np.allclose(found, dyes, atol=1e-2)
    assert found.attrs["channels"] == ["p", "q"]


def test_no_dye_is_less_than_none() -> None:
    noise = np.random.default_rng(5).normal(0, 1, (3, 9, 9))
    image = xr.DataArray(noise, dims=("c", "y", "x"))
    spectra = ((0.8, 0.2, 0.05), (0.1, 0.7, 0.3))
    assert float(unmix(image, spectra=spectra).min()) >= 0
    assert float(unmix(image, spectra=spectra, not_negative=False).min()) < 0
    with pytest.raises(BadValue, match="told apart"):
        unmix(image, spectra=((1, 1, 1), (2, 2, 2)))


def test_uneven_light_is_evened_out() -> None:
    light = 0.5 + np.linspace(0, 1, 83) * np.ones((61, 83))
    seen = (plane() * light + 5).astype(np.float32)
    bright = xr.DataArray(light * 200 + 5, dims=("y", "x"))
    dark = xr.DataArray(np.full((61, 83), 5.0), dims=("y", "x"))
    out = flatfield(seen, bright, dark)
    ratio = out.values / plane().values
    assert ratio.std() / ratio.mean() < 1e-4
    with pytest.raises(BadValue, match="no brighter"):
        flatfield(seen, dark, bright)
    with pytest.raises(BadInputs, match="'bright'"):
        flatfield.run({"image": seen})


def test_a_flat_field_is_laid_on_by_pixels_and_not_by_millimetres() -> None:
    def at(start: float, level: float) -> xr.DataArray:
        along = start + np.arange(4) * 0.5
        numbers = level + np.arange(16.0).reshape(4, 4)
        return xr.DataArray(numbers, dims=("y", "x"), coords={"y": along, "x": along})

    image, bright, dark = at(10, 50), at(0, 20), at(3, 1)
    out = flatfield(image, bright, dark)
    light = bright.values - dark.values
    wanted = (image.values - dark.values) / light * light.mean()
    assert np.allclose(out.values, wanted)
    assert np.array_equal(out.x, image.x)
    with pytest.raises(BadValue, match="4 along y"):
        flatfield(image.isel(y=slice(0, 3)), bright)


def test_deconvolution_is_scikit_images_and_sharpens() -> None:
    rng = np.random.default_rng(2)
    truth = np.zeros((48, 48))
    truth[tuple(rng.integers(8, 40, (2, 12)))] = 100
    y, x = np.mgrid[-6:7, -6:7]
    psf = np.exp(-(y**2 + x**2) / (2 * 1.5**2))
    psf /= psf.sum()
    from scipy.signal import fftconvolve

    seen = np.maximum(fftconvolve(truth, psf, mode="same"), 0) + 0.01
    image = xr.DataArray(seen, dims=("y", "x"))
    mine = deconvolve(image, xr.DataArray(psf, dims=("y", "x")), rounds=15)
    theirs = restoration.richardson_lucy(seen, psf, num_iter=15, clip=False)
    assert np.allclose(mine, theirs, rtol=1e-3, atol=1e-3)
    blur, sharp = (np.abs(one - truth).sum() for one in (seen, mine.values))
    assert sharp < 0.85 * blur


def test_deconvolution_stops_between_two_rounds() -> None:
    rounds: list[float] = []
    context = Context(lambda done, _: rounds.append(done), lambda: len(rounds) >= 3)
    with pytest.raises(Cancelled):
        deconvolve(plane(), rounds=100, context=context)
    assert len(rounds) == 3
