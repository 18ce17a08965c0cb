"""What goes when: staging at once, jobs and what they kept after their retention.

Done by every worker's janitor now and then, and at its start: what a crash left behind
goes then.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import delete, or_, select

from services.dicom_client.models import File, Job
from services.dicom_client.opening import Service
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.staging import Quota, Staging
from services.dicom_client.states import ENDED

_MANY = 200


def sweep(service: Service, settings: ServiceSettings) -> list[tuple[str, int]]:
    """Remove what is beyond its time; returns the jobs that are gone, with runs."""
    now = time.time()
    _wipe_ended(service)
    _forget_received(service, now - settings.received_days * 86_400)
    forgotten = _forget_jobs(service, now - settings.retention_days * 86_400)
    _remove_orphans(service)
    Staging(service.folders.incoming, Quota()).sweep()
    return forgotten


def _wipe_ended(service: Service) -> None:
    """Staging of what was called off, or of what a crash kept from being wiped."""
    with service.database.reading() as session:
        found = session.execute(
            select(Job.job_id)
            .where(
                Job.state.in_(("done", "ignored", "cancelled")),
                Job.wiped.is_(None),
                or_(Job.lease_owner.is_(None), Job.lease_until < time.time()),
            )
            .limit(_MANY)
        )
        ids = [row.job_id for row in found]
    for job_id in ids:
        service.folders.of(job_id).wipe()
        with service.database.writing() as session:
            job = session.get(Job, job_id)
            if job is not None and job.state in ENDED:
                job.wiped = time.time()


def _forget_received(service: Service, before: float) -> None:
    """Images that were received, once no job on them is open or young."""
    incoming = service.folders.incoming
    with service.database.reading() as session:
        open_series = select(Job.series_key).where(
            or_(Job.state.not_in(ENDED), Job.updated > before)
        )
        rows = list(
            session.scalars(
                select(File)
                .where(
                    File.source != "folder",
                    File.seen < before,
                    File.series_key.not_in(open_series),
                )
                .limit(_MANY)
            )
        )
    for row in rows:
        path = Path(service.sealer.open(row.path_sealed))
        # Only what is ours: a file of somebody else's folder is never removed.
        if path.is_relative_to(incoming):
            path.unlink(missing_ok=True)
        with service.database.writing() as session:
            session.execute(delete(File).where(File.path_key == row.path_key))


def _forget_jobs(service: Service, before: float) -> list[tuple[str, int]]:
    """Ended jobs, with their mapping and structure set."""
    with service.database.reading() as session:
        found = session.execute(
            select(Job.job_id, Job.run)
            .where(Job.state.in_(ENDED), Job.updated < before)
            .limit(_MANY)
        )
        forgotten = [(row.job_id, row.run) for row in found]
    for job_id, _run in forgotten:
        service.folders.of(job_id).remove()
    if forgotten:
        with service.database.writing() as session:
            session.execute(
                delete(Job).where(Job.job_id.in_([one for one, _ in forgotten]))
            )
    return forgotten


def _remove_orphans(service: Service) -> None:
    """Folders of jobs that the database does not know."""
    ids = service.folders.ids()
    for start in range(0, len(ids), _MANY):
        part = ids[start : start + _MANY]
        with service.database.reading() as session:
            known = set(session.scalars(select(Job.job_id).where(Job.job_id.in_(part))))
        for job_id in set(part) - known:
            service.folders.of(job_id).remove()
