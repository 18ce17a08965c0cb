"""Projections: an axis looked along, all of it or a range."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from theatrum.node import Array, BadValue, DType, node
from theatrum.node.arrays import affine_of

How = Literal["max", "min", "mean", "sum", "std", "median"]


@node(version="1.0.0", kind="filter")
def project(
    image: Annotated[Array, DType("number")],
    *,
    how: How = "max",
    along: Literal["z", "t", "c", "y", "x"] = "z",
    first: Annotated[int, Field(ge=0)] = 0,
    last: Annotated[int, Field(ge=0)] | None = None,
) -> Array:
    """Look along an axis: what of all its planes is brightest, darkest, the mean.

    Whole numbers stay whole for max and min; sums of them are 64 bit. A volume looked
    along y or x becomes a picture whose rows are its planes (from the first, which is
    the lowest where z goes up) and whose columns are what is left of the plane.

    Parameters
    ----------
    how
        std is the population's standard deviation.
    first, last
        Planes counted from 0, both included; without a last one up to the end.
    """
    if along not in image.dims:
        raise BadValue(f"This image has no axis {along} to look along.")
    if along in "yx" and "z" not in image.dims:
        raise BadValue(
            "A flat image is looked along z, t or c; `profile` follows a line."
        )
    planes = image.sizes[along]
    stop = planes - 1 if last is None else last
    if not first <= stop < planes:
        raise BadValue(
            f"Planes {first} to {stop} are asked for; there are 0 to {planes - 1}."
        )
    part = image.isel({along: slice(first, stop + 1)})
    if how in ("std", "mean", "median") or (how == "sum" and part.dtype.kind == "f"):
        part = part.astype(np.float64)
    if how == "median" and part.chunks is not None:
        part = part.chunk({along: -1})
    out: xr.DataArray = getattr(part, how)(along, keep_attrs=True)
    if affine_of(image) is not None and along in "xyz":
        # A picture of what lies behind each other has no place in the patient.
        out.attrs.pop("affine")
    if along in "yx":
        out = out.rename({"z": "y", "y": "x"} if along == "x" else {"z": "y"})
    if along == "c":
        out.attrs.pop("channels", None)
    return out.assign_attrs(projection=how, projected=[first, stop])
