"""Slices of a volume as people look at it: axial, coronal, sagittal.

The result is a stack whose z counts slices and whose y and x are rows and columns on
the screen: y leads down. Axial and coronal slices have the patient's right at the left
(radiological) or at the right (neurological); sagittal ones look to the left, the
patient's front.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from theatrum.node import Affine, Array, BadValue, Dims, Placed, node
from theatrum.nodes.catalog.grid import affine_needed, oriented

Plane = Literal["ax", "cor", "sag"]
Convention = Literal["radiological", "neurological"]
Choice = Literal["central", "all", "every", "mm", "indices"]

_SCREEN = {
    # Where x (columns), y (rows) and z (slices) lead to.
    ("ax", "radiological"): "LPS",
    ("ax", "neurological"): "RPS",
    ("cor", "radiological"): "LIA",
    ("cor", "neurological"): "RIA",
    ("sag", "radiological"): "PIR",
    ("sag", "neurological"): "PIR",
}


@node(version="1.0.0", kind="transform")
def slices(
    image: Annotated[Array, Placed()],
    *,
    plane: Plane = "ax",
    choose: Choice = "central",
    count: Annotated[int, Field(ge=1)] = 50,
    step: Annotated[int, Field(ge=1)] = 2,
    range_mm: tuple[float, float] = (-50.0, 50.0),
    indices: tuple[int, ...] = (),
    convention: Convention = "radiological",
) -> Annotated[Array, Dims("[t] [c] z y x"), Placed()]:
    """Cut a volume into slices of one plane, as they are shown on a screen.

    The result tells `slice_indices`, counted in the turned volume, and `slice_mm`, the
    RAS millimetres of each along the body's axis.

    Parameters
    ----------
    plane
        axial, coronal or sagittal by the affine, however the scan was taken.
    choose
        "central" takes `count` in the middle, "every" each `step`-th, "mm" those
        within `range_mm`, "indices" the ones named.
    range_mm
        From and to, along the body's axis, both included.
    """
    turned = oriented(image, _SCREEN[plane, convention])
    affine = affine_needed(turned)
    total = turned.sizes["z"]
    places = _places(affine, total)
    chosen = _chosen(choose, total, places, count, step, range_mm, indices)
    if not chosen:
        raise BadValue(f"None of the {total} slices is chosen.")
    out = turned.isel(z=chosen)
    new = affine.copy()
    new[:3, 3] = affine[:3, 3] + affine[:3, 2] * chosen[0]
    gaps = set(np.diff(chosen).tolist())
    if len(gaps) == 1:
        new[:3, 2] = affine[:3, 2] * gaps.pop()
    return out.assign_attrs(
        affine=new.tolist(),
        plane=plane,
        convention_shown=convention,
        slice_indices=chosen,
        slice_mm=[float(places[at]) for at in chosen],
    )


def _places(affine: Affine, total: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the RAS millimetres of each slice along the axis it advances most."""
    axis = int(np.abs(affine[:3, 2]).argmax())
    places: np.ndarray[tuple[int], np.dtype[np.float64]] = affine[axis, 3] + affine[
        axis, 2
    ] * np.arange(total)
    return places


def _chosen(
    choose: Choice,
    total: int,
    places: np.ndarray[tuple[int], np.dtype[np.float64]],
    count: int,
    step: int,
    range_mm: tuple[float, float],
    indices: tuple[int, ...],
) -> list[int]:
    if choose == "all":
        return list(range(total))
    if choose == "every":
        return list(range(0, total, step))
    if choose == "mm":
        low, high = sorted(range_mm)
        return [at for at in range(total) if low <= places[at] <= high]
    if choose == "indices":
        strange = [at for at in indices if not -total <= at < total]
        if strange:
            raise BadValue(f"There are slices 0 to {total - 1}, not {strange[0]}.")
        return [at % total for at in indices]
    first = max(0, (total - count) // 2)
    return list(range(first, min(total, first + count)))


def pixel_ratio(image: xr.DataArray) -> float:
    """Return how many times as high as wide a pixel is; 1 where unknown."""
    from theatrum.nodes.catalog.grid import known_spacing

    steps = known_spacing(image, "xy")
    return steps["y"] / steps["x"] if steps and steps["x"] else 1.0
