"""Slides and scans as nodes see them: their size, their scale, their pixels.

A node never opens a file. It takes an `Image`, a protocol which the notebook's
`images[...]`, the readers behind a service and a plain array (`ArrayImage`) satisfy.

Planes: level-0 pixels of the full slide (x to the right, y down); of scans, patient
coordinates in millimetres, LPS as DICOM has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from theatrum.node.errors import BadValue

Pixels = npt.NDArray[np.uint8]


class Level(Protocol):
    """One rung of a slide's ladder."""

    @property
    def downsample(self) -> float:
        """How many level-0 pixels one of its pixels spans: a power of two."""


@runtime_checkable
class Image(Protocol):
    """A slide in two dimensions. Reading may be slow; it may raise its own errors."""

    @property
    def width(self) -> int:
        """Level-0 pixels."""

    @property
    def height(self) -> int:
        """Level-0 pixels."""

    @property
    def mpp_x(self) -> float | None:
        """Micrometres per level-0 pixel to the right; None where unknown."""

    @property
    def mpp_y(self) -> float | None:
        """Micrometres per level-0 pixel down; None where unknown."""

    @property
    def levels(self) -> Sequence[Level]:
        """The ladder, full resolution first, each next one half as wide."""

    def region(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        level: int | None = None,
        mpp: float | None = None,
    ) -> npt.ArrayLike:
        """Return (rows, columns, 3) uint8 RGB of a rectangle in level-0 pixels.

        At rung `level` of the ladder (0, full resolution, if left out), or averaged
        to `mpp`; outside the slide it is background. One answer has at most 2**24
        pixels.
        """


@dataclass(frozen=True)
class Rung:
    """A level of an `ArrayImage`."""

    downsample: float


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """An array of pixels as a slide: to try a node on, or as a node's output.

    Attributes
    ----------
    array
        (height, width, 3) uint8, RGB. It stays the caller's: do not write to it.
    mpp
        Micrometres per pixel, both ways; None where unknown.
    background
        Grey of what lies outside, 0 to 255.
    """

    array: Pixels
    mpp: float | None = None
    background: int = 255

    def __post_init__(self) -> None:
        if self.array.dtype != np.uint8 or self.array.ndim != 3 or not self.array.size:
            raise BadValue("A picture is a (height, width, 3) array of uint8.")
        if self.array.shape[2] != 3:
            raise BadValue("A picture has three colours: red, green and blue.")

    @property
    def width(self) -> int:
        """Level-0 pixels."""
        return int(self.array.shape[1])

    @property
    def height(self) -> int:
        """Level-0 pixels."""
        return int(self.array.shape[0])

    @property
    def mpp_x(self) -> float | None:
        """Micrometres per pixel to the right; None where unknown."""
        return self.mpp

    @property
    def mpp_y(self) -> float | None:
        """Micrometres per pixel down; None where unknown."""
        return self.mpp

    @property
    def levels(self) -> tuple[Rung, ...]:
        """Halvings until the picture is 256 pixels or less at its longer side."""
        longest = max(self.width, self.height)
        halvings = max(0, int(np.ceil(np.log2(longest / 256))))
        return tuple(Rung(2.0**k) for k in range(halvings + 1))

    def region(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        level: int | None = None,
        mpp: float | None = None,
    ) -> Pixels:
        """Return a rectangle, each pixel the mean of the level-0 pixels it spans."""
        if level is not None and mpp is not None:
            raise BadValue("Give a level or an mpp, not both.")
        if not (width > 0 and height > 0):
            raise BadValue("Width and height must be more than 0 level-0 pixels.")
        downsample = 2.0 ** (level or 0)
        if mpp is not None:
            if self.mpp is None:
                raise BadValue("This picture does not say its scale: give a level.")
            downsample = mpp / self.mpp
        columns = max(1, round(width / downsample))
        rows = max(1, round(height / downsample))
        left, right = _spans(x, width, columns)
        top, bottom = _spans(y, height, rows)
        part = np.full(
            (bottom[-1] - top[0], right[-1] - left[0], 3), self.background, np.uint8
        )
        l0_x, l0_y = max(0, int(left[0])), max(0, int(top[0]))
        inside = self.array[l0_y : max(0, bottom[-1]), l0_x : max(0, right[-1])]
        i, j = l0_y - int(top[0]), l0_x - int(left[0])
        part[i : i + inside.shape[0], j : j + inside.shape[1]] = inside
        return _means(
            part, top - top[0], bottom - top[0], left - left[0], right - left[0]
        )


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in three dimensions.

    Attributes
    ----------
    array
        Indexed [z, y, x]: slice, row, column. Of CT in Hounsfield units.
    affine_lps
        4 x 4: takes the index (x, y, z, 1) of a voxel, note the order, to the
        patient's (left, posterior, superior) millimetres of its centre.
    modality
        As DICOM names it: CT, MR, PT.
    """

    array: npt.NDArray[Any]  # integers or floats, as the scan has them
    affine_lps: npt.NDArray[np.float64]
    modality: str = ""

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or not self.array.size:
            raise BadValue("A scan is a (z, y, x) array that is not empty.")
        object.__setattr__(self, "affine_lps", _affine(self.affine_lps))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres between neighbouring voxels along x, y and z."""
        columns = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(columns[0]), float(columns[1]), float(columns[2])

    @property
    def voxel_ml(self) -> float:
        """Millilitres of one voxel."""
        return abs(float(np.linalg.det(self.affine_lps[:3, :3]))) / 1000


