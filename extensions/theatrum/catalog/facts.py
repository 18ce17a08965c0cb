"""What follows from other facts: digests, spacings, and the boxes around regions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


# Any: whatever JSON holds
def digest_of(value: Any) -> str:
    """The SHA-256 of a JSON value, the same whatever order its keys come in."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


DIGITS = 7
"""Significant digits of a step: more than any scanner or microscope knows, and fewer
than the noise of computing it from an affine of 32-bit numbers has."""
_NOISE = 2e-7


def in_digits(step: float | None) -> float | None:
    """A step with as many significant digits as are kept; other values as they are.

    One digit fewer where that changes no more than the noise: 0.99999994 mm is 1 mm.
    """
    if not isinstance(step, float):
        return step
    rounder = float(f"{step:.{DIGITS - 1}g}")
    noise = abs(rounder - step) <= _NOISE * abs(step)
    return rounder if noise else float(f"{step:.{DIGITS}g}")


def spacing_of(*lengths_mm: float | None) -> float | None:
    """An image's spacing: the largest of its voxel's known lengths, in millimetres."""
    return max((one for one in lengths_mm if one), default=None)


def box_of(geometry: Mapping[str, Any], axes: Sequence[str]) -> dict[str, float]:
    """The box around a geometry's coordinates, in the columns of its axes."""
    points = list(_points(geometry.get("coordinates", [])))
    box: dict[str, float] = {}
    for place, axis in enumerate(axes):
        along = [point[place] for point in points if len(point) > place]
        if along and axis in ("x", "y", "z", "t"):
            box |= {f"{axis}0": min(along), f"{axis}1": max(along)}
    return box


def axes_of(geometry: Mapping[str, Any]) -> list[str]:
    """The axes of a geometry's coordinates: x and y, and z where points are deep."""
    points = list(_points(geometry.get("coordinates", [])))
    deep = bool(points) and all(len(point) > 2 for point in points)
    return ["x", "y", "z"] if deep else ["x", "y"]


# Any: coordinates of GeoJSON, nested as deep as the kind of geometry says
def _points(coordinates: Any) -> Iterator[Sequence[float]]:
    if coordinates and isinstance(coordinates[0], int | float):
        yield [float(one) for one in coordinates]
        return
    for inner in coordinates:
        yield from _points(inner)


def facts_of_view(view: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an image that follow from what the tile service says of it.

    `view` is `tile_server.view.describe`'s; it measures in micrometres, the columns
    are millimetres.
    """
    px_x, px_y = (
        length / 1000 if length else None
        for length in (view.get("mpp_x"), view.get("mpp_y"))
    )
    scan = view.get("affine_lps") is not None
    channels = view.get("channels") or [{}]
    return {
        "format": "dicom" if scan else "wsi",
        "modality": channels[0].get("name") if scan else "SM",
        "n_levels": len(view.get("levels") or [1]),
        "px_x": px_x,
        "px_y": px_y,
        "spacing": spacing_of(px_x, px_y),
        "n_x": view.get("width"),
        "n_y": view.get("height"),
        "n_z": view.get("z"),
    }


MM = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Units of length, in millimetres."""


def in_millimetres(array: xarray.DataArray) -> xarray.DataArray:
    """The array with coordinates as the catalogue keeps them: mm, and s along t.

    Coordinates that name no unit are meant so; those in another unit of length are
    converted, and those that measure nothing (`px`) are dropped.
    """
    for dim in ("x", "y", "z", "t"):
        if dim not in array.dims or dim not in array.coords:
            continue
        along = array.coords[dim]
        if along.dtype.kind not in "fiu":
            continue
        wanted = "s" if dim == "t" else "mm"
        units = str(along.attrs.get("units", wanted))
        if units == wanted:
            factor = 1.0
        elif units in MM and dim != "t":
            factor = MM[units]
        else:
            array = array.drop_vars(dim)
            continue
        coordinate = (dim, along.values * factor, {**along.attrs, "units": wanted})
        array = array.assign_coords({dim: coordinate})
    return array


def facts_of_array(array: xarray.DataArray) -> dict[str, Any]:
    """The columns of an image that follow from its array: sizes, spacing, affine.

    Dimensions and numbers are told as they are stored: in the order t c z y x, truth as
    0 and 1 of 8 bits, in this machine's order of bytes. Coordinates along x, y, z are
    millimetres, along t seconds; without them the affine tells how far apart voxels
    lie. Attributes are those of `theatrum.catalog.arrays`; an affine in LPS becomes the
    one in RAS, and the orientation is what the affine says.
    """
    affine = _affine_ras(array)
    steps = {dim: _step(array, dim) for dim in "xyzt"}
    if affine is not None:
        for axis, dim in enumerate("xyz"):
            if steps[dim] is None and dim in array.dims:
                steps[dim] = math.hypot(*(row[axis] for row in affine[:3]))
    dims = sorted(map(str, array.dims), key=lambda dim: "tczyx".find(dim))
    facts: dict[str, Any] = {
        "dims": dims,
        "shape": [int(array.sizes[dim]) for dim in dims],
        "dtype": "uint8" if array.dtype.kind == "b" else array.dtype.name,
        **{f"px_{dim}": step for dim, step in steps.items()},
        **{
            f"n_{dim}": int(array.sizes[dim]) if dim in array.dims else None
            for dim in "xyczt"
        },
    }
    if affine is not None:
        from theatrum.catalog.formats.geometry import orientation

        facts["affine"] = affine
        facts["orientation"] = orientation(np.asarray(affine), "RAS") or None
    for attribute, column in (("modality", "modality"), ("units", "value_unit")):
        if array.attrs.get(attribute):
            facts[column] = str(array.attrs[attribute])
    return facts


def _affine_ras(array: xarray.DataArray) -> list[list[float]] | None:
    """The affine to RAS millimetres; None where there is none that places voxels."""
    found = array.attrs.get("affine")
    if found is None:
        return None
    from theatrum.catalog.formats.geometry import is_usable, to_ras

    affine = np.asarray(found, float)
    if not is_usable(affine):
        return None
    in_lps = array.attrs.get("convention") == "LPS"
    rows: list[list[float]] = to_ras(affine, "LPS" if in_lps else "RAS").tolist()
    return rows


def _step(array: xarray.DataArray, dim: str) -> float | None:
    # Without a coordinate xarray would count places, which are no lengths.
    if dim not in array.dims or dim not in array.coords or array.sizes[dim] < 2:
        return None
    along = array.coords[dim].values
    known = along[1:] - along[:-1]
    # What was padded has no coordinates at its ends.
    steps = [abs(float(one)) for one in known if math.isfinite(float(one))]
    return steps[0] or None if steps else None
