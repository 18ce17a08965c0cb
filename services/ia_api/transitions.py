"""Changes of a job: only those that `states.FOLLOWS` lists, each with its event.

A change is made by a condition in the statement itself, so that of two processes that
want to change a job one does and the other hears `Lost`.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.ia_api.errors import IaApiError, NoSuchJob
from services.ia_api.models import Event, Job
from services.ia_api.states import ENDED, FOLLOWS, State


class Lost(IaApiError):
    """The job is no longer ours to change: ended by a person, or taken over."""


def change(
    session: Session,
    job: Job,
    state: State,
    *,
    detail: str = "",
    worker: str | None = None,
    **kept: Any,  # Any: values of further columns
) -> None:
    """Bring a job into a state that may follow, and note it; raises Lost."""
    if state not in FOLLOWS[job.state]:  # type: ignore[index]
        raise Lost(f"a job that is {job.state} does not become {state}")
    now = time.time()
    kept |= {"state": state, "updated": now}
    if state in ENDED:
        kept |= {"active_key": None, "ended": now, "not_before": 0.0}
    put(session, job, from_state=job.state, **kept)
    note(session, job.job_id, state, detail, worker)


def put(
    session: Session,
    job: Job,
    *,
    from_state: str | None = None,
    **kept: Any,  # Any: values of columns
) -> None:
    """Change columns of a row, only while it is in the state that was read."""
    kept.setdefault("updated", time.time())
    statement = update(Job).where(
        Job.job_id == job.job_id, Job.state == (from_state or job.state)
    )
    done = session.execute(
        statement.values(**kept), execution_options={"synchronize_session": False}
    )
    if not done.rowcount:  # type: ignore[attr-defined]
        raise Lost("the job changed meanwhile")
    session.refresh(job)


def note(
    session: Session,
    job_id: str,
    kind: str,
    detail: str = "",
    worker: str | None = None,
) -> None:
    session.add(Event(job_id=job_id, kind=kind, detail=detail[:256], worker=worker))


def get(session: Session, job_id: str, *, lock: bool = True) -> Job:
    """A job, held against others until the transaction ends; raises NoSuchJob.

    SQLite has no locks of rows: a writing transaction holds the whole file there.
    """
    job = session.get(Job, job_id, with_for_update=lock or None)
    if job is None:
        raise NoSuchJob("there is no such job")
    return job
