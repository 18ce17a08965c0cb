"""What is to be seen of jobs, and what an administrator may do with them.

Read models for pages and metrics: plain values without patient data. The changes go
through the same transitions as all others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.orm import Session

from hub.durable.sealing import digest
from services.ia_api.errors import BadInvocation
from services.ia_api.models import (
    Audit,
    Event,
    Job,
    Token,
    Tombstone,
    Worker,
    new_job_id,
)
from services.ia_api.states import ACTIVE, CHECKPOINTS, ENDED, STATES, State
from services.ia_api.store import Store, stamp_of
from services.ia_api.transitions import change, get

_REFUSED_S = 3600.0
_NEVER_SHOWN = and_(Job.state == "dead", Job.result_id.is_(None), Job.started.is_(None))
UNDO_S = 60.0
"""How long a job that was cancelled on the pages keeps its token."""


@dataclass(frozen=True)
class Wanted:
    """Which jobs of the list; what is None or empty holds for all."""

    states: Sequence[State] = ()
    app: str | None = None
    since: float | None = None
    job_id: str | None = None


@dataclass(frozen=True)
class JobRow:
    """A job as a list shows it. Times are seconds since 1970, lengths in seconds."""

    job_id: str
    app: str
    action: str
    state: State
    progress: int
    attempt: int
    crashes: int
    checkpoint: str
    error_code: str | None
    worker: str | None
    result_id: int | None
    created: float
    started: float | None
    ended: float | None
    waited_s: float
    ran_s: float | None
    slide_id: str
    """Opaque; shown to roles that may see it."""
    application_version: str | None


@dataclass(frozen=True)
class EventRow:
    """One line of a job's history."""

    at: float
    kind: str
    detail: str
    worker: str | None


@dataclass(frozen=True)
class Figures:
    """Queue, workers and disks now."""

    jobs: dict[str, int]
    oldest_s: float
    unclosed: int
    workers: int
    disk_used: int
    disk_free: int


@dataclass(frozen=True)
class Minute:
    """Jobs that ended within one slice of time."""

    at: float
    succeeded: int
    failed: int
    median_ran_s: float | None


def where(wanted: Wanted) -> list[ColumnElement[bool]]:
    """The conditions that a choice of jobs comes to."""
    found: list[ColumnElement[bool]] = []
    if wanted.states:
        found.append(Job.state.in_(wanted.states))
    if wanted.app is not None:
        found.append(Job.app == wanted.app)
    if wanted.since is not None:
        found.append(Job.created >= wanted.since)
    if wanted.job_id is not None:
        found.append(Job.job_id == wanted.job_id)
    return found


def find(
    store: Store, wanted: Wanted = Wanted(), *, limit: int = 100, offset: int = 0
) -> list[JobRow]:
    """Jobs, newest first."""
    with store.database.reading() as session:
        found = session.scalars(
            select(Job)
            .where(*where(wanted))
            .order_by(Job.created.desc(), Job.job_id)
            .limit(limit)
            .offset(offset)
        )
        return [row_of(job) for job in found]


def count(store: Store, wanted: Wanted = Wanted()) -> int:
    """How many jobs there are."""
    with store.database.reading() as session:
        query = select(func.count()).select_from(Job).where(*where(wanted))
        return session.scalar(query) or 0


def one(store: Store, job_id: str) -> JobRow:
    """A job; raises NoSuchJob."""
    return row_of(store.get(job_id))


def events(store: Store, job_id: str) -> list[EventRow]:
    """A job's history, oldest first."""
    with store.database.reading() as session:
        found = session.scalars(
            select(Event).where(Event.job_id == job_id).order_by(Event.id)
        )
        return [EventRow(row.at, row.kind, row.detail, row.worker) for row in found]


def figures(store: Store) -> Figures:
    """Queue, workers and disks now."""
    now = time.time()
    with store.database.reading() as session:
        counted = session.execute(select(Job.state, func.count()).group_by(Job.state))
        jobs: dict[str, int] = dict.fromkeys(STATES, 0)
        jobs.update((state, number) for state, number in counted)
        oldest = session.scalar(
            select(func.min(Job.updated)).where(Job.state == "queued")
        )
        unclosed = session.scalar(
            select(func.count())
            .select_from(Job)
            .where(Job.state.in_(ENDED), Job.closed.is_(None))
        )
        alive = session.scalars(
            select(Worker).where(Worker.heartbeat > now - 2 * store.settings.lease_s)
        ).all()
    # Workers of one machine share a disk.
    disks = {row.machine: row for row in alive}.values()
    return Figures(
        jobs=jobs,
        oldest_s=max(0.0, now - oldest) if oldest else 0.0,
        unclosed=unclosed or 0,
        workers=len(alive),
        disk_used=sum(row.disk_used_bytes for row in disks),
        disk_free=sum(row.disk_free_bytes for row in disks),
    )


