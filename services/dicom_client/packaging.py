"""From a series to a package for the server: all of its images or none, and no name.

Two steps, each of which may be cut off at any moment and done again. `deidentify` turns
the series into a folder of images that tell of nobody, beside a sealed mapping that is
written once for each job. `package` puts these images and the template into a flat zip
(`1.dcm`, `2.dcm`, ..., `autosegmentation_template.yml`); the same images and template
give the same bytes, and so the same SHA-256, each time. What appears under its name is
whole and on disk.

The canary looks twice: the engine at every byte that it writes, for every identifier
of the series; and `package` at the finished zip as it was read back, with the names of
its members and the template's text, for whom the mapping knows.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import UID
from theatrum.deidentify import (
    Deidentifier,
    DeidentifyError,
    Mapping,
    Profile,
    Report,
    load_mapping,
    save_mapping,
)
from theatrum.deidentify.canary import Canary, Where
from theatrum.deidentify.identifiers import MIN_WORD, Identifiers
from theatrum.deidentify.words import WORD, says_nothing

from services.dicom_client.errors import NotPackable
from services.dicom_client.templates import Template, to_yaml

IMAGES = "deidentified"
MAPPING = "mapping"
PACKAGE = "package.zip"
TEMPLATE = "autosegmentation_template.yml"
REPORT = "report.json"

ONE_OF_EACH = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
)
"""The server takes one series at a time, of one person, in one coordinate system."""
LEVEL = 3
"""Of zlib: CT shrinks to 36 %, as with the usual 6, which takes three times as long."""

Progress = Callable[[float], None]
Check = Callable[[], None]


@dataclass(frozen=True)
class Deidentified:
    """A series that tells of nobody, on our disk."""

    images: Path
    """The folder of its images; nothing but `*.dcm` and the report."""
    mapping: Path
    series_instance_uid: str
    """Of the images in the folder."""
    instances: int
    profile_digest: str

    def files(self) -> list[Path]:
        """The images, by name."""
        return sorted(self.images.glob("*.dcm"))


@dataclass(frozen=True)
class Packed:
    """A package that may leave."""

    zip: Path
    sha256: str
    """Of the zip, 64 lower-case hexadecimal digits."""
    mapping: Path
    deid_series_uid: str
    instances: int
    images: Path = field(repr=False)
    """What the zip was made of."""


def pack(
    files: Sequence[Path],
    template: Template,
    *,
    profile: Profile,
    key: bytes,
    folder: Path,
    job: str,
    canaries: Sequence[str] = (),
    check: Check = lambda: None,
) -> Packed:
    """De-identify and package a series: both steps, as they are below."""
    made = deidentify(
        files, profile=profile, key=key, folder=folder, job=job, check=check
    )
    return package(
        made,
        template,
        key=key,
        folder=folder,
        job=job,
        canaries=canaries,
        check=check,
    )


def deidentify(
    files: Sequence[Path],
    *,
    profile: Profile,
    key: bytes,
    folder: Path,
    job: str,
    progress: Progress = lambda _share: None,
    check: Check = lambda: None,
) -> Deidentified:
    """De-identify the images of one series into `folder`, and seal their mapping.

    Parameters
    ----------
    files
        Every image of the series; their order does not matter.
    key
        Pseudonyms come from it, and the mapping is sealed with it: the same key in
        every run, on every machine.
    folder
        The job's own; what a run that was cut off left there is replaced.
    job
        The name that the mapping is bound to.
    check
        Called for every image, and stops the step by what it raises.

    Raises
    ------
    NotPackable
        Where one image stays inside, or the images are not of one series; nothing is
        left in the folder then.
    """
    images, mapping_file = folder / IMAGES, folder / MAPPING
    done = _done_before(images, mapping_file, profile, key, job)
    if done is not None:
        return done
    shutil.rmtree(images, ignore_errors=True)

    def told(phase: str, at: int, total: int) -> None:
        check()
        progress((at / total + (phase == "files")) / 2)

    try:
        made = Deidentifier(profile, key).package(
            files, images, job=job, whole_series=True, progress=told
        )
    except DeidentifyError as err:
        raise NotPackable("deidentify", str(err)) from err
    try:
        _require_whole(made.report, len(files))
        _require_one_series(images)
        _keep_mapping(made.mapping, mapping_file, key)
    except BaseException:
        shutil.rmtree(images, ignore_errors=True)
        raise
    (uid,) = made.report.series
    return Deidentified(images, mapping_file, uid, len(files), profile.digest)


def package(
    made: Deidentified,
    template: Template,
    *,
    key: bytes,
    folder: Path,
    job: str,
    canaries: Sequence[str] = (),
    progress: Progress = lambda _share: None,
    check: Check = lambda: None,
) -> Packed:
    """Put de-identified images and the template into a zip, and search it.

    `canaries` are texts that must not leave besides what the mapping knows, such as
    the hospital's name. Raises NotPackable where any is found; no zip is left then.
    """
    target = folder / PACKAGE
    mapping = load_mapping(made.mapping, job, key)
    staged = folder / f".{PACKAGE}.partial"
    try:
        with staged.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                members = _members(made, template)
                for number, (name, content) in enumerate(members, start=1):
                    check()
                    progress(number / (made.instances + 1) / 2)
                    archive.writestr(_entry(name), content, compresslevel=LEVEL)
            file.flush()
            os.fsync(file.fileno())
        _require_no_identifier(staged, mapping, canaries, progress, check)
        sha256 = _sha256(staged)
        staged.replace(target)
        _sync_folder(folder)
    finally:
        staged.unlink(missing_ok=True)
    return Packed(
        target,
        sha256,
        made.mapping,
        made.series_instance_uid,
        made.instances,
        made.images,
    )


def _done_before(
    images: Path, mapping_file: Path, profile: Profile, key: bytes, job: str
) -> Deidentified | None:
    """What an earlier run of this step finished; the mapping is its last act."""
    if not (mapping_file.is_file() and (images / REPORT).is_file()):
        return None
    mapping = load_mapping(mapping_file, job, key)
    if mapping.profile_digest != profile.digest:
        raise NotPackable(
            "profile",
            "the profile has changed since this job was de-identified: start a new job",
        )
    said = json.loads((images / REPORT).read_text("utf-8"))
    ((uid, instances),) = said["series"].items()
    if len(list(images.glob("*.dcm"))) != instances:
        return None
    return Deidentified(images, mapping_file, uid, instances, profile.digest)


def _require_whole(report: Report, wanted: int) -> None:
    """All or nothing: a series of which one image is missing is another series."""
    if report.given_out == wanted and wanted:
        return
    kept = [*report.held, *report.refused]
    first = [one for one in kept if one.reason != "series"] or kept
    reasons = Counter(one.reason for one in first)
    told = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    raise NotPackable(
        reasons.most_common(1)[0][0] if reasons else "empty",
        f"{wanted - report.given_out} of {wanted} images stay inside ({told}), and so "
        f"all do. {first[0].detail if first else 'There is no image.'}",
    )


def _require_one_series(images: Path) -> None:
    headers = [_header(path) for path in images.glob("*.dcm")]
    for keyword in ONE_OF_EACH:
        if len({str(one.get(keyword)) for one in headers}) != 1:
            raise NotPackable(
                "mixed",
                f"the images have more than one {keyword}: package one series at a "
                "time",
            )


def _keep_mapping(mapping: Mapping, file: Path, key: bytes) -> None:
    """Save the mapping; one that a cut-off run left has to say the same."""
    if not file.exists():
        save_mapping(mapping, file, key)
    elif load_mapping(file, mapping.job, key) != mapping:
        raise NotPackable(
            "mapping",
            "the job has a mapping of other images, and mappings never change: start "
            "a new job",
        )


def _members(made: Deidentified, template: Template) -> Iterable[tuple[str, bytes]]:
    """Names and contents, always in the same order."""
    files = made.files()
    order = sorted(files, key=lambda path: _place(_header(path)))
    for number, path in enumerate(order, start=1):
        yield f"{number}.dcm", path.read_bytes()
    yield TEMPLATE, to_yaml(template).encode()


def _place(header: Dataset) -> tuple[float, str]:
    """Where an image lies along its normal; its UID decides between equals."""
    uid = str(header.SOPInstanceUID)
    try:
        cosines = np.array([float(one) for one in header.ImageOrientationPatient])
        position = np.array([float(one) for one in header.ImagePositionPatient])
        return float(position @ np.cross(cosines[:3], cosines[3:])), uid
    except (AttributeError, TypeError, ValueError):
        return 0.0, uid


def _entry(name: str) -> zipfile.ZipInfo:
    """A member without a time or an owner: bytes depend on nothing but content."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    entry.external_attr = 0o600 << 16
    return entry


