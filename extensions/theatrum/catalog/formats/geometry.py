"""Where voxels lie: orientation codes, steps and tilts of an affine.

Planes: as in `scene`. Affines here are 4 x 4 and take (x, y, z, 1) of a voxel to
millimetres.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theatrum.catalog.formats.scene import Affine, Convention

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
SHEAR_DEG = 0.5
"""Beyond this an axis is told to be tilted: rounding of headers makes less."""


def to_ras(affine: Affine, convention: Convention) -> Affine:
    """The affine to RAS millimetres; of LPS only two signs differ."""
    return np.asarray(_FLIP @ affine) if convention == "LPS" else affine


def orientation(affine: Affine | None, convention: Convention) -> str:
    """Where rising x, y and z lead to, three letters; "" where it cannot be told."""
    import nibabel

    if affine is None or not convention:
        return ""
    matrix = np.asarray(affine, dtype=float)
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
        return ""
    axis_codes: Any = nibabel.orientations.aff2axcodes
    codes = axis_codes(to_ras(matrix, convention))
    return "".join(codes) if all(codes) else ""


def steps_mm(affine: Affine) -> tuple[float, float, float]:
    """Millimetres from a voxel to the next along x, y and z."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def tilt_deg(affine: Affine) -> float:
    """By how many degrees the slices are sheared against their normal."""
    x, y, z = np.asarray(affine, dtype=float)[:3, :3].T
    normal = np.cross(x, y)
    length = np.linalg.norm(normal) * np.linalg.norm(z)
    if length == 0:
        return 0.0
    cosine = min(abs(float(normal @ z)) / float(length), 1.0)
    return float(np.degrees(np.arccos(cosine)))


def is_usable(affine: Affine) -> bool:
    """Whether an affine places voxels at all: finite, and of full rank."""
    matrix = np.asarray(affine, dtype=float)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return False
    return bool(abs(np.linalg.det(matrix[:3, :3])) > 1e-12)
