"""What a structure set from elsewhere has to fulfil before it is delivered.

The numbers are those of the list in the documentation (docs/dicom_client.md). A
`Severity.REJECT` keeps the file in quarantine, an `ALARM` does that and tells somebody
at once (the server knows who the patient is), and a `WARNING` goes on with a note.
Numbers 2 (checksum) and 13 (approval status) are seen to where the file is downloaded
and finished.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import RTStructureSetStorage
from theatrum.deidentify import Mapping
from theatrum.structures import SeriesGeometry

Array = npt.NDArray[np.float64]

RESULT_BYTES = 512 << 20
TPS_NAME_LENGTH = 16
IOD_TIMEOUT_S = 60.0
ON_IMAGE = 0.1
"""A contour lies on an image up to this part of the step between images."""


class Severity(StrEnum):
    """What a finding means for the job."""

    REJECT = "reject"
    ALARM = "alarm"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One check that was not passed; `text` names structures, never a person."""

    check: int
    severity: Severity
    text: str


def opened(path: Path) -> Dataset | Finding:
    """Check 1: the file is a structure set that reads without force."""
    if path.stat().st_size > RESULT_BYTES:
        return Finding(1, Severity.REJECT, "the result is larger than any expected")
    try:
        dataset = pydicom.dcmread(path)
        # Values are read late: a damaged one shows itself now.
        for _ in dataset.iterall():
            pass
    except (InvalidDicomError, ValueError, EOFError, OSError, KeyError, TypeError):
        return Finding(1, Severity.REJECT, "the result is no DICOM file")
    if dataset.get("SOPClassUID") != RTStructureSetStorage:
        return Finding(1, Severity.REJECT, "the result is no RT Structure Set")
    return dataset


def before_reidentification(
    dataset: Dataset,
    mapping: Mapping,
    geometry: SeriesGeometry,
    *,
    series_instance_uid: str,
    wanted: Sequence[str],
    verified: bool,
    places: MappingType[str, Array] | None = None,
) -> list[Finding]:
    """Checks 2 to 9 on a result as it came.

    `geometry` and `series_instance_uid` are those of the de-identified images that
    were sent, `wanted` the names that were asked for, and `verified` whether the
    server named a checksum. `places` says where each image lies (its Image Position
    Patient by its SOP Instance UID as sent); without it the geometry's grid counts.
    """
    findings: list[Finding] = []
    if not verified:
        findings.append(
            Finding(2, Severity.WARNING, "the server named no checksum for the result")
        )
    findings += _references(dataset, mapping, geometry, series_instance_uid)
    findings += _sequences(dataset)
    findings += _names(dataset, wanted)
    findings += _contours(dataset, _Stack.of(geometry, places))
    findings += _identifiers(dataset, mapping)
    return findings


def after_reidentification(
    dataset: Dataset, mapping: Mapping, header: Dataset
) -> list[Finding]:
    """Checks 10 and 11 on the finished file; `header` is an original image's."""
    findings = []
    given_out = set(mapping.uids) - set(mapping.uids.values())
    left = sum(value in given_out for value in _uids(dataset))
    if left:
        findings.append(
            Finding(10, Severity.REJECT, f"{left} references are still pseudonyms")
        )
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID"):
        if str(dataset.get(keyword, "")) != str(header.get(keyword, "")):
            findings.append(
                Finding(10, Severity.REJECT, f"{keyword} is not that of the images")
            )
    if len(str(dataset.get("StructureSetLabel", ""))) > TPS_NAME_LENGTH:
        findings.append(Finding(11, Severity.REJECT, "the label is too long"))
    for name in _roi_names(dataset):
        if len(name) > 64:
            findings.append(Finding(11, Severity.REJECT, "a name is too long"))
        elif len(name) > TPS_NAME_LENGTH:
            findings.append(
                Finding(
                    11,
                    Severity.WARNING,
                    f"{name}: some planning systems take {TPS_NAME_LENGTH} characters",
                )
            )
    return findings


