"""Filters of a pixel's surroundings: smoothing, edges, contrast of small things.

All work within the plane (y, x) unless told "zyx", lazily, and beyond the image's edge
on its mirror image (scipy's mode "reflect"). Sizes are pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from pydantic import Field

from theatrum.node import Array, Axes, BadValue, DType, node
from theatrum.nodes.catalog.lazily import nearby

Within = Literal["yx", "zyx"]
Picture = Annotated[Array, Axes("y", "x"), DType("number")]
Floats = Annotated[Array, DType("float")]
Values = npt.NDArray[Any]  # of any kind of number
Radius = Annotated[int, Field(ge=1, le=200)]


def _axes(image: xr.DataArray, within: Within) -> tuple[int, ...]:
    missing = [name for name in within if name not in image.dims]
    if missing:
        raise BadValue(f"This image has no axis {missing[0]}: filter within yx.")
    return tuple(list(image.dims).index(name) for name in within)


def _footprint(image: xr.DataArray, within: Within, radius: int) -> Values:
    """Return a disk or a ball along the axes filtered, of one pixel along others."""
    axes = _axes(image, within)
    ranges = [
        np.arange(-radius, radius + 1) if axis in axes else np.zeros(1)
        for axis in range(image.ndim)
    ]
    squares = sum(one**2 for one in np.meshgrid(*ranges, indexing="ij"))
    return np.asarray(squares <= radius * radius)


def _reach(within: Within, pixels: int) -> dict[str, int]:
    return dict.fromkeys(within, pixels)


@node(version="1.0.0", kind="filter")
def gauss(
    image: Picture,
    *,
    sigma: Annotated[float, Field(gt=0, le=100)] = 1.0,
    within: Within = "yx",
) -> Floats:
    """Smooth with a Gaussian; it is cut off at four sigma.

    Parameters
    ----------
    sigma
        Pixels.
    """
    from scipy import ndimage

    axes = _axes(image, within)
    sigmas = [sigma if axis in axes else 0.0 for axis in range(image.ndim)]
    return nearby(
        image,
        lambda part: ndimage.gaussian_filter(part.astype(np.float32), sigmas),
        _reach(within, int(4 * sigma + 0.5)),
        np.float32,
    )


@node(version="1.0.0", kind="filter")
def median(image: Picture, *, radius: Radius = 1, within: Within = "yx") -> Array:
    """Replace each pixel by the median of the square around it.

    Parameters
    ----------
    radius
        Of the square: 1 is 3 by 3 pixels.
    """
    from scipy import ndimage

    axes = _axes(image, within)
    size = [2 * radius + 1 if axis in axes else 1 for axis in range(image.ndim)]
    return nearby(
        image,
        lambda part: ndimage.median_filter(part, size=size),
        _reach(within, radius),
        image.dtype,
    )


def _gradient(
    image: xr.DataArray, within: Within, derive: Callable[[Values, int], Values]
) -> xr.DataArray:
    axes = _axes(image, within)

    def magnitude(part: Values) -> Values:
        part = part.astype(np.float32)
        return np.asarray(np.sqrt(sum(derive(part, axis) ** 2 for axis in axes)))

    return nearby(image, magnitude, _reach(within, 1), np.float32)


def _along(
    weights: tuple[float, float, float], axes: tuple[int, ...]
) -> Callable[[Values, int], Values]:
    """Return a difference along one axis, smoothed by weights along the others."""
    from scipy import ndimage

    def derive(part: Values, axis: int) -> Values:
        out = ndimage.correlate1d(part, (-1, 0, 1), axis)
        for other in axes:
            if other != axis:
                out = ndimage.correlate1d(out, weights, other)
        return np.asarray(out)

    return derive


@node(version="1.0.0", kind="filter")
def prewitt(image: Picture, *, within: Within = "yx") -> Floats:
    """Strength of edges: Prewitt's differences, summed over three pixels each."""
    return _gradient(image, within, _along((1, 1, 1), _axes(image, within)))


@node(version="1.0.0", kind="filter")
def sobel(image: Picture, *, within: Within = "yx") -> Floats:
    """Strength of edges: Sobel's differences, smoothed by 1 2 1."""
    return _gradient(image, within, _along((1, 2, 1), _axes(image, within)))


@node(version="1.0.0", kind="filter")
def laplace(image: Picture, *, within: Within = "yx") -> Floats:
    """Second differences: bright where it is darker than around it."""
    from scipy import ndimage

    axes = _axes(image, within)

    def second(part: Values) -> Values:
        part = part.astype(np.float32)
        total = sum(ndimage.correlate1d(part, (1, -2, 1), axis) for axis in axes)
        return np.asarray(total)

    return nearby(image, second, _reach(within, 1), np.float32)


@node(version="1.0.0", kind="filter")
def unsharp(
    image: Picture,
    *,
    sigma: Annotated[float, Field(gt=0, le=100)] = 1.0,
    amount: Annotated[float, Field(ge=0, le=20)] = 1.0,
    within: Within = "yx",
) -> Floats:
    """Sharpen: add what a Gaussian takes away.

    Parameters
    ----------
    sigma
        Of the Gaussian, pixels.
    amount
        How many times it is added.
    """
    smooth = gauss(image, sigma=sigma, within=within)
    sharp = image.astype(np.float32)
    return (sharp + np.float32(amount) * (sharp - smooth)).assign_attrs(image.attrs)


@node(version="1.0.0", kind="filter")
def tophat(image: Picture, *, radius: Radius = 10, within: Within = "yx") -> Array:
    """Keep bright things that are smaller than a disk: an even background goes.

    Parameters
    ----------
    radius
        Of the disk or ball, pixels.
    """
    from scipy import ndimage

    footprint = _footprint(image, within, radius)
    return nearby(
        image,
        lambda part: ndimage.white_tophat(part, footprint=footprint),
        _reach(within, 2 * radius),  # an erosion, then a dilation of it
        image.dtype,
    )
