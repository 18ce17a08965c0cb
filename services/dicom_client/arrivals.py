"""Instances that arrived, by whatever way, and when a series of them is complete.

A series is what its instances say it is: files are sorted by the UIDs in them, never by
folder or time, and a series is recognised again by a digest over its UIDs. So two
series may lie in one folder, one series in two, and writing beside the images changes
nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset

from services.dicom_client.headers import Header, read_header


@dataclass(frozen=True)
class Arrival:
    """One instance on our disk, whole and closed."""

    path: Path
    size: int
    """In bytes."""
    mtime_ns: int
    header: Header


def arrival_of(path: Path) -> Arrival:
    """Look at a file; raises as `headers.read_header` does."""
    stat = path.stat()
    return Arrival(path, stat.st_size, stat.st_mtime_ns, read_header(path))


def by_series(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    """Sort by Series Instance UID; of an instance that came twice the first stays."""
    sorted_: dict[str, dict[str, Arrival]] = {}
    for one in arrivals:
        series = sorted_.setdefault(one.header.series, {})
        series.setdefault(one.header.sop_instance, one)
    return {uid: list(found.values()) for uid, found in sorted_.items()}


def series_key(series: str) -> str:
    """A digest of a Series Instance UID: the same for the same series, and no UID."""
    return hashlib.sha256(b"series\0" + series.encode()).hexdigest()


def instance_key(sop_instance: str) -> str:
    """A digest of a SOP Instance UID."""
    return hashlib.sha256(b"instance\0" + sop_instance.encode()).hexdigest()


_PERSON = ("PatientID", "PatientName", "PatientBirthDate")


def content_hash(series: str, sop_instances: Iterable[str], person: str = "") -> str:
    """What a series is recognised by: its UID and those of its instances, unordered.

    And by whom it is of (`person_of`): UIDs that were copied, by a phantom's protocol
    or a broken console, must not make two people one.
    """
    digest = hashlib.sha256(b"content\0" + series.encode())
    for uid in sorted(set(sop_instances)):
        digest.update(b"\0" + uid.encode())
    if person:
        digest.update(b"\0\0" + person.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def person_in(header: Dataset) -> str:
    """Whom an image is of; see `person_of`."""
    return person_of({name: header.get(name) for name in _PERSON})


def person_of(told: Mapping[str, object]) -> str:
    """Whom images are of, to tell people apart by: the id, else name and birth date.

    `told` has the values by DICOM keyword. Empty where nothing tells.
    """
    number = str(told.get("PatientID") or "").strip()
    if number:
        return number
    name = "".join(filter(str.isalnum, str(told.get("PatientName") or "").casefold()))
    birth = str(told.get("PatientBirthDate") or "").strip()
    return f"{name}\0{birth}" if name or birth else ""


@dataclass(frozen=True)
class CompletenessSettings:
    """When a series is taken for whole."""

    quiet_s: float = 60.0
    """Nothing new for so long: larger values wait longer for slow senders, smaller ones
    begin sooner and may begin before a pause of the scanner ends."""
    short_s: float = 600.0
    """The same while fewer instances are there than the sender said there would be."""


class Complete(StrEnum):
    """Whether a series is whole, and how that is known."""

    WAITING = "waiting"
    COUNTED = "counted"
    """The association was released and every announced instance is there."""
    QUIET = "quiet"
    """Nothing came for `quiet_s`; how many there should be was not said."""
    SHORT = "short"
    """Nothing came for `short_s`, and fewer are there than announced: for a person."""


@dataclass(frozen=True)
class SeriesSoFar:
    """What is known of a series while it arrives; times in seconds since 1970."""

    instances: int
    """How many different ones are there."""
    arrived: float
    """When the last new one came."""
    expected: int | None = None
    """How many the sender, or the archive, said there are."""
    released: float | None = None
    """When the association that brought the last one was released in order; a folder
    has none, a completed DICOMweb retrieval counts as one."""


def completeness(
    series: SeriesSoFar, now: float, settings: CompletenessSettings
) -> Complete:
    """Decide from what is known at `now`."""
    if not series.instances:
        return Complete.WAITING
    announced = series.expected is not None and series.expected > 0
    enough = series.expected is not None and series.instances >= series.expected
    released = series.released is not None and series.released >= series.arrived
    if announced and enough and released:
        return Complete.COUNTED
    # A clock that was set back must not end the waiting at once, nor for ever.
    quiet_s = abs(now - series.arrived)
    if announced and not enough:
        wait_s = max(settings.short_s, settings.quiet_s)
        return Complete.SHORT if quiet_s >= wait_s else Complete.WAITING
    return Complete.QUIET if quiet_s >= settings.quiet_s else Complete.WAITING


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
