"""A result becomes the patient's: checked, re-identified, named, completed, checked.

Until here a structure set is somebody's answer over images of nobody. `finish` checks
it (result_checks), gives it back its patient, names and colours its structures as the
template says, makes those that are made from others, and says that software drew it
and nobody approved it. Then it is checked again, and staged under a name that tells
nothing. What fails a check goes to quarantine, and into nobody's record.

Everything follows from the arguments, so a step that is done again makes the same
files.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset
from theatrum.deidentify import Mapping, ReidentificationError, reidentify
from theatrum.structures import (
    BadGeometry,
    SeriesGeometry,
    StructureError,
    frame_number,
    frames,
    in_order,
    problems,
    read,
    series_geometry,
)

from services.dicom_client import roi_properties
from services.dicom_client.generation import add_generated, drawn_rois
from services.dicom_client.local_engine import Output, output_of
from services.dicom_client.result_checks import (
    Array,
    Finding,
    Severity,
    after_reidentification,
    before_reidentification,
    iod_findings,
    opened,
    place_key,
    stops,
)
from services.dicom_client.segmentation import segmentation
from services.dicom_client.templates import Template, short_label

log = logging.getLogger("theatrum.dicom_client")

_ODD_VALUES = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
    StructureError,
)
QUARANTINE = "quarantine"
MADE_BY_SOFTWARE = "AI generated"


@dataclass(frozen=True)
class Finished:
    """What became of a result."""

    path: Path | None
    """What is delivered first; None where the result is kept in quarantine."""
    findings: tuple[Finding, ...]
    files: tuple[Path, ...] = ()
    """All that is delivered: contours, a segmentation, or both."""
    quarantine: Path | None = None

    @property
    def rejected(self) -> bool:
        """Whether it must not be delivered."""
        return self.path is None

    @property
    def alarm(self) -> bool:
        """Whether somebody has to know at once: the server knows who the patient is."""
        return any(one.severity is Severity.ALARM for one in self.findings)


def finish(
    result: Path,
    mapping: Mapping,
    headers: Sequence[Dataset],
    template: Template,
    *,
    folder: Path,
    made_at: datetime,
    verified: bool = True,
) -> Finished:
    """Finish a structure set that came back.

    Parameters
    ----------
    result
        The file as it came; it goes to `folder/quarantine` where it is rejected.
    headers
        Of all *original* images of the series; pixels are not needed.
    made_at
        The date and time that the structure set gets.
    verified
        Whether the server named the file's checksum, and it was right.
    """
    quarantined = folder / QUARANTINE / result.name
    source = result if result.exists() else quarantined
    dataset = opened(source)
    if isinstance(dataset, Finding):
        return _rejected(source, quarantined, [dataset])
    try:
        return _finish(
            source,
            quarantined,
            dataset,
            mapping,
            headers,
            template,
            folder=folder,
            made_at=made_at,
            verified=verified,
        )
    except _ODD_VALUES as err:
        # Strangers' values can be of any kind at any place; no try would help.
        log.warning("a result cannot be read", extra={"code": type(err).__name__})
        text = f"the result holds values that cannot be read ({type(err).__name__})"
        return _rejected(source, quarantined, [Finding(1, Severity.REJECT, text)])


def _finish(
    source: Path,
    quarantined: Path,
    dataset: Dataset,
    mapping: Mapping,
    headers: Sequence[Dataset],
    template: Template,
    *,
    folder: Path,
    made_at: datetime,
    verified: bool,
) -> Finished:
    whole = True
    try:
        geometry = series_geometry(headers)
    except BadGeometry as err:
        whole = False
        bridged = _over_gaps(headers)
        if bridged is None:
            finding = Finding(8, Severity.REJECT, f"the images form no volume: {err}")
            return _rejected(source, quarantined, [finding])
        geometry = bridged
    findings = before_reidentification(
        dataset,
        mapping,
        _as_sent(geometry, mapping),
        series_instance_uid=_pseudonym(mapping, str(headers[0].SeriesInstanceUID)),
        wanted=template.wanted or _names(dataset),
        verified=verified,
        places=_places(headers, mapping),
    )
    if stops(findings):
        return _rejected(source, quarantined, findings)
    # What a server's software keeps for itself is none of the patient's record.
    dataset.remove_private_tags()
    try:
        done = reidentify(dataset, mapping)
    except ReidentificationError as err:
        findings.append(Finding(10, Severity.REJECT, str(err)))
        return _rejected(source, quarantined, findings)
    ordered = in_order(headers)
    findings += roi_properties.apply(done, template)
    findings += add_generated(done, template, ordered, geometry, whole=whole)
    _sign(done, template, ordered[0], made_at)
    output = output_of(template)
    if output != "rtstruct" and not whole:
        # A segmentation has a frame for each image, and some are missing.
        findings.append(
            Finding(7, Severity.WARNING, "images are missing: contours only")
        )
        output = "rtstruct"
    if output != "rtstruct" and geometry.frame_numbers:
        findings.append(
            Finding(7, Severity.WARNING, "the images are multi-frame: contours only")
        )
        output = "rtstruct"
    files = _staged(done, output, ordered, geometry, folder, made_at, findings)
    findings += after_reidentification(done, mapping, ordered[0])
    for file in files:
        findings += iod_findings(file)
    if stops(findings) or not files:
        for file in files:
            file.unlink()
        return _rejected(source, quarantined, findings)
    for stale in [*folder.glob("RS_*.dcm"), *folder.glob("SEG_*.dcm")]:
        # Of a result that came before this one and was never delivered.
        stale.unlink()
    published = tuple(_publish(file) for file in files)
    return Finished(published[0], tuple(findings), published)


def _over_gaps(headers: Sequence[Dataset]) -> SeriesGeometry | None:
    """The even grid that the images of a series with gaps lie on; None without one.

    A person may let such a series through. Its contours can be checked against the
    grid; structures cannot be made on it, because it has slices without an image.
    """
    if any(not one.startswith(("gap", "tilt")) for one in problems(headers)):
        return None
    ordered = in_order(headers)
    places = np.array(
        [[float(part) for part in one.ImagePositionPatient] for one in ordered]
    )
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    count = round(float(steps.sum() / np.median(steps))) + 1
    within = series_geometry(ordered[:1])
    affine = within.affine_lps.copy()
    affine[:3, 2] = (places[-1] - places[0]) / (count - 1)
    return replace(
        within,
        size=(*within.size[:2], count),
        affine_lps=affine,
        sop_instance_uids=tuple(str(one.SOPInstanceUID) for one in ordered),
        frame_numbers=tuple(
            number for one in ordered if (number := frame_number(one)) is not None
        ),
    )


def _as_sent(geometry: SeriesGeometry, mapping: Mapping) -> SeriesGeometry:
    """The geometry of the images that were sent: the same, under their pseudonyms."""
    given_out = {original: uid for uid, original in mapping.uids.items()}
    return replace(
        geometry,
        sop_instance_uids=tuple(
            given_out.get(uid, uid) for uid in geometry.sop_instance_uids
        ),
        frame_of_reference_uid=given_out.get(
            geometry.frame_of_reference_uid, geometry.frame_of_reference_uid
        ),
    )


def _places(headers: Sequence[Dataset], mapping: Mapping) -> dict[str, Array]:
    """Where each image lies, by the pseudonym of its SOP Instance UID (`place_key`)."""
    given_out = {original: uid for uid, original in mapping.uids.items()}
    return {
        place_key(given_out.get(uid, uid), frame_number(one)): np.array(
            [float(part) for part in one.ImagePositionPatient]
        )
        for one in frames(headers)
        if (uid := str(one.SOPInstanceUID))
    }


def _pseudonym(mapping: Mapping, original: str) -> str:
    for uid, known in mapping.uids.items():
        if known == original:
            return uid
    return original


def _names(dataset: Dataset) -> list[str]:
    """The names in a result: what an engine gives that was not asked for names."""
    return [
        str(one.get("ROIName", ""))
        for one in dataset.get("StructureSetROISequence") or []
    ]


def _sign(
    done: Dataset, template: Template, header: Dataset, made_at: datetime
) -> None:
    """Say what it is: drawn by software, approved by nobody (check 13)."""
    done.StructureSetLabel = roi_properties.encodable(short_label(template.name), done)
    done.SeriesDescription = roi_properties.encodable(
        f"{MADE_BY_SOFTWARE}: {template.name}", done
    )[:64]
    done.OperatorsName = MADE_BY_SOFTWARE
    done.ApprovalStatus = "UNAPPROVED"
    for keyword in ("ReviewDate", "ReviewTime", "ReviewerName", "InstitutionName"):
        # The institution of a server's software is not that of the patient.
        if keyword in done:
            delattr(done, keyword)
    if header.get("InstitutionName"):
        done.InstitutionName = header.InstitutionName
    done.StructureSetDate = made_at.strftime("%Y%m%d")
    done.StructureSetTime = made_at.strftime("%H%M%S")
    for day, time in (
        ("SeriesDate", "SeriesTime"),
        ("InstanceCreationDate", "InstanceCreationTime"),
    ):
        setattr(done, day, done.StructureSetDate)
        setattr(done, time, done.StructureSetTime)
    # Type 2 in the IOD, and left out by what many servers build with.
    for keyword in ("SeriesNumber", "PositionReferenceIndicator", "StudyID"):
        if keyword not in done:
            setattr(done, keyword, header.get(keyword))


def _staged(
    done: Dataset,
    output: Output,
    headers: Sequence[Dataset],
    geometry: SeriesGeometry,
    folder: Path,
    made_at: datetime,
    findings: list[Finding],
) -> list[Path]:
    """Write what is delivered, not yet under its name."""
    files = []
    if output != "seg":
        files.append(_write(done, folder / f".RS_{done.SOPInstanceUID}.dcm.partial"))
    if output != "rtstruct":
        uids = {
            keyword: _derived(str(done.SOPInstanceUID), keyword)
            for keyword in ("SOPInstanceUID", "SeriesInstanceUID")
        }
        try:
            made = segmentation(
                drawn_rois(read(done), geometry),
                headers,
                geometry,
                label=str(done.StructureSetLabel),
                series_description=str(done.SeriesDescription),
                made_at=made_at,
                uids=uids,
            )
        except StructureError as err:
            findings.append(Finding(7, Severity.WARNING, str(err)))
        else:
            name = f".SEG_{uids['SOPInstanceUID']}.dcm.partial"
            files.append(_write(made, folder / name))
    return files


def _derived(instance: str, what: str) -> str:
    hashed = hashlib.sha256(f"{instance}\0seg\0{what}".encode()).digest()
    return f"2.25.{int.from_bytes(hashed[:16], 'big')}"


def _write(made: Dataset, target: Path) -> Path:
    with target.open("wb") as file:
        made.save_as(file, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
    return target


def _publish(staged: Path) -> Path:
    target = staged.with_name(staged.name.removeprefix(".").removesuffix(".partial"))
    staged.replace(target)
    _sync(target.parent)
    return target


def _rejected(source: Path, quarantined: Path, findings: Sequence[Finding]) -> Finished:
    """Put a result where nothing delivers it from."""
    if source != quarantined:
        quarantined.parent.mkdir(mode=0o700, exist_ok=True)
        source.replace(quarantined)
        _sync(quarantined.parent)
        _sync(source.parent)
    return Finished(None, tuple(findings), quarantine=quarantined)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
