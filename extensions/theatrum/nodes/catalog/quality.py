"""Quality of slices as numbers, and their numbers in a smaller form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from theatrum.node import Array, BadValue, Dims, DType, Measure, node
from theatrum.nodes.catalog.intensity import clip_percentile, window


@node(version="1.0.0", kind="filter")
def normalise(
    image: Annotated[Array, DType("number")],
    *,
    low: Annotated[float, Field(ge=0, le=100)] = 0.5,
    high: Annotated[float, Field(ge=0, le=100)] = 99.5,
    ct_centre: float = 40.0,
    ct_width: Annotated[float, Field(gt=0)] = 80.0,
) -> Annotated[Array, DType("float")]:
    """Bring brightness to 0 to 1: of CT through a window, else between percentiles.

    Parameters
    ----------
    low, high
        Percentiles of what is brighter than air, of all but CT.
    ct_centre, ct_width
        Hounsfield units; those of a brain.
    """
    if image.attrs.get("modality") == "CT":
        shown = window(image, centre=ct_centre, width=ct_width)
        body = float((shown > 0).sum())
        over = float((shown == 1).sum())
        return shown.assign_attrs(clipped_percent=100 * over / body if body else 0.0)
    return clip_percentile(image, low=low, high=high)


@node(version="1.0.0", kind="filter")
def quantise(
    image: Annotated[Array, DType("number")],
    *,
    to: Literal["float16", "uint16", "uint8", "float32"] = "uint16",
) -> Array:
    """Store values of 0 to 1 in fewer bytes.

    Parameters
    ----------
    to
        Whole numbers count from 0 to their most for 0 to 1; float16 keeps three
        digits, float32 all.
    """
    if to.startswith("float"):
        return image.astype(to)
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        raise BadValue(f"Values of {low:g} to {high:g} are not within 0 to 1.")
    most = np.iinfo(to).max
    out = (image * most).round().astype(to)
    return out.assign_attrs(image.attrs, stored_slope=1 / most)


@dataclass(frozen=True)
class SliceQuality:
    """How good a stack of slices is."""

    slices: Annotated[int, Measure(title="Slices")]
    blank_percent: Annotated[float, Measure(unit="%", title="Blank slices")]
    clipped_percent: Annotated[float | None, Measure(unit="%", title="Clipped voxels")]
    orientation_known: bool
    left_right: str
    remarks: str


@node(version="1.0.0", kind="measure")
def slice_quality(
    image: Annotated[Array, Dims("[t] [c] z y x")],
    *,
    least_share: Annotated[float, Field(ge=0, le=1)] = 0.01,
    level: float = 0.05,
) -> SliceQuality:
    """Tell how many slices show nothing, how much was clipped, and what is in doubt.

    That left is left cannot be proven from pixels: it rests on the scanner's word, and
    the result says so.

    Parameters
    ----------
    least_share
        A slice with less of its pixels above `level` is blank.
    level
        From 0 to 1.
    """
    others = [name for name in image.dims if name != "z"]
    values = image.astype(np.float32)
    if image.dtype.kind == "u":
        values = values / np.iinfo(image.dtype).max
    shares = (values > level).mean(others).values
    known = len(str(image.attrs.get("orientation", ""))) == 3
    remarks = [str(one) for one in image.attrs.get("warnings", ())]
    clipped = image.attrs.get("clipped_percent")
    if clipped is not None and float(clipped) > 5:
        remarks.append(
            f"{float(clipped):.1f} % of the voxels are at an end of the range"
        )
    return SliceQuality(
        slices=int(image.sizes["z"]),
        blank_percent=float((shares < least_share).mean() * 100),
        clipped_percent=None if clipped is None else float(clipped),
        orientation_known=known,
        left_right="by the affine, not proven" if known else "unknown",
        remarks="; ".join(remarks) or "none",
    )
