"""What workers do with jobs: take, keep, settle, give back, close.

A worker holds a job by a lease that its heartbeat renews. Whatever it changes, it
changes only while it holds the job: a worker that was taken for dead, and is not,
hears `Lost` and stops.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from hub.durable.database import Database
from services.ia_api.models import Job, Token, Worker
from services.ia_api.settings import ServiceSettings
from services.ia_api.states import CHECKPOINTS, ENDED, State
from services.ia_api.transitions import Lost, change, get, note, put

_LONGEST_WAIT_S = 3600.0
_BEGUN_ANEW = frozenset({"dead", "cancelled"})
"""Ended jobs that a person may have done again."""


class Leases:
    """The jobs as workers see them; safe to share between threads."""

    def __init__(self, database: Database, settings: ServiceSettings) -> None:
        self.database = database
        self.settings = settings

    def claim(self, job_id: str, run: int, worker: str) -> Job:
        """Take a queued job for `lease_s`; raises Lost where it is not to be had."""
        now = time.time()
        with self.database.writing() as session:
            job = get(session, job_id)
            if job.run != run:
                raise Lost("another run of this job has begun")
            if job.state == "running" and job.lease_owner == worker:
                return job
            change(
                session,
                job,
                "running",
                worker=worker,
                lease_owner=worker,
                lease_until=now + self.settings.lease_s,
                started=job.started or now,
            )
            return job

    def is_held(self, job_id: str, worker: str) -> bool:
        """Whether a worker still has a job, and the job is still wanted."""
        with self.database.reading() as session:
            row = session.execute(
                select(Job.state, Job.lease_owner).where(Job.job_id == job_id)
            ).one_or_none()
            return (
                row is not None
                and row.state == "running"
                and (row.lease_owner == worker)
            )

    def checkpoint(self, job_id: str, worker: str, step: str, **kept: Any) -> None:
        """A step is complete. `kept` are columns; raises Lost."""
        number = CHECKPOINTS.index(step) + 1
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            if number > job.checkpoint:
                note(session, job_id, "checkpoint", step, worker)
                kept["checkpoint"] = number
            put(session, job, **kept)

    def note_result(self, job_id: str, worker: str, result: dict[str, Any]) -> None:
        """Remember which result is the job's, and its newest version."""
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            put(
                session,
                job,
                result_id=result["id"],
                result_version=str(result["versionId"]),
            )

    def note_progress(self, job_id: str, worker: str, percent: int) -> None:
        with self.database.writing() as session:
            put(session, self._held(session, job_id, worker), progress=percent)

    def settle(
        self, job_id: str, worker: str, state: State, *, code: str = "", **kept: Any
    ) -> None:
        """End a run: succeeded, waiting_auth, dead; or deleted_by_user. Raises Lost."""
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            change(
                session,
                job,
                state,
                detail=code,
                worker=worker,
                lease_owner=None,
                error_code=code or None,
                **kept,
            )

    def retry(
        self,
        job_id: str,
        worker: str,
        code: str,
        *,
        wait_s: float | None = None,
        crashed: bool = False,
    ) -> State:
        """End a run that failed for now, or for good after enough tries."""
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            return self._retry(session, job, code, wait_s=wait_s, crashed=crashed)

    def _retry(
        self,
        session: Session,
        job: Job,
        code: str,
        *,
        wait_s: float | None = None,
        crashed: bool = False,
    ) -> State:
        now = time.time()
        crashes = job.crashes + (1 if crashed else 0)
        wait = self.backoff_s(job.attempt)
        if wait_s is not None:
            # As the server asks, but not until the job is given up for that.
            wait = min(wait_s, _LONGEST_WAIT_S)
        given_up = (
            job.attempt >= self.settings.attempts
            or crashes >= self.settings.crashes
            or now + wait > job.deadline
        )
        state: State = "dead" if given_up else "retry_wait"
        change(
            session,
            job,
            state,
            detail=code,
            worker=job.lease_owner,
            lease_owner=None,
            error_code=code,
            crashes=crashes,
            not_before=now + wait,
        )
        return state

    def backoff_s(self, attempt: int) -> float:
        """How long to wait after a failure: exponential, capped, with full jitter."""
        longest = min(
            self.settings.backoff_cap_s,
            self.settings.backoff_base_s * 2 ** min(attempt - 1, 30),
        )
        return random.uniform(0, longest)  # noqa: S311 - spreads load, hides nothing

    def end_waiting(self, job_id: str) -> None:
        """A job that waits for a token has one: back to the queue. Raises Lost."""
        with self.database.writing() as session:
            job = get(session, job_id)
            if job.state == "waiting_auth":
                change(session, job, "queued", detail="newer token", run=job.run + 1)

    def release(self, job_id: str, worker: str) -> None:
        """Give a job back that was not finished; another worker goes on with it."""
        with self.database.writing() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.lease_owner != worker:
                return
            if job.state == "running":
                change(
                    session,
                    job,
                    "queued",
                    detail="released",
                    worker=worker,
                    lease_owner=None,
                    run=job.run + 1,
                )
            else:
                put(session, job, lease_owner=None)

    def _held(self, session: Session, job_id: str, worker: str) -> Job:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None or job.state != "running" or job.lease_owner != worker:
            raise Lost("the job is no longer this worker's")
        return job

    # What the janitors of the workers do

    def wake(self) -> int:
        """Jobs whose time has come go back to the queue; overdue ones are given up."""
        now = time.time()
        due = and_(Job.state == "retry_wait", Job.not_before <= now)
        overdue = and_(
            Job.state.in_(("queued", "retry_wait", "waiting_auth")), Job.deadline < now
        )
        tokenless = and_(
            Job.state == "waiting_auth",
            Job.updated < now - self.settings.auth_deadline_s,
        )
        # Its web server died between noting the request and storing the result.
        abandoned = and_(
            Job.state == "received",
            Job.updated < now - 2 * self.settings.answer_deadline_s - 30,
        )
        ripe = or_(due, overdue, tokenless, abandoned)
        if not self._any(ripe):
            return 0
        with self.database.writing() as session:
            found = session.scalars(
                self._unlocked(select(Job).where(ripe).limit(200))
            ).all()
            for job in found:
                if job.state == "retry_wait" and job.deadline >= now:
                    change(
                        session,
                        job,
                        "queued",
                        attempt=job.attempt + 1,
                        run=job.run + 1,
                    )
                    continue
                code = {"waiting_auth": "token", "received": "abandoned"}.get(
                    job.state, "deadline"
                )
                change(session, job, "dead", detail=code, error_code=code)
            return len(found)

    def take_back(self, dead_workers: Collection[str]) -> list[tuple[str, int]]:
        """Jobs of dead workers go back to the queue; (id, run) of the broken runs."""
        now = time.time()
        broken: list[tuple[str, int]] = []
        orphaned = and_(
            Job.state == "running",
            or_(Job.lease_until < now, Job.lease_owner.in_(dead_workers)),
        )
        if not self._any(orphaned):
            return broken
        with self.database.writing() as session:
            found = session.scalars(self._unlocked(select(Job).where(orphaned))).all()
            for job in found:
                broken.append((job.job_id, job.run))
                if job.attempt >= self.settings.attempts:
                    change(
                        session,
                        job,
                        "dead",
                        detail="crash-loop",
                        error_code="crash-loop",
                        lease_owner=None,
                    )
                    continue
                change(
                    session,
                    job,
                    "queued",
                    detail="lease expired",
                    worker=job.lease_owner,
                    lease_owner=None,
                    attempt=job.attempt + 1,
                    run=job.run + 1,
                )
        return broken

    def renew(self, worker: Worker) -> None:
        """A heartbeat: the worker's row, and its leases."""
        now = time.time()
        with self.database.writing() as session:
            worker.heartbeat = now
            session.merge(worker)
            session.execute(
                update(Job)
                .where(Job.lease_owner == worker.worker_id)
                .values(lease_until=now + self.settings.lease_s)
            )

    def leave(self, worker_id: str) -> None:
        """A worker ends in order."""
        with self.database.writing() as session:
            found = session.get(Worker, worker_id)
            if found is not None:
                session.delete(found)

    def workers(self) -> list[Worker]:
        """All workers that were there within a day."""
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(Worker).where(Worker.heartbeat > time.time() - 86_400)
                )
            )

    def ended(self, job_ids: Collection[str]) -> set[str]:
        """Those of the ids that no worker needs any more: ended, or unknown."""
        now = time.time()
        with self.database.reading() as session:
            needed = session.scalars(
                select(Job.job_id).where(
                    Job.job_id.in_(job_ids),
                    or_(
                        Job.state.not_in(ENDED),
                        and_(Job.lease_owner.is_not(None), Job.lease_until > now),
                    ),
                )
            )
            return set(job_ids) - set(needed)

    def due(self, limit: int = 50) -> list[Job]:
        """Queued jobs that the durable queue does not have yet, urgent ones first."""
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(Job)
                    .where(
                        Job.state == "queued",
                        Job.dispatched < Job.run,
                        Job.not_before <= time.time(),
                    )
                    .order_by(Job.priority, Job.created)
                    .limit(limit)
                )
            )

    def dispatched(self, runs: Iterable[tuple[str, int]]) -> None:
        """Note which runs the durable queue has."""
        with self.database.writing() as session:
            for job_id, run in runs:
                session.execute(
                    update(Job)
                    .where(Job.job_id == job_id, Job.run == run)
                    .values(dispatched=run)
                )

    def handed_over(self) -> list[tuple[str, int]]:
        """Runs that wait in the durable queue, as far as the jobs know."""
        with self.database.reading() as session:
            rows = session.execute(
                select(Job.job_id, Job.run).where(
                    Job.state == "queued", Job.dispatched == Job.run
                )
            )
            return [(row.job_id, row.run) for row in rows]

    def lost_runs(self, runs: Iterable[tuple[str, int]]) -> int:
        """Runs that a dead worker took from the durable queue and never began."""
        count = 0
        with self.database.writing() as session:
            for job_id, run in runs:
                job = session.get(Job, job_id, with_for_update=True)
                if job is None or job.run != run or job.state != "queued":
                    continue
                put(session, job, run=run + 1)
                note(session, job_id, "dispatched-anew")
                count += 1
        return count

    def to_close(self, limit: int = 20) -> list[Job]:
        """Ended jobs on which the last word is still to be said."""
        now = time.time()
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(Job)
                    .where(
                        Job.state.in_(ENDED),
                        Job.closed.is_(None),
                        Job.not_before <= now,
                        or_(Job.lease_owner.is_(None), Job.lease_until < now),
                    )
                    .order_by(Job.ended)
                    .limit(limit)
                )
            )

    def begin_closing(self, job: Job, worker: str) -> bool:
        """Take an ended job for closing; False where another worker has."""
        now = time.time()
        with self.database.writing() as session:
            done = session.execute(
                update(Job)
                .where(
                    Job.job_id == job.job_id,
                    Job.closed.is_(None),
                    Job.lease_until == job.lease_until,
                    or_(Job.lease_owner.is_(None), Job.lease_until < now),
                )
                .values(
                    lease_owner=worker,
                    lease_until=now + 4 * self.settings.lease_s,
                    closing_attempts=Job.closing_attempts + 1,
                )
            )
            return bool(done.rowcount)  # type: ignore[attr-defined]

    def close(self, job_id: str, worker: str, detail: str = "") -> None:
        """All is said: forget the token where nobody else needs it."""
        with self.database.writing() as session:
            job = get(session, job_id)
            if job.lease_owner not in {None, worker}:
                raise Lost("another worker closes this job")
            token_ref = job.token_ref
            kept: dict[str, Any] = {}
            if job.state not in _BEGUN_ANEW:
                # Only what kind of input it was; of the marks nobody needs to know.
                kind = (job.input_json or {}).get("type")
                kept = {"input_json": {"type": kind}, "context_json": None}
            put(
                session,
                job,
                closed=time.time(),
                lease_owner=None,
                token_ref=None,
                **kept,
            )
            note(session, job_id, "closed", detail, worker)
            self._forget_token(session, token_ref)

    def close_later(self, job_id: str, worker: str, wait_s: float) -> None:
        """The last word could not be said yet."""
        with self.database.writing() as session:
            job = get(session, job_id)
            if job.lease_owner == worker:
                put(session, job, lease_owner=None, not_before=time.time() + wait_s)

    def _forget_token(self, session: Session, token_ref: int | None) -> None:
        """Remove a token that no job needs any more.

        Held first: whoever renews it, or closes another of its jobs, waits or is
        waited for, and what they did is seen by the question that follows.
        """
        if token_ref is None:
            return
        token = session.get(Token, token_ref, with_for_update=True)
        needed = session.scalar(
            select(Job.job_id)
            .where(Job.closed.is_(None), Job.token_ref == token_ref)
            .limit(1)
        )
        if token is not None and needed is None:
            session.delete(token)

    def _any(self, which: ColumnElement[bool]) -> bool:
        """Whether there is such a job: a look takes no lock, as a change does."""
        with self.database.reading() as session:
            return session.scalar(select(Job.job_id).where(which).limit(1)) is not None

    def _unlocked(self, statement: Any) -> Any:  # Any: a select of jobs, either way
        """Rows that no other transaction holds; on SQLite we hold the whole file."""
        if self.database.is_sqlite:
            return statement
        return statement.with_for_update(skip_locked=True)
