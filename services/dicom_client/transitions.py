"""Changes of a job: only those that `states.FOLLOWS` lists, each with its event.

A change is made by a condition in the statement itself, so that of two processes that
want to change a job one does and the other hears `Lost`.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.dicom_client.errors import DicomClientError, NoSuchThing, WrongState
from services.dicom_client.models import Event, Job
from services.dicom_client.states import ENDED, FOLLOWS, State


class Lost(DicomClientError):
    """The job is no longer ours to change: another process did, or took it over."""

    code = "taken-over"


def change(
    session: Session,
    job: Job,
    state: State,
    *,
    detail: str = "",
    actor: str | None = None,
    **kept: Any,  # Any: values of further columns
) -> None:
    """Bring a job into a state that may follow, and note it.

    Raises
    ------
    WrongState
        Where the state may not follow.
    Lost
        Where another process changed the job meanwhile.
    """
    if state not in FOLLOWS[job.state]:  # type: ignore[index]
        raise WrongState(f"a job that is {job.state} does not become {state}")
    now = time.time()
    fresh = {"attempt": 0, "crashes": 0, "stopped": None, "next_run_at": 0.0}
    kept = {**fresh, "last_error_code": None, "progress": 0, **kept, "state": state}
    kept["ended"] = now if state in ENDED else None
    put(session, job, **kept)
    note(session, job.job_id, state, detail, actor)


def put(session: Session, job: Job, **kept: Any) -> None:  # Any: values of columns
    """Change columns of a row, only while it is in the state that was read."""
    kept.setdefault("updated", time.time())
    statement = update(Job).where(
        Job.job_id == job.job_id,
        Job.state == job.state,
        Job.run == job.run,
        Job.lease_owner.is_(None)
        if job.lease_owner is None
        else Job.lease_owner == job.lease_owner,
    )
    done = session.execute(
        statement.values(**kept), execution_options={"synchronize_session": False}
    )
    if not done.rowcount:  # type: ignore[attr-defined]
        raise Lost("the job changed meanwhile: look at it again")
    session.refresh(job)


def note(
    session: Session,
    job_id: str,
    kind: str,
    detail: str = "",
    actor: str | None = None,
) -> None:
    """Add a line to the job's time line; `detail` holds nothing of a patient."""
    session.add(
        Event(
            job_id=job_id,
            kind=kind,
            detail=detail[:256],
            actor=actor[:64] if actor else None,
        )
    )


def get(session: Session, job_id: str) -> Job:
    """A job's row; raises NoSuchThing."""
    job = session.get(Job, job_id)
    if job is None:
        raise NoSuchThing("there is no such series")
    return job