@dataclass(frozen=True, eq=False)
class Labels:
    """Which pixel or voxel belongs to what.

    Attributes
    ----------
    array
        (rows, columns) of a slide or [z, y, x] of a scan; whole numbers or booleans,
        0 (False) is nothing.
    names
        What each other number means.
    origin
        Of a slide: level-0 pixels (x, y) of the array's corner.
    downsample
        Of a slide: level-0 pixels that one pixel of the array spans.
    affine_lps
        Of a scan: as `Volume` has it.
    """

    array: npt.NDArray[Any]  # booleans or any whole numbers
    names: Mapping[int, str]
    origin: tuple[float, float] = (0.0, 0.0)
    downsample: float = 1.0
    affine_lps: npt.NDArray[np.float64] | None = None
    colours: Mapping[int, str] = field(default_factory=dict)
    """As CSS writes them, for who draws them; none need be given."""

    def __post_init__(self) -> None:
        if self.array.dtype.kind not in ("b", "u", "i") or self.array.ndim not in (
            2,
            3,
        ):
            raise BadValue(
                "Labels are whole numbers or booleans in two or three dimensions."
            )
        if self.array.ndim == 3 and self.affine_lps is None:
            raise BadValue("Labels of a scan need its affine_lps.")
        if self.affine_lps is not None:
            object.__setattr__(self, "affine_lps", _affine(self.affine_lps))

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Return where the label of this name is."""
        for number, known in self.names.items():
            if known == name:
                mask: npt.NDArray[np.bool_] = self.array == number
                return mask
        raise BadValue(f"There is no label {name!r}: {', '.join(self.names.values())}.")


def _spans(
    start: float, length: float, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first and the last-plus-one level-0 pixel of each pixel."""
    edges = np.rint(start + np.arange(count + 1) * (length / count)).astype(np.int64)
    return edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)


def _means(
    part: Pixels,
    top: npt.NDArray[np.int64],
    bottom: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
) -> Pixels:
    if len(top) == part.shape[0] and len(left) == part.shape[1]:
        return part
    sums = np.zeros((part.shape[0] + 1, part.shape[1] + 1, 3), np.int64)
    sums[1:, 1:] = part.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    t, b, le, r = top[:, None], bottom[:, None], left[None], right[None]
    total = sums[b, r] - sums[t, r] - sums[b, le] + sums[t, le]
    count = ((b - t) * (r - le))[..., None]
    return np.asarray((total + count // 2) // count, dtype=np.uint8)


def _affine(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    affine = np.array(matrix, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise BadValue("An affine is 4 x 4 finite numbers.")
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise BadValue("This affine is flat: it gives voxels no volume.")
    affine.flags.writeable = False
    return affine
