"""DICOM RT Structure Sets: read into values, and made from masks.

Contours are millimetres in the *patient* plane (see `geometry`), each on one image.
Reading is tolerant of what planning systems leave out; what does not fit the images is
told by `services.dicom_client`'s checks and by `masks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

from theatrum.structures.errors import BadStructures
from theatrum.structures.geometry import Array, SeriesGeometry
from theatrum.structures.rings import mask_of, rings_of

Mask = npt.NDArray[np.bool_]

ON_SLICE = 0.5
"""A contour belongs to the nearest slice, if that is within this part of a step."""
DECIMALS = 3
"""A micrometre: contours need no more, and Decimal String has 16 characters."""


@dataclass(frozen=True)
class Contour:
    """One contour of a region of interest."""

    points_mm: Array = field(repr=False)
    """(n, 3), LPS."""
    sop_instance_uid: str | None
    geometric_type: str = "CLOSED_PLANAR"


@dataclass(frozen=True)
class Roi:
    """One region of interest: a name and its contours."""

    number: int
    name: str
    contours: tuple[Contour, ...] = ()
    colour: tuple[int, int, int] | None = None
    interpreted_type: str = ""
    frame_of_reference_uid: str = ""


@dataclass(frozen=True)
class StructureSet:
    """A structure set as a value."""

    label: str
    rois: tuple[Roi, ...]
    series_instance_uids: tuple[str, ...]
    frame_of_reference_uids: tuple[str, ...]

    def roi(self, name: str) -> Roi:
        """The region of this name; BadStructures names those that there are."""
        for one in self.rois:
            if one.name == name:
                return one
        known = ", ".join(sorted(one.name for one in self.rois)) or "none"
        raise BadStructures(f"there is no structure {name!r}; there are: {known}")


def read(dataset: Dataset) -> StructureSet:
    """Read a structure set; BadStructures if it is none."""
    if dataset.get("SOPClassUID") != RTStructureSetStorage:
        raise BadStructures("this is no RT Structure Set")
    observed = {
        _number(one, "ReferencedROINumber"): one
        for one in dataset.get("RTROIObservationsSequence") or []
    }
    drawn = {
        _number(one, "ReferencedROINumber"): one
        for one in dataset.get("ROIContourSequence") or []
    }
    rois = []
    for one in dataset.get("StructureSetROISequence") or []:
        number = _number(one, "ROINumber")
        item = drawn.get(number)
        kind = observed.get(number)
        rois.append(
            Roi(
                number,
                str(one.get("ROIName") or ""),
                tuple(_contours(item)) if item is not None else (),
                _colour(item),
                str((kind.get("RTROIInterpretedType") if kind else "") or ""),
                str(one.get("ReferencedFrameOfReferenceUID") or ""),
            )
        )
    series, frames = _references(dataset)
    return StructureSet(
        str(dataset.get("StructureSetLabel") or ""), tuple(rois), series, frames
    )


def mask(roi: Roi, geometry: SeriesGeometry) -> Mask:
    """The voxels of a region, [z, y, x], by the centres of voxels.

    Contours of one slice are combined by exclusive or, so a ring within a ring is a
    hole. Raises BadStructures for a contour that lies on no slice of the series.
    """
    columns, rows, slices = geometry.size
    drawn = np.zeros((slices, rows, columns), dtype=bool)
    rings: dict[int, list[Array]] = {}
    for contour in roi.contours:
        if not contour.geometric_type.startswith("CLOSED"):
            continue
        voxels = geometry.to_voxels(contour.points_mm)
        at = float(np.median(voxels[:, 2]))
        z = round(at)
        if np.abs(voxels[:, 2] - z).max() > ON_SLICE or not 0 <= z < slices:
            raise BadStructures(
                f"{roi.name}: a contour lies on no image of this series"
            )
        rings.setdefault(z, []).append(voxels[:, :2])
    for z, found in rings.items():
        drawn[z] = mask_of(found, (rows, columns))
    return drawn


@dataclass(frozen=True)
class Drawn:
    """A mask that becomes a region of interest."""

    name: str
    mask: Mask = field(repr=False)
    """[z, y, x]."""
    colour: tuple[int, int, int] = (255, 255, 0)
    interpreted_type: str = "ORGAN"
    algorithm: str = ""
    """What drew it, for ROI Generation Description."""


def structure_set(
    structures: Sequence[Drawn],
    images: Sequence[Dataset],
    geometry: SeriesGeometry,
    *,
    label: str,
    series_description: str,
    made_at: datetime,
    uids: Mapping[str, str] | None = None,
) -> FileDataset:
    """Make a structure set for the series whose headers are `images`.

    `uids` may fix `SOPInstanceUID` and `SeriesInstanceUID`, so that a step that runs
    twice makes the same file. Patient and study are those of the images; the approval
    status is UNAPPROVED, and the series says that software drew it.
    """
    first = images[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
        *("AccessionNumber", "ReferringPhysicianName"),
    ):
        setattr(made, keyword, first.get(keyword, ""))
    if first.get("StudyDescription"):
        made.StudyDescription = first.StudyDescription
    given = uids or {}
    made.SOPClassUID = RTStructureSetStorage
    made.SOPInstanceUID = given.get("SOPInstanceUID") or generate_uid(prefix=None)
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.SeriesInstanceUID = given.get("SeriesInstanceUID") or generate_uid(prefix=None)
    made.Modality = "RTSTRUCT"
    made.SeriesNumber = None
    made.SeriesDescription = series_description[:64]
    made.OperatorsName = ""
    made.Manufacturer = "Theatrum"
    made.ManufacturerModelName = "Theatrum"
    made.SpecificCharacterSet = first.get("SpecificCharacterSet", "ISO_IR 192")
    made.StructureSetLabel = label[:16]
    made.StructureSetDate = made.InstanceCreationDate = made_at.strftime("%Y%m%d")
    made.StructureSetTime = made.InstanceCreationTime = made_at.strftime("%H%M%S")
    made.ApprovalStatus = "UNAPPROVED"
    made.FrameOfReferenceUID = geometry.frame_of_reference_uid
    made.PositionReferenceIndicator = first.get("PositionReferenceIndicator", "")
    made.ReferencedFrameOfReferenceSequence = Items([_reference(first, geometry)])
    made.StructureSetROISequence = Items()
    made.ROIContourSequence = Items()
    made.RTROIObservationsSequence = Items()
    for number, one in enumerate(structures, start=1):
        _add(made, number, one, geometry, str(first.SOPClassUID))
    return made


def _reference(first: Dataset, geometry: SeriesGeometry) -> Dataset:
    images = []
    for uid in dict.fromkeys(geometry.sop_instance_uids):
        image = Dataset()
        image.ReferencedSOPClassUID = first.SOPClassUID
        image.ReferencedSOPInstanceUID = uid
        images.append(image)
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = Items(images)
    study = Dataset()
    # Detached Study Management, retired, is what planning systems expect here.
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = first.StudyInstanceUID
    study.RTReferencedSeriesSequence = Items([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = geometry.frame_of_reference_uid
    frame.RTReferencedStudySequence = Items([study])
    return frame


def _add(
    made: Dataset, number: int, one: Drawn, geometry: SeriesGeometry, image_class: str
) -> None:
    columns, rows, slices = geometry.size
    if one.mask.shape != (slices, rows, columns):
        raise BadStructures(f"{one.name}: the mask is not of these images")
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = geometry.frame_of_reference_uid
    roi.ROIName = re.sub(r"[\\\x00-\x1f]", " ", one.name)[:64]
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    if one.algorithm:
        roi.ROIGenerationDescription = one.algorithm[:64]
    made.StructureSetROISequence.append(roi)
    item = Dataset()
    item.ROIDisplayColor = list(one.colour)
    item.ReferencedROINumber = number
    contours = list(_drawn(one.mask, geometry, image_class))
    if contours:
        item.ContourSequence = Items(contours)
    made.ROIContourSequence.append(item)
    observation = Dataset()
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = one.interpreted_type
    observation.ROIInterpreter = ""
    made.RTROIObservationsSequence.append(observation)


def _drawn(mask: Mask, geometry: SeriesGeometry, image_class: str) -> Iterator[Dataset]:
    number = 0
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        for ring in rings_of(mask[z]):
            number += 1
            voxels = np.column_stack([ring, np.full(len(ring), z)])
            points = geometry.to_patient(voxels)
            image = Dataset()
            image.ReferencedSOPClassUID = image_class
            image.ReferencedSOPInstanceUID = geometry.sop_instance_uids[int(z)]
            if geometry.frame_numbers:
                image.ReferencedFrameNumber = geometry.frame_numbers[int(z)]
            contour = Dataset()
            contour.ContourImageSequence = Items([image])
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourNumber = number
            contour.ContourData = [f"{part:.{DECIMALS}f}" for part in points.ravel()]
            yield contour


def _contours(item: Dataset) -> Iterator[Contour]:
    for one in item.get("ContourSequence") or []:
        values = np.asarray([float(part) for part in one.get("ContourData") or []])
        if len(values) < 3 or len(values) % 3 or not np.isfinite(values).all():
            raise BadStructures("a contour's points are no triples of numbers")
        images = one.get("ContourImageSequence") or []
        uid = images[0].get("ReferencedSOPInstanceUID") if images else None
        yield Contour(
            values.reshape(-1, 3),
            None if uid is None else str(uid),
            str(one.get("ContourGeometricType") or "CLOSED_PLANAR"),
        )


def _number(item: Dataset, keyword: str) -> int:
    value = item.get(keyword)
    if value is None:
        raise BadStructures(f"a region of the structure set has no {keyword}")
    return int(value)


def _colour(item: Dataset | None) -> tuple[int, int, int] | None:
    value = None if item is None else item.get("ROIDisplayColor")
    if value is None or len(value) != 3:
        return None
    red, green, blue = (int(part) for part in value)
    return red, green, blue


def _references(dataset: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The series and the frames of reference that a structure set names, once each."""
    series, frames = [], []
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        frames.append(str(frame.get("FrameOfReferenceUID") or ""))
        for study in frame.get("RTReferencedStudySequence") or []:
            series += [
                str(one.get("SeriesInstanceUID") or "")
                for one in study.get("RTReferencedSeriesSequence") or []
            ]
    return tuple(dict.fromkeys(series)), tuple(dict.fromkeys(frames))
