"""Channels: join, part, map to colours, take apart what overlaps.

Names of channels are the list `attrs["channels"]`, in the order of the axis c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from theatrum.node import Array, Axes, BadValue, Channels, Dims, DType, node

Values = npt.NDArray[Any]  # of any kind of number
Several = Annotated[Array, Axes("c")]


def names_of(image: xr.DataArray) -> list[str]:
    """Return the channels' names, made up where the image has none."""
    count = int(image.sizes.get("c", 1))
    known = [str(one) for one in image.attrs.get("channels", ())]
    return known if len(known) == count else [f"channel {at}" for at in range(count)]


@node(version="1.0.0", kind="filter")
def map_channels(
    image: Several,
    *,
    red: tuple[int, ...] = (0,),
    green: tuple[int, ...] = (1,),
    blue: tuple[int, ...] = (2,),
) -> Annotated[Array, Channels(3, 3)]:
    """Make three colours of any number of channels.

    Parameters
    ----------
    red, green, blue
        Channels that each colour shows, from 0: the brightest of them at each pixel;
        none for black.
    """
    colours = []
    for wished in (red, green, blue):
        strange = [at for at in wished if not 0 <= at < image.sizes["c"]]
        if strange:
            raise BadValue(
                f"There is no channel {strange[0]}: the image has {image.sizes['c']}."
            )
        if wished:
            colours.append(image.isel(c=list(wished)).max("c", keep_attrs=True))
        else:
            colours.append(xr.zeros_like(image.isel(c=0, drop=True)))
    return _joined(image, colours, ["red", "green", "blue"])


@node(version="1.0.0", kind="filter")
def merge_channels(
    images: Annotated[Sequence[Array], Axes("y", "x")],
) -> Annotated[Array, Axes("c")]:
    """Lay images of one size over each other as channels of one."""
    if not images:
        raise BadValue("There is nothing to merge.")
    planes: list[xr.DataArray] = []
    names: list[str] = []
    for at, image in enumerate(images):
        own = names_of(image) if "channels" in image.attrs else []
        parts = [image]
        if "c" in image.dims:
            parts = [image.isel(c=i, drop=True) for i in range(image.sizes["c"])]
        planes += parts
        names += own or [f"image {at}"] * len(parts)
    shapes = {plane.shape for plane in planes}
    if len(shapes) > 1:
        raise BadValue(f"These images are not of one size: {sorted(shapes)}.")
    return _joined(images[0], planes, names)


@node(version="1.0.0", kind="transform")
def split_channels(image: Several) -> Sequence[Array]:
    """Give each channel as an image of its own."""
    names = names_of(image)
    return [
        image.isel(c=at, drop=True).assign_attrs(channels=[name], part=name)
        for at, name in enumerate(names)
    ]


@node(version="1.0.0", kind="filter")
def unmix(
    image: Annotated[Array, Axes("c"), DType("number")],
    *,
    spectra: tuple[tuple[float, ...], ...],
    names: tuple[str, ...] = (),
    not_negative: bool = True,
) -> Annotated[Array, DType("float")]:
    """Tell dyes apart whose light falls into more than one channel.

    Least squares: each pixel is the sum of the dyes' spectra times their amounts.

    Parameters
    ----------
    spectra
        One row a dye: how much of its light each channel catches.
    names
        Of the dyes, in the order of the rows.
    not_negative
        No dye has less than none of it (slower: Lawson and Hanson's method).
    """
    matrix = np.array(spectra, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != image.sizes["c"]:
        raise BadValue(
            f"Each spectrum needs {image.sizes['c']} numbers, one a channel."
        )
    if np.linalg.matrix_rank(matrix) < len(matrix):
        raise BadValue("These spectra cannot be told apart by so many channels.")
    if names and len(names) != len(matrix):
        raise BadValue("Give each dye a name, or none.")

    def amounts(pixels: Values) -> Values:
        flat = pixels.reshape(-1, matrix.shape[1]).astype(np.float64)
        found = flat @ np.linalg.pinv(matrix)
        if not_negative:
            from scipy.optimize import nnls

            for row in np.flatnonzero((found < 0).any(axis=1)):
                found[row] = nnls(matrix.T, flat[row])[0]
        return found.reshape(*pixels.shape[:-1], len(matrix)).astype(np.float32)

    out: xr.DataArray = xr.apply_ufunc(
        amounts,
        image.chunk(c=-1) if image.chunks else image,
        input_core_dims=[["c"]],
        output_core_dims=[["dye"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"dye": len(matrix)}},
        keep_attrs=True,
    )
    labels = list(names) or [f"dye {at}" for at in range(len(matrix))]
    return out.rename(dye="c").transpose(*image.dims).assign_attrs(channels=labels)


@node(version="1.0.0", kind="filter")
def flatfield(
    image: Annotated[Array, Axes("y", "x"), DType("number")],
    bright: Annotated[Array, Dims("[c] y x")],
    dark: Annotated[Array, Dims("[c] y x")] | None = None,
) -> Annotated[Array, DType("float")]:
    """Even out the light: (image - dark) / (bright - dark), times its mean.

    Pixels belong together by their place in the arrays, whatever millimetres each of
    them was taken at.

    Parameters
    ----------
    bright
        A picture of an even, bright thing.
    dark
        A picture without light; without one, 0.
    """
    black = 0.0 if dark is None else _laid_on(image, dark, "dark")
    light = _laid_on(image, bright, "bright") - black
    mean = light.mean(("y", "x"))
    if bool((light <= 0).any()):
        raise BadValue("Somewhere the bright picture is no brighter than the dark one.")
    out = (image.astype(np.float64) - black) / light * mean
    return out.transpose(*image.dims).astype(np.float32).assign_attrs(image.attrs)


def _laid_on(image: xr.DataArray, other: xr.DataArray, name: str) -> xr.DataArray:
    """Return another image as floats without coordinates; raises BadValue.

    By coordinates xarray would keep only those pixels whose places both of them name,
    down to none at all.
    """
    strange = {dim: size for dim, size in other.sizes.items()
               if image.sizes.get(dim) != size}  # fmt: skip
    if strange:
        told = ", ".join(f"{size} along {dim}" for dim, size in strange.items())
        here = ", ".join(f"{image.sizes.get(dim, 0)} along {dim}" for dim in strange)
        raise BadValue(f"The {name} picture has {told}, the image has {here}.")
    return other.drop_vars(list(other.coords)).astype(np.float64)


def _joined(
    like: xr.DataArray, planes: Sequence[xr.DataArray], names: list[str]
) -> xr.DataArray:
    bare = [plane.drop_vars("c", errors="ignore") for plane in planes]
    order = [
        name
        for name in ("t", "c", "z", "y", "x")
        if name == "c" or name in bare[0].dims
    ]
    out = xr.concat(bare, dim="c", join="override", coords="minimal", compat="override")
    kept = {name: value for name, value in like.attrs.items() if name != "part"}
    out.attrs = {**kept, "channels": names}
    return out.transpose(*order)