def iod_findings(path: Path) -> list[Finding]:
    """Check 12: what `dciodvfy` (Debian's dicom3tools) calls an error, if here."""
    program = shutil.which("dciodvfy")
    if program is None:
        return []
    try:
        ran = subprocess.run(
            [program, str(path)],
            capture_output=True,
            timeout=IOD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [Finding(12, Severity.WARNING, "the IOD check took too long")]
    errors = ran.stderr.decode("latin-1").count("Error -")
    if not errors:
        return []
    # The lines themselves quote values of the file.
    return [Finding(12, Severity.WARNING, f"the IOD check found {errors} errors")]


def _references(
    dataset: Dataset, mapping: Mapping, geometry: SeriesGeometry, series: str
) -> Iterator[Finding]:
    named, instances, frames = set(), set(), set()
    for item in dataset.iterall():
        if item.VR != "UI" or item.value in (None, ""):
            continue
        if item.keyword == "ReferencedSOPInstanceUID":
            instances.add(str(item.value))
        elif item.keyword in {"FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"}:
            frames.add(str(item.value))
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for one in study.get("RTReferencedSeriesSequence") or []:
                named.add(str(one.get("SeriesInstanceUID", "")))
    if named != {series}:
        text = "another series" if named else "no series"
        yield Finding(3, Severity.REJECT, f"the result refers to {text}")
    strange = instances - set(mapping.uids)
    if strange:
        yield Finding(
            4, Severity.REJECT, f"{len(strange)} references are to unknown instances"
        )
    if frames - {geometry.frame_of_reference_uid}:
        yield Finding(
            5, Severity.REJECT, "the result lies in another frame of reference"
        )


def _sequences(dataset: Dataset) -> Iterator[Finding]:
    numbers = [
        one.get("ROINumber") for one in dataset.get("StructureSetROISequence") or []
    ]
    drawn = [
        one.get("ReferencedROINumber")
        for one in dataset.get("ROIContourSequence") or []
    ]
    observed = [
        one.get("ReferencedROINumber")
        for one in dataset.get("RTROIObservationsSequence") or []
    ]
    if not numbers:
        # A file that was cut off before them reads as one that has none.
        yield Finding(6, Severity.REJECT, "the result holds no structure")
    elif any(None in one or len(set(one)) != len(one) for one in (numbers, drawn)):
        yield Finding(6, Severity.REJECT, "a structure's number stands twice")
    elif set(drawn) - set(numbers) or set(observed) - set(numbers):
        yield Finding(6, Severity.REJECT, "contours belong to a structure that is not")
    elif set(numbers) - set(observed):
        yield Finding(6, Severity.REJECT, "a structure has no observation")


def _names(dataset: Dataset, wanted: Sequence[str]) -> Iterator[Finding]:
    drawn = {
        one.get("ReferencedROINumber"): bool(one.get("ContourSequence"))
        for one in dataset.get("ROIContourSequence") or []
    }
    found = {
        str(one.get("ROIName", "")): drawn.get(one.get("ROINumber"), False)
        for one in dataset.get("StructureSetROISequence") or []
    }
    if wanted and found and not set(wanted) & set(found):
        yield Finding(
            7, Severity.REJECT, "nothing that was asked for is in it: another's result"
        )
    for what, names in (
        ("was not asked for", sorted(set(found) - set(wanted))),
        ("is missing", [name for name in wanted if name not in found]),
        ("is empty", [name for name, has in found.items() if not has]),
    ):
        for name in names:
            yield Finding(7, Severity.WARNING, f"{name} {what}")


def place_key(uid: str, frame: object = None) -> str:
    """What a slice is known by: its instance, and its frame where it is one of many."""
    return uid if frame is None else f"{uid}#{frame}"


@dataclass(frozen=True)
class _Stack:
    """Where the images of a series lie, each by its own position and not by a grid."""

    axes: Array
    """Rows: unit vectors along a row, down a column and along the normal."""
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    """Columns and rows."""
    places: MappingType[str, Array]
    tolerance_mm: float
    """How far a contour may lie beside its image, along the normal."""

    @classmethod
    def of(
        cls, geometry: SeriesGeometry, places: MappingType[str, Array] | None
    ) -> _Stack:
        across, down, step = geometry.affine_lps[:3, :3].T
        columns_mm, rows_mm, _ = geometry.spacing_mm
        normal = np.cross(across, down) / (columns_mm * rows_mm)
        if places is None:
            origin = geometry.affine_lps[:3, 3]
            uids = geometry.sop_instance_uids
            numbers = geometry.frame_numbers or [None] * len(uids)
            keys = [place_key(*one) for one in zip(uids, numbers, strict=True)]
            places = {key: origin + at * step for at, key in enumerate(keys)}
        return cls(
            np.array([across / columns_mm, down / rows_mm, normal]),
            (columns_mm, rows_mm),
            geometry.size[:2],
            places,
            ON_IMAGE * abs(float(step @ normal)),
        )

    def depth_of(self, points: Array) -> Array:
        """Along the normal, in millimetres."""
        depths: Array = points @ self.axes[2]
        return depths

    def is_within(self, points: Array, place: Array) -> bool:
        """Whether points lie on the image at `place`, or a pixel beside it."""
        within = (points - place) @ self.axes[:2].T / self.spacing_mm
        columns, rows = self.size
        return bool(
            within.min() >= -1
            and within[:, 0].max() <= columns
            and within[:, 1].max() <= rows
        )


def _contours(dataset: Dataset, stack: _Stack) -> Iterator[Finding]:
    names = {
        one.get("ROINumber"): str(one.get("ROIName", ""))
        for one in dataset.get("StructureSetROISequence") or []
    }
    for item in dataset.get("ROIContourSequence") or []:
        name = names.get(item.get("ReferencedROINumber"), "a structure")
        faults = {
            fault
            for contour in item.get("ContourSequence") or []
            for fault in _contour_faults(contour, stack)
        }
        for severity, text in sorted(faults):
            yield Finding(8, Severity(severity), f"{name}: {text}")


def _contour_faults(contour: Dataset, stack: _Stack) -> Iterator[tuple[str, str]]:
    try:
        values = np.array([float(one) for one in contour.get("ContourData") or []])
        number = int(contour.get("NumberOfContourPoints", -1))
    except (TypeError, ValueError):
        yield Severity.REJECT, "a contour holds something else than numbers"
        return
    if len(values) % 3 or len(values) != 3 * number:
        yield Severity.REJECT, "a contour has another number of points than it says"
        return
    if not np.isfinite(values).all():
        yield Severity.REJECT, "a contour holds something else than numbers"
        return
    kind = str(contour.get("ContourGeometricType", ""))
    if kind != "POINT" and len(values) < 9:
        yield Severity.REJECT, "a contour has fewer than three points"
    elif len(values):
        yield from _place_faults(contour, values.reshape(-1, 3), stack)
        if kind not in {"POINT", "CLOSED_PLANAR"}:
            yield Severity.WARNING, "a contour is not closed"


def _place_faults(
    contour: Dataset, points: Array, stack: _Stack
) -> Iterator[tuple[str, str]]:
    """Whether a contour lies flat, on an image, and on the one that it names."""
    depths = stack.depth_of(points)
    if np.ptp(depths) > stack.tolerance_mm:
        yield Severity.REJECT, "a contour does not lie in a plane of the images"
        return
    depth = float(np.median(depths))
    beside = {
        uid: abs(depth - float(stack.depth_of(place)))
        for uid, place in stack.places.items()
    }
    nearest = min(beside, key=lambda uid: beside[uid])
    named = {
        place_key(
            str(one.get("ReferencedSOPInstanceUID", "")),
            one.get("ReferencedFrameNumber"),
        )
        for one in contour.get("ContourImageSequence") or []
    } & beside.keys()
    ends = [float(stack.depth_of(place)) for place in stack.places.values()]
    # Turned over, or moved: what was drawn on one image lies on another.
    if named and min(beside[uid] for uid in named) > stack.tolerance_mm:
        yield Severity.REJECT, "a contour lies on another image than it names"
    elif not min(ends) - stack.tolerance_mm <= depth <= max(ends) + stack.tolerance_mm:
        yield Severity.REJECT, "a contour lies above or below the images"
    elif beside[nearest] > stack.tolerance_mm:
        yield Severity.WARNING, "a contour lies between two images"
    if not stack.is_within(points, stack.places[nearest]):
        yield Severity.REJECT, "a contour lies beside the images"


def _identifiers(dataset: Dataset, mapping: Mapping) -> Iterator[Finding]:
    """Check 9: nothing of the patient comes from where nothing was sent."""
    texts = [
        str(one.value).casefold()
        for one in dataset.iterall()
        if one.VR not in {"SQ", "OB", "OW", "DS", "IS"} and one.value not in (None, "")
    ]
    originals = set(mapping.uids.values()) - set(mapping.uids)
    known = [
        value
        for patient in mapping.patients.values()
        for keyword, value in patient.attributes.items()
        if keyword in {"PatientID", "PatientName", "PatientBirthDate"}
    ]
    pieces = {piece for value in known for piece in _searchable(value)} | originals
    hits = sum(piece in text for piece in pieces for text in texts)
    if hits:
        yield Finding(
            9,
            Severity.ALARM,
            f"the result holds identifiers of the patient in {hits} places, "
            "though none were sent",
        )


def _searchable(value: str) -> Iterator[str]:
    """A value, and of a name each part; what is short would be found by chance."""
    text = str(value).strip().casefold()
    if len(text) >= 5:
        yield text
    for part in text.replace("=", "^").split("^"):
        if len(part.strip()) >= 4:
            yield part.strip()


def _uids(dataset: Dataset) -> Iterator[str]:
    for one in dataset.iterall():
        if one.VR == "UI" and one.value not in (None, ""):
            yield from (
                (str(value) for value in one.value) if one.VM > 1 else [str(one.value)]
            )


def _roi_names(dataset: Dataset) -> Iterable[str]:
    return [
        str(one.get("ROIName", ""))
        for one in dataset.get("StructureSetROISequence") or []
    ]


def stops(findings: Iterable[Finding]) -> bool:
    """Whether any finding keeps a file from being delivered."""
    return any(one.severity is not Severity.WARNING for one in findings)


def counted(findings: Iterable[Finding]) -> MappingType[str, int]:
    """How many findings there are of each severity, for the log."""
    counts: dict[str, int] = {}
    for one in findings:
        counts[one.severity.value] = counts.get(one.severity.value, 0) + 1
    return counts
