"""Slices of one series put together: which form a volume, and what is wrong with it.

Slices belong together that have one size, one direction, one step between pixels and
one kind (echo, component). A series of three localisers is three stacks. In a stack the
slices lie along one line; several at one place are times. What a person should know is
told and never mended in silence: a missing slice stays a gap of the right width, a
duplicate is left out, a tilt stays in the affine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from theatrum.catalog.formats.dicom.slices import Slice, unit_vector
from theatrum.catalog.formats.errors import NoVolume
from theatrum.catalog.formats.geometry import SHEAR_DEG
from theatrum.catalog.formats.scene import Affine

PARALLEL = 5e-3
"""How far direction cosines of one stack may differ."""
SAME_PLACE_MM = 0.01
"""Slices closer than this lie at one place."""
STEP_TOLERANCE = 0.1
"""How far one step between slices may differ from the usual, as a part of it."""
OFF_LINE_MM = 0.5
"""How far a slice may lie beside the line of the others."""
_MOST_MISSING = 0.5
"""Of a volume's slices: with more of them missing it is none."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Slices by time and place, and where their voxels lie.

    Attributes
    ----------
    slices
        By time, then from the first place to the last along z; None where one is
        missing.
    affine
        4 x 4 to LPS millimetres, or None where the files tell no places.
    """

    slices: tuple[tuple[Slice | None, ...], ...]
    affine: Affine | None
    step_z_mm: float | None
    warnings: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    left_out: tuple[str, ...] = field(default=())

    @property
    def first(self) -> Slice:
        return next(one for row in self.slices for one in row if one is not None)


def stacks(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices that may form a volume together, the largest stack first."""
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            if _alike(group[0], one):
                group.append(one)
                break
        else:
            groups.append([one])
    return sorted(groups, key=len, reverse=True)


def _alike(first: Slice, other: Slice) -> bool:
    if (first.rows, first.columns) != (other.rows, other.columns):
        return False
    if first.coding.samples != other.coding.samples or first.kind != other.kind:
        return False
    if first.coding != other.coding:
        return False
    if (first.across is None) != (other.across is None):
        return False
    if (first.place is None) != (other.place is None):
        return False
    if first.place is None and first.header is not other.header:
        # Nothing says that pictures of two files belong to one another.
        return False
    if first.across is not None and other.across is not None:
        mine = np.array([*first.across, *(first.down or ())])
        its = np.array([*other.across, *(other.down or ())])
        if np.abs(mine - its).max() > PARALLEL:
            return False
    if (first.step_mm is None) != (other.step_mm is None):
        return False
    if first.step_mm is not None and other.step_mm is not None:
        return bool(np.allclose(first.step_mm, other.step_mm, rtol=1e-3))
    return True


def volume_of(stack: Sequence[Slice]) -> Volume:
    """The volume that a stack forms; raises NoVolume with what keeps it from it."""
    if stack[0].place is None or stack[0].across is None or stack[0].step_mm is None:
        return _without_places(stack)
    kept = list(stack)
    across, down = unit_vector(kept[0].across), unit_vector(kept[0].down)
    normal = np.cross(across, down)
    if kept[0].normal is not None and float(normal @ np.asarray(kept[0].normal)) < 0:
        # The tiles of a mosaic go this way; so does its z.
        normal = -normal
    places = np.array([one.place for one in kept], float)
    rows = _by_place(kept, places @ normal)
    warnings: list[str] = []
    rows, uneven = _even_times(rows)
    warnings += uneven
    corners = np.array([row[0].place for row in rows], float)
    steps = _steps(corners @ normal)
    usual = float(np.median(steps)) if len(steps) else kept[0].thickness_mm
    indices = _indices(steps, usual)
    missing = tuple(sorted(set(range(indices[-1] + 1)) - set(indices)))
    if len(missing) > _MOST_MISSING * (indices[-1] + 1):
        raise NoVolume(
            f"The slices lie {usual:.2f} mm apart at some places and "
            f"{float(np.max(steps)):.2f} mm at others: they form no volume."
        )
    if missing:
        warnings.append(
            f"{len(missing)} of {indices[-1] + 1} slices are missing "
            f"(z {_listed(missing)}); they hold nothing."
        )
    affine = _affine(kept[0], corners, indices, usual, normal)
    warnings += _tilt(affine, normal)
    times = len(rows[0])
    placed = dict(zip(indices, rows, strict=True))
    grid = tuple(
        tuple(placed[z][t] if z in placed else None for z in range(indices[-1] + 1))
        for t in range(times)
    )
    return Volume(
        grid,
        affine,
        float(np.linalg.norm(affine[:3, 2])) if usual else None,
        tuple(warnings),
        missing,
    )


