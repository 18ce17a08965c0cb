"""What the pages read beyond the API: filters, and the files of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import RTStructureSetStorage
from sqlalchemy import func, select

from services.dicom_client.errors import NoSuchThing
from services.dicom_client.models import Job, Worker
from services.dicom_client.opening import Service
from services.dicom_client.states import FOR_A_PERSON, RETRIABLE, WORK


@dataclass(frozen=True)
class Facets:
    """What series can be told apart by, as far as there is any."""

    modalities: tuple[str, ...]
    templates: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Counts:
    """The figures above the list."""

    waiting: int
    """For a person."""
    working: int
    arriving: int
    done: int
    workers: int
    """With a heartbeat within the last minute."""


@dataclass(frozen=True)
class Pick:
    """A series as somebody who may not see patients can choose it."""

    job_id: str
    modality: str
    instances: int
    created: float
    state: str


def facets(service: Service) -> Facets:
    with service.database.reading() as session:
        found = [
            tuple(str(one) for one in session.scalars(select(column).distinct()) if one)
            for column in (Job.modality, Job.template_name, Job.source)
        ]
    modalities, templates, sources = (tuple(sorted(one)) for one in found)
    return Facets(modalities, templates, sources)


def counts(service: Service, now: float) -> Counts:
    with service.database.reading() as session:
        grouped = session.execute(
            select(Job.state, func.count()).group_by(Job.state)
        ).all()
        stopped = session.scalar(
            select(func.count())
            .select_from(Job)
            .where(Job.stopped.is_not(None), Job.state.in_(WORK))
        )
        workers = session.scalar(
            select(func.count()).select_from(Worker).where(Worker.heartbeat > now - 60)
        )
    by_state = {str(state): int(count) for state, count in grouped}

    def total(states: Sequence[str]) -> int:
        return sum(by_state.get(one, 0) for one in states)

    people = (*FOR_A_PERSON, "rejected", *(RETRIABLE - {"cancelled"}))
    resting = stopped or 0
    return Counts(
        waiting=total(people) + resting,
        working=total(WORK) - resting,
        arriving=total(("discovered", "stable")),
        done=total(("done",)),
        workers=workers or 0,
    )


def picks(service: Service, limit: int = 100) -> list[Pick]:
    """The newest series whose images can be read, without anything of a patient."""
    with service.database.reading() as session:
        rows = session.scalars(
            select(Job)
            .where(Job.files_sealed.is_not(None))
            .order_by(Job.created.desc())
            .limit(limit)
        )
        return [
            Pick(row.job_id, row.modality, row.instances, row.created, row.state)
            for row in rows
        ]


def images(service: Service, job: Job) -> list[Path]:
    """The images of a series; NoSuchThing where they are gone."""
    found = service.jobs.files_of(job)
    if not found or not all(path.is_file() for path in (found[0], found[-1])):
        raise NoSuchThing("the images of this series are not there any more")
    return found


def structure_set(service: Service, job_id: str) -> Path | None:
    """The finished structure set of a series, where it still lies here."""
    for path in sorted(service.folders.of(job_id).finished.glob("*.dcm")):
        try:
            told = pydicom.dcmread(path, specific_tags=["SOPClassUID"])
        except (OSError, InvalidDicomError):
            continue
        if told.get("SOPClassUID") == RTStructureSetStorage:
            return path
    return None


def structures(path: Path | None) -> list[str]:
    """The names of the structures, in their order."""
    if path is None:
        return []
    told = pydicom.dcmread(path, specific_tags=["StructureSetROISequence"])
    return [
        str(one.get("ROIName", "")) for one in told.get("StructureSetROISequence") or []
    ]
