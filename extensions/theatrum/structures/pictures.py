"""Slices with contours as pictures: axial, coronal and sagittal, as radiologists look.

The patient's left is on the right of the picture, the head up, and in sagittal
pictures the face to the left. An array's own axes may lie anywhere in the patient: each
is taken for the patient's axis that it is nearest to, so an oblique series is shown
along its own slices. Pixels become square, so distances look as they are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from theatrum.node import Volume
from theatrum.structures.errors import StructureError

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]

_ACROSS: Mapping[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The patient's axis (left, posterior, superior) that a plane is cut across."""


@dataclass(frozen=True)
class Outlined:
    """A structure to be drawn."""

    name: str
    mask: Mask = field(repr=False)
    """[z, y, x] of the volume."""
    colour: tuple[int, int, int] = (255, 255, 0)


def window_of(volume: Volume) -> tuple[float, float]:
    """Level and width to show a volume with: soft tissue on CT, else what is there."""
    if volume.modality == "CT":
        return 40.0, 400.0
    # One voxel in some is enough to tell, and quick.
    some = volume.array[:: max(1, len(volume.array) // 16), ::4, ::4]
    low, high = (float(one) for one in np.percentile(some, (1, 99)))
    return (low + high) / 2, max(high - low, 1.0)


def slice_count(volume: Volume, plane: Plane) -> int:
    """How many slices a plane has."""
    return int(_along_patient(volume, volume.array).shape[2 - _ACROSS[plane]])


def centre_of(volume: Volume, masks: Sequence[Mask]) -> dict[Plane, int]:
    """The slice of each plane through the middle of structures, or of the volume.

    The middle slice of those that show any of it, so one always goes through it.
    """
    wanted: Mask | None = None
    for one in masks:
        wanted = one if wanted is None else wanted | one
    centre: dict[Plane, int] = {}
    for plane in PLANES:
        axis = 2 - _ACROSS[plane]
        shape = _along_patient(volume, volume.array).shape
        at = np.zeros(0, int)
        if wanted is not None:
            others = tuple(one for one in range(3) if one != axis)
            at = np.flatnonzero(_along_patient(volume, wanted).any(axis=others))
        centre[plane] = int(at[len(at) // 2]) if len(at) else shape[axis] // 2
    return centre


def picture(
    volume: Volume,
    plane: Plane,
    at: int,
    structures: Sequence[Outlined] = (),
    *,
    window: tuple[float, float] | None = None,
    longest_px: int = 512,
) -> Picture:
    """One slice as (rows, columns, 3) RGB.

    Parameters
    ----------
    at
        Its number, from the patient's right, front or feet.
    structures
        Their outlines are drawn one pixel wide, the last one on top.
    window
        Level and width, in the volume's own numbers; None chooses by modality.
    longest_px
        Pixels at the longer side.
    """
    level, width = window or window_of(volume)
    count = slice_count(volume, plane)
    if not 0 <= at < count:
        raise StructureError(
            f"there is no {plane} slice {at}: they are 0 to {count - 1}"
        )
    numbers = _slice(volume, volume.array, plane, at)
    rows, columns = _squared(volume, plane, numbers.shape, longest_px)
    shown = numbers[np.ix_(rows, columns)].astype(np.float32)
    grey = np.clip((shown - (level - width / 2)) / width, 0, 1) * 255
    drawn = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    for one in structures:
        draw(drawn, volume, plane, at, one)
    return drawn


def draw(
    onto: Picture, volume: Volume, plane: Plane, at: int, structure: Outlined
) -> None:
    """Draw one structure's outline on a `picture` of the same slice."""
    section = _slice(volume, structure.mask, plane, at)
    rows, columns = (
        _steps(stored, shown)
        for stored, shown in zip(section.shape, onto.shape[:2], strict=True)
    )
    onto[_outline(section[np.ix_(rows, columns)])] = structure.colour


def png(pixels: Picture) -> bytes:
    """A picture as PNG."""
    import PIL.Image

    target = io.BytesIO()
    PIL.Image.fromarray(pixels).save(target, "PNG", optimize=False, compress_level=6)
    return target.getvalue()


def _along_patient(
    volume: Volume, array: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    """A view of an array, its axes to (superior, posterior, left)."""
    directions = volume.affine_lps[:3, :3] / np.linalg.norm(
        volume.affine_lps[:3, :3], axis=0
    )
    taken = _assigned(np.abs(directions))
    view = array.transpose([2 - taken[axis] for axis in (2, 1, 0)])
    flips = tuple(
        slice(None, None, -1 if directions[axis, taken[axis]] < 0 else 1)
        for axis in (2, 1, 0)
    )
    return view[flips]


def _assigned(nearness: npt.NDArray[np.float64]) -> dict[int, int]:
    """Which voxel axis (x, y, z) stands for each of the patient's, each once."""
    left = nearness.copy()
    taken: dict[int, int] = {}
    for _ in range(3):
        patient, voxel = np.unravel_index(int(left.argmax()), left.shape)
        taken[int(patient)] = int(voxel)
        left[patient, :] = -1
        left[:, voxel] = -1
    return taken


def _slice(
    volume: Volume, array: npt.NDArray[np.generic], plane: Plane, at: int
) -> npt.NDArray[np.generic]:
    """(rows, columns) as it is looked at; superior is up where it is a row."""
    section: npt.NDArray[np.generic] = np.take(
        _along_patient(volume, array), at, axis=2 - _ACROSS[plane]
    )
    return section if plane == "axial" else section[::-1]


def _squared(
    volume: Volume, plane: Plane, shape: tuple[int, ...], longest_px: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which stored row and column each row and column of the picture shows."""
    directions = np.abs(volume.affine_lps[:3, :3])
    taken = _assigned(directions / np.linalg.norm(directions, axis=0))
    spacing = {axis: volume.spacing_mm[voxel] for axis, voxel in taken.items()}
    down, right = (axis for axis in (2, 1, 0) if axis != _ACROSS[plane])
    height_mm, width_mm = shape[0] * spacing[down], shape[1] * spacing[right]
    scale = longest_px / max(height_mm, width_mm)
    return (
        _steps(shape[0], max(1, round(height_mm * scale))),
        _steps(shape[1], max(1, round(width_mm * scale))),
    )


def _steps(stored: int, shown: int) -> npt.NDArray[np.int64]:
    at = ((np.arange(shown) + 0.5) * stored / shown).astype(np.int64)
    return np.minimum(at, stored - 1)


def _outline(area: npt.NDArray[np.generic]) -> Mask:
    """The pixels of an area that touch others, to all four sides."""
    padded = np.pad(area.astype(bool), 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: Mask = area.astype(bool) & ~inner
    return outline
