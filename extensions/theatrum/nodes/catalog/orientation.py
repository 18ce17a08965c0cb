"""Grids: orient to the body's axes, resample, cut and pad, choose a time.

All of it keeps the affine true: a voxel's place in the patient is the same before and
after.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from pydantic import Field

from theatrum.node import Array, Axes, BadValue, Placed, affine_of, node
from theatrum.nodes.catalog.grid import (
    affine_needed,
    codes,
    known_spacing,
    made,
    oriented,
    shear_degrees,
)
from theatrum.nodes.catalog.lazily import whole_axes

Axcodes = Annotated[str, Field(pattern="^[RLAPSI]{3}$")]


@node(version="1.0.0", kind="transform")
def orient(
    image: Annotated[Array, Placed()],
    *,
    to: Axcodes = "RAS",
    largest_shear_degrees: Annotated[float, Field(ge=0, le=90)] = 0.5,
) -> Annotated[Array, Placed()]:
    """Turn a volume so that its axes lead to the patient's right, front and head.

    Voxels change places, none changes its value. The affine follows, and the result
    says in `orientation_before` how it lay.

    Parameters
    ----------
    to
        Where rising x, y and z shall lead to.
    largest_shear_degrees
        A volume whose axes are less perpendicular than this is refused: a gantry's
        tilt has to be resampled away first.
    """
    if len({_AXIS[one] for one in to}) != 3:
        raise BadValue(f"{to} names an axis of the body twice.")
    affine = affine_needed(image)
    shear = shear_degrees(affine)
    if shear > largest_shear_degrees:
        raise BadValue(
            f"The axes of this volume are {shear:.1f} degrees from perpendicular. "
            "Resample it, or allow it with largest_shear_degrees."
        )
    turned = oriented(image, to)
    turned.attrs["orientation_before"] = codes(affine)
    return turned


_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_ORDER = {"nearest": 0, "linear": 1, "cubic": 3}


@node(version="1.0.0", kind="transform")
def resample(
    image: Annotated[Array, Axes("y", "x")],
    *,
    spacing_mm: tuple[float, ...] = (1.0,),
    method: Literal["linear", "nearest", "cubic"] = "linear",
) -> Array:
    """Bring an image to another spacing; nearest keeps labels what they are.

    The field of view stays: the outer corner of the first voxel does not move. Beyond
    the last voxel's centre the outermost value holds.

    Parameters
    ----------
    spacing_mm
        One number for all axes, or those along x, y and z.
    """
    from scipy import ndimage

    names = "".join(name for name in "xyz" if name in image.dims)
    before = known_spacing(image, names)
    if before is None:
        raise BadValue("This image does not tell its scale, so it has no spacing.")
    if len(spacing_mm) not in (1, len(names)) or min(spacing_mm) <= 0:
        raise BadValue(f"Give one spacing above 0, or one for each of {names}.")
    each = spacing_mm if len(spacing_mm) > 1 else spacing_mm * len(names)
    after = dict(zip(names, each, strict=True))
    axes = names[::-1]
    ratio = np.array([after[name] / before[name] for name in axes])
    shape = tuple(
        max(1, round(image.sizes[name] / scale))
        for name, scale in zip(axes, ratio, strict=True)
    )
    shift = (ratio - 1) / 2  # of the first centre, in old voxels
    floating = method != "nearest"
    dtype = np.dtype(np.float32) if floating else image.dtype

    def on_new_grid(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        moved: npt.NDArray[np.generic] = ndimage.affine_transform(
            values.astype(dtype, copy=False),
            ratio,
            shift,
            output_shape=shape,
            order=_ORDER[method],
            mode="nearest",
        )
        return moved

    new_axes = [f"new_{name}" for name in axes]
    out = xr.apply_ufunc(
        on_new_grid,
        image.chunk(dict.fromkeys(axes, -1)) if image.chunks else image,
        input_core_dims=[list(axes)],
        output_core_dims=[new_axes],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[dtype],
        dask_gufunc_kwargs={
            "output_sizes": dict(zip(new_axes, shape, strict=True)),
        },
    )
    others = [str(name) for name in image.dims if str(name) not in axes]
    affine = affine_of(image)
    if affine is not None:
        scale, move = np.eye(4), np.eye(4)
        for at, name in enumerate("xyz"):
            if name in axes:
                place = axes.index(name)
                scale[at, at] = ratio[place]
                move[at, 3] = shift[place]
        affine = affine @ move @ scale
    return made(
        image.drop_vars([name for name in axes if name in image.coords]),
        out.data,
        (*others, *axes),
        affine=affine,
        spacing_mm=after,
    )


Bounds = tuple[int, int]


@node(version="1.0.0", kind="transform")
def crop(
    image: Annotated[Array, Axes("y", "x")],
    *,
    x: Bounds | None = None,
    y: Bounds | None = None,
    z: Bounds | None = None,
    t: Bounds | None = None,
    c: Bounds | None = None,
) -> Array:
    """Cut a box out: along each axis from the first pixel to before the last.

    Parameters
    ----------
    x, y, z, t, c
        Pixels; an axis that is left out stays whole.
    """
    out = image
    affine = affine_of(image)
    for name, bounds in (("x", x), ("y", y), ("z", z), ("t", t), ("c", c)):
        if bounds is None:
            continue
        if name not in image.dims:
            raise BadValue(f"This image has no axis {name}.")
        first, last = bounds
        if not 0 <= first < last <= image.sizes[name]:
            raise BadValue(
                f"Along {name} this image has pixels 0 to {image.sizes[name]}, not "
                f"{first} to {last}."
            )
        out = out.isel({name: slice(first, last)})
        if affine is not None and name in "xyz":
            affine[:3, 3] += affine[:3, "xyz".index(name)] * first
    if affine is not None:
        out = out.assign_attrs(affine=affine.tolist())
        out.attrs.pop("convention", None)
    if c is not None and "channels" in image.attrs:
        out.attrs["channels"] = list(image.attrs["channels"])[c[0] : c[1]]
    return out


@node(version="1.0.0", kind="transform")
def pad(
    image: Annotated[Array, Axes("y", "x")],
    *,
    x: Bounds = (0, 0),
    y: Bounds = (0, 0),
    z: Bounds = (0, 0),
    value: float = 0.0,
) -> Array:
    """Put pixels of one value around an image.

    Parameters
    ----------
    x, y, z
        How many before the first pixel and behind the last.
    value
        Of the new pixels.
    """
    widths = {name: by for name, by in (("x", x), ("y", y), ("z", z)) if by != (0, 0)}
    absent = [name for name in widths if name not in image.dims]
    if absent or any(min(by) < 0 for by in widths.values()):
        raise BadValue("Give widths of 0 or more, along axes that the image has.")
    bare = image.drop_vars([name for name in widths if name in image.coords])
    out = bare.pad(widths, constant_values=value, keep_attrs=True)
    affine = affine_of(image)
    if affine is not None:
        for name, (before, _) in widths.items():
            affine[:3, 3] -= affine[:3, "xyz".index(name)] * before
    steps = known_spacing(image, "".join(widths)) if widths else None
    return made(
        out, out.data, [str(name) for name in out.dims], affine=affine, spacing_mm=steps
    )


@node(version="1.0.0", kind="transform")
def pick_time(
    image: Annotated[Array, Axes("t")],
    *,
    frame: int = 0,
    how: Literal["frame", "mean", "median", "max"] = "frame",
) -> Array:
    """Make one volume of a series in time: a frame, or what is common to all.

    Parameters
    ----------
    frame
        Which, from 0; -1 is the last. Counts only where `how` is "frame".
    """
    if how == "frame":
        if not -image.sizes["t"] <= frame < image.sizes["t"]:
            raise BadValue(f"There are frames 0 to {image.sizes['t'] - 1}.")
        return image.isel(t=frame, drop=True)
    if how == "median":
        return whole_axes(image, _median, ("t",), np.float64).isel(t=0, drop=True)
    reduce = image.mean if how == "mean" else image.max
    return reduce("t", keep_attrs=True)


def _median(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.full(values.shape, np.median(values))