def throughput(store: Store, *, slice_s: float, slices: int) -> list[Minute]:
    """Ended jobs by slices of time up to now, oldest first, empty ones included."""
    last = time.time() // slice_s * slice_s
    first = last - (slices - 1) * slice_s
    with store.database.reading() as session:
        ended = session.execute(
            select(Job.ended, Job.state, Job.started).where(
                Job.ended >= first, Job.state.in_(("succeeded", "dead"))
            )
        ).all()
    found = []
    for number in range(slices):
        at = first + number * slice_s
        here = [row for row in ended if at <= (row.ended or 0) < at + slice_s]
        good = [row for row in here if row.state == "succeeded"]
        ran = sorted(row.ended - row.started for row in good if row.started)
        found.append(
            Minute(
                at,
                len(good),
                len(here) - len(good),
                ran[len(ran) // 2] if ran else None,
            )
        )
    return found


def workers(store: Store) -> list[Worker]:
    """All workers that said something in the last hour, newest first."""
    with store.database.reading() as session:
        return list(
            session.scalars(
                select(Worker)
                .where(Worker.heartbeat > time.time() - 3600)
                .order_by(Worker.started.desc())
            )
        )


def audit_log(store: Store, *, limit: int = 200, offset: int = 0) -> list[Audit]:
    """The audit log, newest first."""
    with store.database.reading() as session:
        return list(
            session.scalars(
                select(Audit).order_by(Audit.id.desc()).limit(limit).offset(offset)
            )
        )


def cancel(store: Store, job_id: str) -> None:
    """End a job; the last word on its result says "Cancelled". Raises Lost.

    For `UNDO_S` seconds it can be begun anew whether or not a token is left elsewhere.
    """
    with store.database.writing() as session:
        job = get(session, job_id)
        undo_until = time.time() + UNDO_S
        change(session, job, "cancelled", detail="by hand", undo_until=undo_until)


def supersede(store: Store, job_id: str) -> str:
    """End a job and begin it anew, or neither; returns the new one's id.

    Raises Lost, and BadInvocation where no token is left.
    """
    with store.database.writing() as session:
        job = get(session, job_id)
        change(session, job, "superseded", detail="by hand")
        return _begin_anew(session, store, job)


def retry(store: Store, job_id: str) -> str:
    """Try a job now that waits; or begin one anew that ended. Returns the job's id.

    Raises BadInvocation where it succeeded, is at work, or has no token left, or where
    the same work is being done already.
    """
    with store.database.writing() as session:
        job = get(session, job_id)
        if job.state in {"retry_wait", "waiting_auth"}:
            change(session, job, "queued", detail="by hand", run=job.run + 1)
            return job.job_id
        if job.state in ACTIVE or job.state in {"succeeded", "deleted_by_user"}:
            raise BadInvocation(f"a job that is {job.state} is not tried again")
        return _begin_anew(session, store, job)


def _begin_anew(session: Session, store: Store, job: Job) -> str:
    """A new job for the same work, which writes to the same result."""
    token = session.scalar(
        select(Token.id).where(
            Token.callback_url == job.callback_url,
            Token.application_id == job.application_id,
        )
    )
    if token is None and store.settings.credentials is None:
        raise BadInvocation(
            "no token is left for this job: ask for the analysis in the viewer"
        )
    stamp = stamp_of(job.input_json or {}, job.context_json or {})
    key = digest(job.callback_url, job.application_id, job.slide_id, stamp)
    same = session.scalar(select(Job.job_id).where(Job.active_key == key))
    if same is not None:
        raise BadInvocation(f"the same analysis is under way already, as job {same}")
    now = time.time()
    fresh_id = new_job_id()
    fresh = Job(
        job_id=fresh_id,
        idem_key=digest(job.idem_key, fresh_id),
        active_key=key,
        app=job.app,
        application_id=job.application_id,
        slide_id=job.slide_id,
        callback_url=job.callback_url,
        token_ref=token,
        action=job.action,
        input_json=job.input_json,
        context_json=job.context_json,
        cancellation_token=job.cancellation_token,
        state="received",
        priority=job.priority,
        deadline=now + store.settings.job_deadline_s,
        result_id=job.result_id,
        result_version=job.result_version,
        api_version=job.api_version,
        slide_size=job.slide_size,
        application_version=job.application_version,
        created=now,
        updated=now,
    )
    session.add(fresh)
    session.flush()
    change(session, fresh, "queued", detail=f"instead of {job.job_id}")
    return fresh.job_id


def forget(store: Store, before: float) -> Iterator[list[tuple[str, int]]]:
    """Remove ended jobs with their events, tombstones and lost workers of long ago.

    Requests that never got as far as the slide go within the hour: whoever reaches the
    webhook can make any number of them, and the audit log has them.

    Gives the (id, runs) of the jobs, some at a time: their workflows go as well.
    """
    while True:
        with store.database.writing() as session:
            old = session.execute(
                select(Job.job_id, Job.run)
                .where(
                    or_(
                        Job.closed < before,
                        and_(_NEVER_SHOWN, Job.closed < time.time() - _REFUSED_S),
                    )
                )
                .limit(100)
            ).all()
            ids = [row.job_id for row in old]
            session.execute(delete(Job).where(Job.job_id.in_(ids)))
            session.execute(delete(Tombstone).where(Tombstone.at < before))
            session.execute(delete(Worker).where(Worker.heartbeat < before))
        if not old:
            return
        yield [(row.job_id, row.run) for row in old]


def row_of(job: Job) -> JobRow:
    """A job as a list shows it."""
    now = time.time()
    ran_s = None
    if job.started is not None:
        ran_s = (job.ended or now) - job.started
    return JobRow(
        job_id=job.job_id,
        app=job.app,
        action=job.action,
        state=job.state,  # type: ignore[arg-type]
        progress=job.progress,
        attempt=job.attempt,
        crashes=job.crashes,
        checkpoint=CHECKPOINTS[job.checkpoint - 1] if job.checkpoint else "",
        error_code=job.error_code,
        worker=job.lease_owner,
        result_id=job.result_id,
        created=job.created,
        started=job.started,
        ended=job.ended,
        waited_s=(job.started or job.ended or now) - job.created,
        ran_s=ran_s,
        slide_id=job.slide_id,
        application_version=job.application_version,
    )