def _require_no_identifier(
    file: Path,
    mapping: Mapping,
    canaries: Sequence[str],
    progress: Progress,
    check: Check,
) -> None:
    canary = _canary(mapping, canaries)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        for number, name in enumerate(names, start=1):
            check()
            progress(0.5 + number / len(names) / 2)
            content = archive.read(name)
            if canary.finds_in_name(name) or _leaks(name, content, canary):
                where = "the template" if name == TEMPLATE else "an image"
                raise NotPackable(
                    "canary",
                    f"an identifier of the patient would leave in {where}: nothing "
                    "was sent. Rename what the template calls after a person, or "
                    "look at what the de-identification profile keeps.",
                )


def _leaks(name: str, content: bytes, canary: Canary) -> bool:
    if name == TEMPLATE:
        return canary.finds(content)
    opened = io.BytesIO(content)
    header = pydicom.dcmread(opened, stop_before_pixels=True)
    at = opened.tell()
    syntax = UID(str(header.file_meta.TransferSyntaxUID))
    where = Where.COMPRESSED if syntax.is_compressed else Where.NATIVE
    return canary.finds(content[:at]) or canary.finds(content[at:], where)


def _canary(mapping: Mapping, canaries: Sequence[str]) -> Canary:
    """Whatever a mapping knows of the patient, and what the settings name besides."""
    found = Identifiers(uids=set(mapping.uids.values()) - set(mapping.uids))
    moved: set[str] = set()
    for patient in mapping.patients.values():
        kept = patient.attributes
        moved |= patient.dates.keys()
        found.dates |= {*patient.dates.values(), kept.get("PatientBirthDate", "")}
        _add(found, kept.get("PatientName", ""), kept.get("PatientID", ""))
    for study in mapping.studies.values():
        _add(
            found,
            study.get("ReferringPhysicianName", ""),
            study.get("AccessionNumber", ""),
        )
    found.dates.discard("")
    for text in canaries:
        _add_whole(found, text.strip().casefold())
    return Canary(found, mapping.uids, moved)


def _add(found: Identifiers, name: str, number: str) -> None:
    """A name word for word, and an id as a whole."""
    # A word that describes anatomy or technique is found wherever they are.
    found.words |= {
        word.casefold()
        for word in WORD.findall(name)
        if len(word) >= MIN_WORD and not says_nothing(word)
    }
    _add_whole(found, number.strip().casefold())


def _add_whole(found: Identifiers, text: str) -> None:
    if len(text) >= MIN_WORD and not says_nothing(text):
        (found.words if text.isalnum() else found.phrases).add(text)


def _header(path: Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
