"""The structure set that the server answers with, shaped as its real worker's are."""

from __future__ import annotations

import io

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from .packages import Package
from .scenario import Scenario

SIDE_PX = 10.0


def structure_set(package: Package, scenario: Scenario) -> bytes:
    """One square on every slice for each structure that was asked for."""
    images = sorted(package.images, key=lambda one: float(one.ImagePositionPatient[2]))
    first = images[0]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    kind = (
        SecondaryCaptureImageStorage
        if scenario.rt_not_rtstruct
        else RTStructureSetStorage
    )
    meta.MediaStorageSOPClassUID = kind
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID = kind
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SeriesInstanceUID = generate_uid()
    made.Modality = "RTSTRUCT"
    made.Manufacturer, made.ManufacturerModelName = "Qurit", "rt-utils"
    made.InstitutionName = "Qurit"
    made.StructureSetLabel = "RTstruct"
    made.ApprovalStatus = "UNAPPROVED"
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
    ):
        setattr(made, keyword, first.get(keyword, ""))
    if scenario.rt_phi_injected:
        made.StudyDescription = scenario.rt_phi_injected
    frame = str(first.FrameOfReferenceUID)
    if scenario.rt_wrong_for:
        frame = generate_uid()
    made.FrameOfReferenceUID = frame
    if not scenario.rt_no_ref:
        made.ReferencedFrameOfReferenceSequence = Sequence(
            [_reference(images, frame, scenario)]
        )
    made.StructureSetROISequence = Sequence()
    made.ROIContourSequence = Sequence()
    made.RTROIObservationsSequence = Sequence()
    names = package.wanted[1:] if scenario.rt_missing_roi else package.wanted
    if scenario.rt_extra_roi:
        names = [*names, "Not_Asked_For"]
    for number, name in enumerate(names, start=1):
        shown = 1 if scenario.rt_duplicate_numbers else number
        _add(
            made,
            shown,
            name,
            images,
            frame,
            scenario,
            empty=(scenario.rt_empty_roi and number == 1),
        )
    written = io.BytesIO()
    made.save_as(written, enforce_file_format=True)
    return written.getvalue()


def _reference(images: list[Dataset], frame: str, scenario: Scenario) -> Dataset:
    first = images[0]
    listed = []
    for image in images:
        one = Dataset()
        one.ReferencedSOPClassUID = image.SOPClassUID
        one.ReferencedSOPInstanceUID = image.SOPInstanceUID
        listed.append(one)
    if scenario.rt_foreign_sop:
        listed[0].ReferencedSOPInstanceUID = generate_uid()
    series = Dataset()
    series.SeriesInstanceUID = (
        generate_uid() if scenario.rt_wrong_series else first.SeriesInstanceUID
    )
    series.ContourImageSequence = Sequence(listed)
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = first.StudyInstanceUID
    study.RTReferencedSeriesSequence = Sequence([series])
    item = Dataset()
    item.FrameOfReferenceUID = frame
    item.RTReferencedStudySequence = Sequence([study])
    return item


def _add(
    made: Dataset,
    number: int,
    name: str,
    images: list[Dataset],
    frame: str,
    scenario: Scenario,
    *,
    empty: bool,
) -> None:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, name
    roi.ReferencedFrameOfReferenceUID = frame
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    made.StructureSetROISequence.append(roi)
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = [255, 30 * number % 255, 0]
    contours = [] if empty else [_square(image, number, scenario) for image in images]
    item.ContourSequence = Sequence(contours)
    made.ROIContourSequence.append(item)
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = ""
    observation.ROIInterpreter = ""
    made.RTROIObservationsSequence.append(observation)


def _square(image: Dataset, number: int, scenario: Scenario) -> Dataset:
    down, right = (float(part) for part in image.PixelSpacing)
    cosines = np.array([float(part) for part in image.ImageOrientationPatient])
    middle = np.array([image.Columns / 2 + number, image.Rows / 2])
    if scenario.rt_outside:
        middle += 10 * max(image.Columns, image.Rows)
    corners = middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * SIDE_PX / 2
    origin = np.array([float(part) for part in image.ImagePositionPatient])
    points = [
        origin + x * right * cosines[:3] + y * down * cosines[3:] for x, y in corners
    ]
    values = [f"{part:.3f}" for point in points for part in point]
    contour = Dataset()
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    contour.ContourImageSequence = Sequence([reference])
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = 5 if scenario.rt_odd_points else 4
    contour.ContourData = values
    return contour
