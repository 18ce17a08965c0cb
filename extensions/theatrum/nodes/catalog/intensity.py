"""Brightness: to physical units, to a common range, through a window.

A constant image has no range: these nodes give zeros for it and say so in the attribute
`warnings`. Pixels that are no numbers stay what they are and count for nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from theatrum.node import Array, BadValue, DType, node

Number = Annotated[Array, DType("number")]
Floats = Annotated[Array, DType("float")]

FLAT = "The image is constant, so that it has no range: it became zeros."


@node(version="1.0.0", kind="filter")
def rescale_slope(
    image: Number, *, slope: float | None = None, intercept: float | None = None
) -> Floats:
    """Turn stored numbers into what they mean: times slope, plus intercept.

    Once: the result's own slope is 1. Without a given slope the image's
    (`rescale_slope`, `rescale_intercept`) is taken, and an image without one keeps its
    numbers.

    Parameters
    ----------
    slope, intercept
        In place of the image's own.
    """
    by = float(image.attrs.get("rescale_slope", 1.0) if slope is None else slope)
    plus = image.attrs.get("rescale_intercept", 0.0) if intercept is None else intercept
    if not np.isfinite(by) or by == 0:
        raise BadValue(f"A slope of {by:g} leaves nothing of the image.")
    out = image.astype(np.float32) * np.float32(by) + np.float32(plus)
    return out.assign_attrs(image.attrs, rescale_slope=1.0, rescale_intercept=0.0)


@node(version="1.0.0", kind="filter")
def window(
    image: Number, *, centre: float = 40.0, width: Annotated[float, Field(gt=0)] = 400.0
) -> Floats:
    """Show a range of values as 0 to 1; below is 0, above is 1.

    Linear as DICOM PS3.3 clause C.11.2.1.3.2 has it (LINEAR_EXACT).

    Parameters
    ----------
    centre, width
        In the image's values: of CT in Hounsfield units.
    """
    low = centre - width / 2
    out = ((image.astype(np.float32) - np.float32(low)) / np.float32(width)).clip(0, 1)
    return out.assign_attrs(
        image.attrs, units="", window_centre=centre, window_width=width
    )


@node(version="1.0.0", kind="filter")
def clip_percentile(
    image: Number,
    *,
    low: Annotated[float, Field(ge=0, le=100)] = 0.5,
    high: Annotated[float, Field(ge=0, le=100)] = 99.5,
    within: Literal["foreground", "all"] = "foreground",
) -> Floats:
    """Scale to 0 to 1 between two percentiles, so that no hot voxel flattens it.

    Parameters
    ----------
    low, high
        In percent of the voxels counted.
    within
        "foreground" counts what is brighter than Otsu's threshold between air and
        body, where that leaves at least a thousandth of all voxels.
    """
    if low >= high:
        raise BadValue("The lower percentile has to be below the higher.")
    values = _finite(image)
    counted = _foreground(values) if within == "foreground" else values
    if not counted.size:
        return _flat(image)
    bottom, top = (float(one) for one in np.percentile(counted, (low, high)))
    if top <= bottom:
        bottom, top = float(values.min()), float(values.max())
    if top <= bottom:
        return _flat(image)
    out = _scaled(image, bottom, top - bottom).clip(0, 1)
    # Of what was counted: air is below any body's range, and nothing is lost there.
    clipped = float(((counted < bottom) | (counted > top)).mean() * 100)
    return out.assign_attrs(
        image.attrs, units="", range=[bottom, top], clipped_percent=clipped
    )


@node(version="1.0.0", kind="filter")
def zscore(image: Number, *, within: Literal["foreground", "all"] = "all") -> Floats:
    """Give the image mean 0 and standard deviation 1.

    Parameters
    ----------
    within
        What mean and deviation are of: all voxels, or those of the body.
    """
    values = _finite(image)
    counted = _foreground(values) if within == "foreground" else values
    spread = float(counted.std()) if counted.size else 0.0
    if spread == 0:
        return _flat(image)
    return _scaled(image, float(counted.mean()), spread).assign_attrs(
        image.attrs, units=""
    )


@node(version="1.0.0", kind="filter")
def minmax(image: Number) -> Floats:
    """Scale the darkest voxel to 0 and the brightest to 1."""
    values = _finite(image)
    if not values.size or values.max() == values.min():
        return _flat(image)
    bottom, top = float(values.min()), float(values.max())
    return _scaled(image, bottom, top - bottom).assign_attrs(
        image.attrs, units="", range=[bottom, top]
    )


def _scaled(image: xr.DataArray, minus: float, by: float) -> xr.DataArray:
    return ((image.astype(np.float64) - minus) / by).astype(np.float32)


def _flat(image: xr.DataArray) -> xr.DataArray:
    # Not times 0: that would keep infinities as what is no number.
    zeros = xr.zeros_like(image, dtype=np.float32)
    warnings = [*image.attrs.get("warnings", ()), FLAT]
    return zeros.assign_attrs(image.attrs, warnings=warnings)


def _finite(image: xr.DataArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = image.values.ravel()
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return values.astype(np.float64)


def _foreground(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if not values.size or values.max() == values.min():
        return values
    from skimage.filters import threshold_otsu

    body = values[values > threshold_otsu(values)]
    return body if body.size >= values.size / 1000 else values
