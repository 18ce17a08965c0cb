"""Where the voxels of a labelled array lie, and arrays made anew on another grid.

Planes: *voxel*, the index (x, y, z) of a voxel's centre; *RAS*, millimetres to the
patient's right, front and head. An affine takes the one to the other
(`theatrum.node.arrays`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from theatrum.node import Affine, BadValue, affine_of, spacing_of

Values = npt.NDArray[Any]  # of any kind of number, as the image has them


def affine_needed(array: xr.DataArray) -> Affine:
    """Return the affine; raises BadValue where there is none."""
    found = affine_of(array)
    if found is None:
        raise BadValue("This image does not say where it lies in the patient.")
    return found


def made(
    like: xr.DataArray,
    values: Any,  # numpy's or dask's
    dims: Sequence[str],
    *,
    affine: Affine | None = None,
    spacing_mm: Mapping[str, float] | None = None,
    **attrs: Any,  # JSON values
) -> xr.DataArray:
    """Return values as an array that knows what `like` knew.

    Coordinates of axes that kept their length are taken over; those along x, y and z
    are counted anew in millimetres from 0 where the affine or the spacing is given.
    """
    kept = {
        name: coordinate
        for name, coordinate in like.coords.items()
        if set(coordinate.dims) <= set(dims)
        and all(
            like.sizes[one] == values.shape[list(dims).index(str(one))]
            for one in coordinate.dims
        )
    }
    out = xr.DataArray(
        values, dims=tuple(dims), coords=kept, attrs={**like.attrs, **attrs}
    )
    steps = dict(spacing_mm or {})
    if affine is not None:
        out.attrs["affine"] = affine.tolist()
        out.attrs.pop("convention", None)
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        steps = {name: float(lengths[at]) for at, name in enumerate("xyz")} | steps
    for name, step in steps.items():
        if name in out.dims:
            along = np.arange(out.sizes[name]) * step
            out = out.assign_coords({name: (name, along, {"units": "mm"})})
    return out


def codes(affine: Affine) -> str:
    """Return where rising x, y and z lead to, such as "RAS"."""
    from nibabel.orientations import aff2axcodes

    return "".join(one or "?" for one in aff2axcodes(affine))


def shear_degrees(affine: Affine) -> float:
    """Return how far the axes are from perpendicular to each other: 0 is none."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = [abs(float(axes[:, a] @ axes[:, b])) for a, b in ((0, 1), (0, 2), (1, 2))]
    return float(np.degrees(np.arcsin(min(1.0, max(cosines)))))


def oriented(array: xr.DataArray, to: str) -> xr.DataArray:
    """Return the same voxels with x, y and z leading to where `to` says; lazily.

    Axes are exchanged and turned about, nothing is interpolated.
    """
    from nibabel.orientations import (
        axcodes2ornt,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    affine = affine_needed(array)
    now = io_orientation(affine)
    if np.isnan(now).any():
        raise BadValue("The axes of this image cannot be told apart.")
    change = ornt_transform(now, axcodes2ornt(tuple(to)))
    shape = tuple(array.sizes[name] for name in "xyz")
    others = tuple(str(name) for name in array.dims if name not in ("x", "y", "z"))
    turned = array.transpose(*others, "z", "y", "x")
    for axis, name in enumerate("xyz"):
        if change[axis, 1] < 0:
            turned = turned.isel({name: slice(None, None, -1)})
    # change[old axis, 0] is the new axis that it becomes.
    from_axis = {int(change[axis, 0]): name for axis, name in enumerate("xyz")}
    turned = turned.transpose(*others, from_axis[2], from_axis[1], from_axis[0])
    new = affine @ inv_ornt_aff(change, shape)
    bare = turned.drop_vars([name for name in "xyz" if name in turned.coords])
    return made(
        bare.rename({from_axis[at]: f"_{at}" for at in range(3)}),
        turned.data,
        (*others, "z", "y", "x"),
        affine=new,
        orientation=to,
    )


def known_spacing(array: xr.DataArray, names: str) -> dict[str, float] | None:
    """Return millimetres along these axes, or None where one is not known."""
    found = spacing_of(array)
    steps = {name: found.get(name) for name in names}
    if any(step is None for step in steps.values()):
        return None
    return {name: float(step) for name, step in steps.items() if step is not None}
