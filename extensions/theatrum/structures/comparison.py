"""How alike two structures are: overlap, volumes and the distances of their surfaces.

Masks are [z, y, x] and of one geometry; spacings are millimetres along z, y and x.
Distances are between the centres of surface voxels: those inside with a neighbour
outside (6-connected). Of two empty structures overlaps are 1 and distances 0; of one
empty, overlaps are 0 and distances infinite.

Dice 1945 and Jaccard 1912 for overlap; Huttenlocher and others 1993 for the Hausdorff
distance, here its 95th percentile; Nikolov and others 2018 (arXiv:1809.04430) for the
surface Dice; Vaassen and others 2020 for the added path length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theatrum.structures.errors import StructureError

Mask = npt.NDArray[np.bool_]
TOLERANCE_MM = 3.0


@dataclass(frozen=True)
class Comparison:
    """The measures of one pair; volumes in millilitres, distances in millimetres."""

    dice: float
    jaccard: float
    volume_ml: float
    reference_ml: float
    hausdorff_mm: float
    hausdorff_95_mm: float
    mean_surface_mm: float
    surface_dice: float
    added_path_mm: float
    tolerance_mm: float


def compare(
    mask: Mask,
    reference: Mask,
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = TOLERANCE_MM,
) -> Comparison:
    """Measure a structure against a reference of the same shape."""
    if mask.shape != reference.shape or mask.ndim != 3:
        raise StructureError("two structures are compared on the same images")
    voxel_ml = math.prod(spacing_mm) / 1000
    both = int(np.logical_and(mask, reference).sum())
    one, other = int(mask.sum()), int(reference.sum())
    there, back = _surface_distances(mask, reference, spacing_mm)
    distances = np.concatenate([there, back])
    close = (there <= tolerance_mm).sum() + (back <= tolerance_mm).sum()
    return Comparison(
        dice=_ratio(2 * both, one + other),
        jaccard=_ratio(both, one + other - both),
        volume_ml=one * voxel_ml,
        reference_ml=other * voxel_ml,
        hausdorff_mm=_largest(distances),
        hausdorff_95_mm=max(_percentile(there), _percentile(back)),
        mean_surface_mm=float(distances.mean()) if len(distances) else 0.0,
        surface_dice=_ratio(int(close), len(distances)),
        added_path_mm=_added_path(mask, reference, spacing_mm, tolerance_mm),
        tolerance_mm=tolerance_mm,
    )


def dice(mask: Mask, reference: Mask) -> float:
    """Twice the common part, divided by both."""
    both = int(np.logical_and(mask, reference).sum())
    return _ratio(2 * both, int(mask.sum()) + int(reference.sum()))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _largest(distances: npt.NDArray[np.float64]) -> float:
    return float(distances.max()) if len(distances) else 0.0


def _percentile(distances: npt.NDArray[np.float64]) -> float:
    if not len(distances):
        return 0.0
    if not np.isfinite(distances).all():
        return math.inf
    return float(np.percentile(distances, 95))


def _surface(mask: Mask) -> Mask:
    from scipy.ndimage import binary_erosion

    surface: Mask = mask & ~binary_erosion(mask, border_value=0)
    return surface


def _surface_distances(
    mask: Mask, reference: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """From each surface voxel to the nearest of the other, there and back."""
    from scipy.ndimage import distance_transform_edt

    box = _box(mask | reference)
    one, other = _surface(np.pad(mask[box], 1)), _surface(np.pad(reference[box], 1))
    if not one.any() or not other.any():
        return (
            np.full(int(one.sum()), math.inf),
            np.full(int(other.sum()), math.inf),
        )
    to_other = distance_transform_edt(~other, sampling=spacing_mm)
    to_one = distance_transform_edt(~one, sampling=spacing_mm)
    return to_other[one], to_one[other]


def _box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask; what lies outside costs no time."""
    if not mask.any():
        return (slice(0, 0),) * mask.ndim
    places = [
        np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        for axis in range(mask.ndim)
    ]
    return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in places)


def _added_path(
    mask: Mask,
    reference: Mask,
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> float:
    """The length of the reference's outlines that would have to be drawn anew."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    inner = np.zeros((3, 3), dtype=bool)
    inner[1, :] = inner[:, 1] = True
    length = 0
    for at in np.flatnonzero(reference.any(axis=(1, 2))):
        wanted = reference[at] & ~binary_erosion(reference[at], inner)
        drawn = mask[at] & ~binary_erosion(mask[at], inner)
        if not drawn.any():
            length += int(wanted.sum())
            continue
        away = distance_transform_edt(~drawn, sampling=spacing_mm[1:])
        length += int((away[wanted] > tolerance_mm).sum())
    return length * float(np.mean(spacing_mm[1:]))
