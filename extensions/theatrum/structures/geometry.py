"""The images of a series as one volume: where every voxel lies in the patient.

Three planes. *Image*: (column, row), the index of a pixel from the upper left; its
centre has whole numbers. *Voxel*: (x, y, z), column, row and slice, slices in order
along the normal. *Patient*: millimetres to the (left, posterior, superior), LPS. The
one conversion between them is `SeriesGeometry.affine_lps` and its inverse (PS3.3,
clause C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from theatrum.node import Volume
from theatrum.structures.errors import BadGeometry
from theatrum.structures.frames import frame_number, frames, planes

Array = npt.NDArray[np.float64]

PARALLEL = 1e-3
"""How far direction cosines of one series may differ."""
STEP_TOLERANCE = 0.1
"""How far one step between slices may differ from the usual, as a part of it."""
OFFSET_TOLERANCE_MM = 0.5
"""How far a slice may lie beside the line of the others: a tilted gantry is further."""


@dataclass(frozen=True, eq=False)
class SeriesGeometry:
    """The volume that a series forms.

    Attributes
    ----------
    size
        Columns, rows and slices.
    affine_lps
        4 x 4: takes (x, y, z, 1) of a voxel to the patient's millimetres.
    sop_instance_uids
        Of each slice, in the order of z; the slices of a multi-frame image share one.
    frame_of_reference_uid
        The coordinate system that the millimetres belong to.
    frame_numbers
        Of each slice, from 1; empty where every slice is an instance of its own.
    """

    size: tuple[int, int, int]
    affine_lps: Array
    sop_instance_uids: tuple[str, ...]
    frame_of_reference_uid: str
    frame_numbers: tuple[int, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres between neighbouring voxels along x, y and z."""
        lengths = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    def to_patient(self, voxels: npt.ArrayLike) -> Array:
        """Take (n, 3) voxel positions to (n, 3) LPS millimetres."""
        points = np.asarray(voxels, dtype=float)
        moved: Array = points @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3]
        return moved

    def to_voxels(self, patient_mm: npt.ArrayLike) -> Array:
        """Take (n, 3) LPS millimetres to (n, 3) voxel positions."""
        inverse = np.linalg.inv(self.affine_lps)
        points = np.asarray(patient_mm, dtype=float)
        moved: Array = points @ inverse[:3, :3].T + inverse[:3, 3]
        return moved


def problems(headers: Sequence[Dataset]) -> list[str]:
    """What keeps these images from being one volume; empty if nothing does.

    Each is a short word, a colon and a sentence: mixed, orientation, duplicate, gap,
    shift, tilt, few. Frames of a multi-frame image count as images.
    """
    if not headers:
        return ["few: there is no image"]
    try:
        headers = frames(headers)
    except BadGeometry as err:
        return [str(err)]
    found = []
    for keyword, what in (
        ("SeriesInstanceUID", "series"),
        ("FrameOfReferenceUID", "frames of reference"),
        ("Rows", "image heights"),
        ("Columns", "image widths"),
    ):
        if len({str(one.get(keyword)) for one in headers}) > 1:
            found.append(f"mixed: the images have different {what}")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if any(not _numbers(one, keyword) for one in headers):
            return [*found, f"mixed: an image has no {keyword}"]
    spacings = np.array([_numbers(one, "PixelSpacing") for one in headers])
    if np.ptp(spacings, axis=0).max() > PARALLEL:
        found.append("mixed: the images have different pixel spacings")
    cosines = np.array([_numbers(one, "ImageOrientationPatient") for one in headers])
    if np.ptp(cosines, axis=0).max() > PARALLEL:
        return [*found, "orientation: the images are not parallel"]
    return found + _step_problems(headers)


def _step_problems(headers: Sequence[Dataset]) -> list[str]:
    positions = np.array([_numbers(one, "ImagePositionPatient") for one in headers])
    normal = _normal(headers[0])
    depths = np.sort(positions @ normal)
    steps = np.diff(depths)
    if not len(steps):
        return []
    if steps.min() < 1e-3:
        return ["duplicate: two images lie at the same place"]
    usual = float(np.median(steps))
    found = []
    if np.abs(steps - usual).max() > STEP_TOLERANCE * usual:
        at = int(np.abs(steps - usual).argmax())
        found.append(
            f"gap: between slice {at + 1} and {at + 2} lie {steps[at]:.2f} mm, "
            f"elsewhere {usual:.2f} mm"
        )
    ordered = positions[np.argsort(positions @ normal)]
    way = ordered[-1] - ordered[0]
    # Small differences add up: what counts is where even steps would put each slice.
    even = ordered[0] + np.outer(np.linspace(0, 1, len(ordered)), way)
    off = (ordered - even) @ normal
    if not found and np.abs(off).max() > STEP_TOLERANCE * usual:
        at = int(np.abs(off).argmax())
        found.append(
            f"gap: slice {at + 1} lies {abs(off[at]):.2f} mm from where even steps of "
            f"{usual:.2f} mm would have it"
        )
    share = (ordered - ordered[0]) @ normal / (way @ normal)
    sideways = np.linalg.norm(ordered - ordered[0] - np.outer(share, way), axis=1)
    if sideways.max() > OFFSET_TOLERANCE_MM:
        found.append(
            f"shift: slice {int(sideways.argmax()) + 1} lies {sideways.max():.1f} mm "
            "beside the line of the others"
        )
    beside = np.linalg.norm(way - (way @ normal) * normal)
    if beside > OFFSET_TOLERANCE_MM:
        found.append(
            f"tilt: the slices are shifted by {beside:.1f} mm against each other"
        )
    return found