def _without_places(stack: Sequence[Slice]) -> Volume:
    """Frames of a file that does not say where they lie: times of a film, or depths."""
    ordered = sorted(stack, key=lambda one: one.frame)
    header = ordered[0].header
    film = bool(header.text("FrameTime")) or "1063" in header.text(
        "FrameIncrementPointer"
    )
    warnings = ("The file does not say where the picture lies in the patient.",)
    if film:
        return Volume(tuple((one,) for one in ordered), None, None, warnings)
    return Volume((tuple(ordered),), None, ordered[0].thickness_mm, warnings)


def without_doubles(
    slices: Sequence[Slice],
) -> tuple[list[Slice], tuple[str, ...]]:
    """Each instance once: a file can lie there under two names, or in two codings.

    Tiles of a mosaic and frames of a file are told apart by their number.
    """
    kept: dict[tuple[str, int], Slice] = {}
    doubles = 0
    for one in slices:
        key = one.header.instance or one.header.path.name, one.frame
        if key in kept:
            doubles += 1
        else:
            kept[key] = one
    told = f"{doubles} images are there twice; each was taken once."
    return list(kept.values()), (told,) if doubles else ()


def _by_place(
    stack: Sequence[Slice], depths: npt.NDArray[np.float64]
) -> list[list[Slice]]:
    """Slices of one place together, in the order of time; places along the normal."""
    order = np.argsort(depths, kind="stable")
    rows: list[list[Slice]] = []
    last = -np.inf
    for at in order:
        if depths[at] - last > SAME_PLACE_MM:
            rows.append([])
            last = float(depths[at])
        rows[-1].append(stack[at])
    for row in rows:
        row.sort(key=lambda one: one.when)
    return rows


def _even_times(rows: list[list[Slice]]) -> tuple[list[list[Slice]], list[str]]:
    """As many times at every place; what is too much is told."""
    counts = Counter(len(row) for row in rows)
    if len(counts) == 1:
        return rows, []
    usual = counts.most_common(1)[0][0]
    fewest = min(counts)
    times = usual if fewest >= usual else fewest
    left = sum(len(row) - times for row in rows)
    if times == 1:
        told = f"{left} images lie at the place of another; the first was taken."
    else:
        told = (
            f"{left} images belong to a volume that is not complete; {times} times "
            "were taken."
        )
    return [row[:times] for row in rows], [told]


def _steps(depths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.diff(depths)


def _indices(steps: npt.NDArray[np.float64], usual: float | None) -> list[int]:
    """The place of each slice on the even grid; raises NoVolume where there is none."""
    if not len(steps) or not usual:
        return list(range(len(steps) + 1))
    # The smallest step is the grid where many slices are missing.
    grid = usual
    smallest = float(steps.min())
    if smallest < usual * (1 - STEP_TOLERANCE):
        grid = smallest
    counts = steps / grid
    whole = np.rint(counts)
    if np.any(whole < 1) or np.abs(counts - whole).max() > STEP_TOLERANCE:
        raise NoVolume(
            f"The steps between the slices are uneven ({smallest:.2f} to "
            f"{float(steps.max()):.2f} mm), so that they form no volume. Take the "
            "slices that lie evenly, or resample the series first."
        )
    return [0, *(int(one) for one in np.cumsum(whole))]


def _affine(
    first: Slice,
    corners: npt.NDArray[np.float64],
    indices: Sequence[int],
    usual: float | None,
    normal: npt.NDArray[np.float64],
) -> Affine:
    down_mm, across_mm = first.step_mm or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0] = unit_vector(first.across) * across_mm
    affine[:3, 1] = unit_vector(first.down) * down_mm
    if len(corners) > 1:
        affine[:3, 2] = (corners[-1] - corners[0]) / indices[-1]
        on_line = corners[0] + np.outer(indices, affine[:3, 2])
        off = float(np.linalg.norm(corners - on_line, axis=1).max())
        if off > OFF_LINE_MM:
            raise NoVolume(
                f"The slices do not lie along one line: one is {off:.1f} mm beside it."
            )
    else:
        affine[:3, 2] = normal * (usual or 1.0)
    affine[:3, 3] = corners[0]
    return affine


def _tilt(affine: Affine, normal: npt.NDArray[np.float64]) -> list[str]:
    along = unit_vector(affine[:3, 2])
    tilt = float(np.degrees(np.arccos(min(abs(float(along @ normal)), 1.0))))
    if tilt <= SHEAR_DEG:
        return []
    return [
        f"The gantry was tilted by {tilt:.1f} degrees: the voxels are sheared, as the "
        "affine says."
    ]


def _listed(places: Sequence[int]) -> str:
    shown = ", ".join(str(one) for one in places[:8])
    return shown + (", ..." if len(places) > 8 else "")
