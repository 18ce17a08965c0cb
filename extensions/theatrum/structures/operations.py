"""Structures made from structures: margins, unions and the like, in millimetres.

A pipeline is a list of `{"type": ..., "structures": [...], "parameters": {...}}`; each
step works on what the one before it made, the first on its first structure. Masks are
[z, y, x]; spacings are along z, y and x. Margins are measured between voxel centres
with the Euclidean distance, so they are the same in every direction of the patient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from theatrum.structures.errors import StructureError

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]
Parameters = Mapping[str, Any]  # Any: JSON numbers and names

MARGIN_MM = 200.0


def run(
    pipeline: Sequence[Mapping[str, Any]],
    structures: Mapping[str, Mask],
    spacing_mm: Spacing,
) -> Mask:
    """Make a structure; StructureError where a step or a structure is not known."""
    if not pipeline:
        raise StructureError("a pipeline has at least one step")
    made: Mask | None = None
    for at, step in enumerate(pipeline):
        kind = str(step.get("type"))
        if kind not in OPERATIONS:
            raise StructureError(
                f"step {at + 1}: {kind!r} is no operation; there are "
                f"{', '.join(sorted(OPERATIONS))}"
            )
        named = [_found(structures, name, at) for name in step.get("structures") or []]
        if made is not None:
            named.insert(0, made)
        if not named:
            raise StructureError(f"step {at + 1}: name a structure to start from")
        try:
            made = OPERATIONS[kind](named, step.get("parameters") or {}, spacing_mm)
        except KeyError as err:
            raise StructureError(f"step {at + 1}: {kind} needs {err}") from err
    assert made is not None  # noqa: S101 - the pipeline is not empty
    return made


def _found(structures: Mapping[str, Mask], name: str, at: int) -> Mask:
    for known, mask in structures.items():
        if known.casefold() == str(name).casefold():
            return mask
    raise StructureError(f"step {at + 1}: there is no structure {name!r}")


def expanded(mask: Mask, margin_mm: float, spacing_mm: Spacing) -> Mask:
    """All within a distance of a structure."""
    from scipy.ndimage import distance_transform_edt

    _check_margin(margin_mm)
    if not mask.any():
        return mask.copy()
    grown: Mask = distance_transform_edt(~mask, sampling=spacing_mm) <= margin_mm
    return grown


def contracted(mask: Mask, margin_mm: float, spacing_mm: Spacing) -> Mask:
    """All of a structure that lies further than a distance from its outside."""
    from scipy.ndimage import distance_transform_edt

    _check_margin(margin_mm)
    # The image's end is no outside: what goes on there is not known.
    padded = np.pad(mask, 1, mode="edge")
    if padded.all():
        return mask.copy()
    away = distance_transform_edt(padded, sampling=spacing_mm)
    kept: Mask = (away > margin_mm)[1:-1, 1:-1, 1:-1] & mask
    return kept


def _check_margin(margin_mm: float) -> None:
    if not 0 <= margin_mm <= MARGIN_MM:
        raise StructureError(f"a margin is 0 to {MARGIN_MM:g} mm, not {margin_mm:g}")


def _margin(parameters: Parameters) -> float:
    margin = float(parameters["margin_mm"])
    if not math.isfinite(margin):
        raise StructureError("a margin is a number of millimetres")
    return margin


def _expand(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    return expanded(masks[0], _margin(parameters), spacing)


def _contract(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    return contracted(masks[0], _margin(parameters), spacing)


def _signed_margin(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    margin = _margin(parameters)
    change = expanded if margin >= 0 else contracted
    return change(masks[0], abs(margin), spacing)


def _anisotropic(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    """Six margins, to the left, right, anterior, posterior, superior and inferior.

    An ellipsoid of other half axes on either side; z goes to superior, y to posterior
    and x to the left, as in an axial series.
    """
    sides = {
        name: float(parameters.get(f"{name}_mm", 0.0))
        for name in ("left", "right", "anterior", "posterior", "superior", "inferior")
    }
    for margin in sides.values():
        _check_margin(margin)
    mask = masks[0]
    axes = (
        (sides["inferior"], sides["superior"]),
        (sides["anterior"], sides["posterior"]),
        (sides["right"], sides["left"]),
    )
    element = _ellipsoid(axes, spacing)
    from scipy.signal import fftconvolve

    # By Fourier transform: a margin of 20 mm has some ten thousand voxels.
    touched = fftconvolve(mask.astype(np.float32), element.astype(np.float32), "same")
    grown: Mask = touched > 0.5
    return grown


def _ellipsoid(
    axes: tuple[tuple[float, float], ...], spacing: Spacing
) -> npt.NDArray[np.bool_]:
    reach = [
        max(math.floor(max(pair) / step), 0)
        for pair, step in zip(axes, spacing, strict=True)
    ]
    grids = np.meshgrid(
        *(np.arange(-n, n + 1) * step for n, step in zip(reach, spacing, strict=True)),
        indexing="ij",
    )
    total = np.zeros(grids[0].shape)
    for grid, (below, above) in zip(grids, axes, strict=True):
        half = np.where(grid < 0, below, above)
        # A margin of nothing lets nothing but the middle through.
        scaled = np.divide(
            grid, half, out=np.where(grid == 0, 0.0, np.inf), where=half > 0
        )
        total += scaled**2
    inside: npt.NDArray[np.bool_] = total <= 1.0 + 1e-9
    return inside


def _union(masks: list[Mask], _: Parameters, __: Spacing) -> Mask:
    joined: Mask = np.logical_or.reduce(masks)
    return joined


def _intersection(masks: list[Mask], _: Parameters, __: Spacing) -> Mask:
    common: Mask = np.logical_and.reduce(masks)
    return common


def _subtract(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    margin = float(parameters.get("margin_mm", 0.0))
    taken = np.zeros_like(masks[0])
    for mask in masks[1:]:
        taken |= expanded(mask, margin, spacing)
    left: Mask = masks[0] & ~taken
    return left


def _crop(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    """All of the first within the second, at least a margin from its boundary."""
    if len(masks) < 2:
        raise StructureError("crop_to_boundary names the boundary as well")
    margin = float(parameters.get("margin_mm", 0.0))
    cropped: Mask = masks[0] & contracted(masks[1], margin, spacing)
    return cropped


def _smooth(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    """A Gaussian of so many millimetres, cut at a half."""
    from scipy.ndimage import gaussian_filter

    sigma_mm = float(parameters.get("sigma_mm", 2.0))
    _check_margin(sigma_mm)
    sigmas = [sigma_mm / step for step in spacing]
    smooth: Mask = gaussian_filter(masks[0].astype(np.float32), sigmas) >= 0.5
    return smooth


def _fill_holes(masks: list[Mask], _: Parameters, __: Spacing) -> Mask:
    """Slice by slice, as contours have their holes."""
    from scipy.ndimage import binary_fill_holes

    filled: Mask = np.stack([binary_fill_holes(one) for one in masks[0]])
    return filled


def _parts(mask: Mask) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    from scipy.ndimage import label

    parts, _ = label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def _remove_small(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    smallest_ml = float(parameters["volume_ml"])
    parts, sizes = _parts(masks[0])
    kept: Mask = (sizes * math.prod(spacing) / 1000 >= smallest_ml)[parts] & masks[0]
    return kept


def _keep_largest(masks: list[Mask], _: Parameters, __: Spacing) -> Mask:
    if not masks[0].any():
        return masks[0].copy()
    parts, sizes = _parts(masks[0])
    kept: Mask = parts == int(sizes.argmax())
    return kept


def _close_gaps(masks: list[Mask], parameters: Parameters, spacing: Spacing) -> Mask:
    margin = _margin(parameters)
    return contracted(expanded(masks[0], margin, spacing), margin, spacing) | masks[0]


def _remove_protrusions(
    masks: list[Mask], parameters: Parameters, spacing: Spacing
) -> Mask:
    margin = _margin(parameters)
    opened = expanded(contracted(masks[0], margin, spacing), margin, spacing)
    return opened & masks[0]


OPERATIONS: dict[str, Callable[[list[Mask], Parameters, Spacing], Mask]] = {
    "expand": _expand,
    "contract": _contract,
    "margin": _signed_margin,
    "anisotropic_margin": _anisotropic,
    "union": _union,
    "intersection": _intersection,
    "subtract": _subtract,
    "crop_to_boundary": _crop,
    "smooth": _smooth,
    "fill_holes": _fill_holes,
    "remove_small_components": _remove_small,
    "keep_largest": _keep_largest,
    "close_gaps": _close_gaps,
    "remove_protrusions": _remove_protrusions,
}
"""The operations by name; what each needs of `parameters` is in its function."""
