"""Teaching cases: a de-identified series comes in whole, with its structures or not.

A case is a flat zip of DICOM files: the images of one CT, MR or PET series and at most
one RT Structure Set. Nothing of it is believed: every member is bounded and read, and
one file that does not say that it was de-identified refuses the case. The images become
one scan of the collection. The structures lie outside of its folder: teachers and the
course's grader get them, students only where the teacher shared them, because they are
the answer to a contouring assignment.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from sqlalchemy import select
from sqlalchemy.orm import Session
from theatrum.catalog.tables import Image, Project

from hub.signin import Person
from services.catalog import store
from services.catalog.errors import BadCaseError, NoSuchImageError
from tile_server.errors import TileServerError
from tile_server.probing import Prober

CASE_BYTES = 2 << 30
"""Of the zip: a whole-body CT has half of it."""
UNPACKED_BYTES = 4 << 30
MOST_FILES = 4096
STRUCTURES = "structures.dcm"
"""What everybody who may see the images gets."""
REFERENCE = "reference.dcm"
"""What only teachers and the course's grader get."""

_MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}\.dcm")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_MODALITIES = frozenset({"CT", "MR", "PT"})
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality"),
    *("FrameOfReferenceUID", "PatientIdentityRemoved"),
    "ReferencedFrameOfReferenceSequence",
]


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to add."""

    collection: str
    name: str
    shared: bool
    """Whether students get the structures too."""


def collection_for(session: Session, person: Person, name: str) -> Project:
    """The collection, where the asker teaches a course that it is open to.

    Raises NoSuchImageError otherwise; nothing tells a collection that is not there
    from one that is others'.
    """
    collection = session.scalar(select(Project).where(Project.name == name))
    if collection is None or not _teaches(person, collection):
        raise NoSuchImageError(
            f"there is no collection {name} that you may add to: an administrator "
            "grants it to the group formgrade-COURSE of a course that you teach"
        )
    return collection


def structures_of(person: Person, image: Image) -> Path:
    """The file of an image's structures; raises NoSuchImageError.

    The right to the image has been looked at before.
    """
    folder = Path(image.path).parent
    names = [STRUCTURES]
    if _teaches(person, image.project):
        names.append(REFERENCE)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise NoSuchImageError(f"there are no structures of {image.id} that you may see")


async def received(stream: AsyncIterator[bytes], target: Path) -> None:
    """Write a request's body to a file; BadCaseError where it is too large."""
    left = CASE_BYTES
    with target.open("xb") as file:
        async for part in stream:
            left -= len(part)
            if left < 0:
                raise BadCaseError(f"a case has at most {CASE_BYTES >> 20} MiB")
            file.write(part)


def add_case(
    session: Session,
    collection: Project,
    package: Path,
    wanted: Wanted,
    *,
    cases: Path,
    prober: Prober,
) -> Image:
    """Unpack, look at, and register a case; all of it or nothing.

    Raises BadCaseError, which says which file is wrong and what to do.
    """
    if not _NAME.fullmatch(wanted.name):
        raise BadCaseError(
            f"{wanted.name!r} cannot name a case: use up to 48 small letters, digits, "
            "hyphens and underscores"
        )
    folder = cases / secrets.token_hex(8)
    staging = cases / f".partial-{folder.name}"
    images = staging / wanted.name
    images.mkdir(parents=True, mode=0o700)
    try:
        _unpack(package, images)
        _sort(images, staging / (STRUCTURES if wanted.shared else REFERENCE))
        staging.rename(folder)
        try:
            return store.add_image(
                session, collection, folder / wanted.name, prober=prober
            )
        except (OSError, TileServerError) as err:
            shutil.rmtree(folder, ignore_errors=True)
            raise BadCaseError(f"the images form no scan: {err}") from err
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _teaches(person: Person, collection: Project) -> bool:
    open_to = {entry.group for entry in collection.groups}
    return any(
        group.startswith("formgrade-") and group in open_to
        for group in store.groups_of(person)
    )


def _unpack(package: Path, folder: Path) -> None:
    left = UNPACKED_BYTES
    try:
        with zipfile.ZipFile(package) as archive:
            members = archive.infolist()
            if not 0 < len(members) <= MOST_FILES:
                raise BadCaseError(f"a case has 1 to {MOST_FILES} files")
            for member in members:
                if not _MEMBER.fullmatch(member.filename):
                    raise BadCaseError(
                        "a case is a flat zip of files called 1.dcm, 2.dcm, ..."
                    )
                with archive.open(member) as packed:
                    content = packed.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise BadCaseError("the case is too large when it is unpacked")
                with (folder / member.filename).open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as err:
        raise BadCaseError("the case is no zip that can be read") from err
    except FileExistsError as err:
        raise BadCaseError("two files of the case have one name") from err


def _sort(folder: Path, structures: Path) -> None:
    """Look at every file, and put the structure set aside."""
    frames: set[str] = set()
    series: set[str] = set()
    drawn: Dataset | None = None
    for path in sorted(folder.iterdir()):
        header = _header(path)
        if header.get("PatientIdentityRemoved") != "YES":
            raise BadCaseError(
                f"{path.name} does not say that it was de-identified: run `theatrum "
                "deidentify` on the case first"
            )
        if header.get("SOPClassUID") == _RTSTRUCT:
            if drawn is not None:
                raise BadCaseError("a case has one structure set at most")
            drawn = header
            path.rename(structures)
        elif str(header.get("Modality")) in _MODALITIES:
            frames.add(str(header.get("FrameOfReferenceUID", "")))
            series.add(str(header.get("SeriesInstanceUID", "")))
        else:
            raise BadCaseError(f"{path.name} is neither an image nor a structure set")
    if len(series) != 1 or len(frames) != 1:
        raise BadCaseError("a case holds the images of one series")
    if drawn is not None and _frames(drawn) != frames:
        raise BadCaseError("the structure set was drawn on other images")


def _frames(drawn: Dataset) -> set[str]:
    return {
        str(one.get("FrameOfReferenceUID", ""))
        for one in drawn.get("ReferencedFrameOfReferenceSequence") or []
    }


def _header(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, ValueError, EOFError, OSError, KeyError) as err:
        raise BadCaseError(f"{path.name} is no DICOM file") from err