def series_geometry(headers: Sequence[Dataset]) -> SeriesGeometry:
    """The volume of a series from its headers, in any order.

    Raises BadGeometry with every problem. A shift of the slices (gantry tilt) is no
    hindrance: the affine holds it.
    """
    hindrances = [one for one in problems(headers) if not one.startswith("tilt")]
    if hindrances:
        raise BadGeometry("; ".join(hindrances))
    ordered = in_order(headers)
    first = ordered[0]
    numbers = [frame_number(one) for one in ordered]
    cosines = np.array(_numbers(first, "ImageOrientationPatient"))
    down_mm, right_mm = _numbers(first, "PixelSpacing")
    origin = np.array(_numbers(first, "ImagePositionPatient"))
    affine = np.eye(4)
    affine[:3, 0] = cosines[:3] * right_mm
    affine[:3, 1] = cosines[3:] * down_mm
    affine[:3, 2] = _slice_step(ordered, origin)
    affine[:3, 3] = origin
    return SeriesGeometry(
        (int(first.Columns), int(first.Rows), len(ordered)),
        affine,
        tuple(str(one.SOPInstanceUID) for one in ordered),
        str(first.get("FrameOfReferenceUID", "")),
        tuple(one for one in numbers if one is not None),
    )


def in_order(headers: Iterable[Dataset]) -> list[Dataset]:
    """Images sorted along the normal of the first, from low to high.

    Of multi-frame images these are their frames' headers (`frames`).
    """
    listed = frames(list(headers))
    normal = _normal(listed[0])
    return sorted(
        listed,
        key=lambda one: float(np.array(_numbers(one, "ImagePositionPatient")) @ normal),
    )


def volume(images: Sequence[Dataset]) -> Volume:
    """The voxels of a series: CT in Hounsfield units, all else rescaled as it says."""
    geometry = series_geometry(images)
    columns, rows, slices = geometry.size
    first = frames(images[:1])[0]
    normal = _normal(first)
    ordered = sorted(
        planes(images),
        key=lambda one: float(
            np.array(_numbers(one[0], "ImagePositionPatient")) @ normal
        ),
    )
    array = np.empty((slices, rows, columns), dtype=np.float32)
    for at, (header, values) in enumerate(ordered):
        slope = float(header.get("RescaleSlope", 1) or 1)
        intercept = float(header.get("RescaleIntercept", 0) or 0)
        array[at] = values.astype(np.float64) * slope + intercept
    whole = np.rint(array)
    if np.array_equal(whole, array) and np.abs(whole).max() < 32_768:
        return Volume(whole.astype(np.int16), geometry.affine_lps, str(first.Modality))
    return Volume(array, geometry.affine_lps, str(first.Modality))


def _slice_step(ordered: Sequence[Dataset], origin: Array) -> Array:
    if len(ordered) > 1:
        last = np.array(_numbers(ordered[-1], "ImagePositionPatient"))
        step: Array = (last - origin) / (len(ordered) - 1)
        return step
    only = ordered[0]
    thickness = only.get("SpacingBetweenSlices") or only.get("SliceThickness") or 1.0
    return _normal(only) * float(thickness)


def _normal(header: Dataset) -> Array:
    cosines = _numbers(header, "ImageOrientationPatient")
    if len(cosines) != 6:
        raise BadGeometry("mixed: an image has no ImageOrientationPatient")
    return np.cross(cosines[:3], cosines[3:])


def _numbers(header: Dataset, keyword: str) -> list[float]:
    value = header.get(keyword)
    wanted = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6}.get(keyword, 2)
    if value is None or isinstance(value, str) or len(value) != wanted:
        return []
    numbers = [float(one) for one in value]
    return numbers if np.isfinite(numbers).all() else []
