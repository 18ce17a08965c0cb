"""What workers do with jobs: take, keep, put off, stop, give back.

A worker holds a job by a lease that its heartbeat renews. Whatever it changes, it
changes only while it holds the job: a worker that was taken for dead, and is not,
hears `Lost` and stops. What a step did and the state it leads to are one transaction.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from hub.durable.database import Database
from services.dicom_client.models import (
    Delivery,
    DeliveryAttempt,
    Duty,
    Event,
    Job,
    Worker,
)
from services.dicom_client.outcomes import Attempt, Outcome
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.states import UPLOAD_SENT, WORK, State
from services.dicom_client.transitions import Lost, change, get, note, put


class Leases:
    """The jobs as workers see them; safe to share between threads."""

    def __init__(
        self, database: Database, settings: Callable[[], ServiceSettings]
    ) -> None:
        self.database = database
        self._settings = settings

    def claim(self, job_id: str, run: int, worker: str) -> Job:
        """Take a job for `lease_s`; raises Lost where it is not to be had."""
        now = time.time()
        with self.database.writing() as session:
            job = get(session, job_id)
            if job.run != run or job.paused or job.stopped or job.state not in WORK:
                raise Lost("the job is not to be worked on now")
            if job.lease_owner not in {None, worker} and job.lease_until > now:
                raise Lost("another worker has the job")
            put(
                session,
                job,
                lease_owner=worker,
                lease_until=now + self._settings().lease_s,
            )
            return job

    def is_held(self, job_id: str, worker: str) -> bool:
        """Whether a worker still has a job, and the job is still wanted."""
        with self.database.reading() as session:
            row = session.execute(
                select(Job.lease_owner).where(Job.job_id == job_id)
            ).one_or_none()
            return row is not None and row.lease_owner == worker

    def step(
        self,
        job_id: str,
        worker: str,
        state: State,
        *,
        detail: str = "",
        **kept: Any,  # Any: values of columns
    ) -> Job:
        """A step is complete: what it found out, and the state it leads to."""
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            change(session, job, state, detail=detail, actor=worker, **kept)
            return job

    def keep(self, job_id: str, worker: str, **kept: Any) -> None:
        """Keep something of a job without a change of its state."""
        with self.database.writing() as session:
            put(session, self._held(session, job_id, worker), **kept)

    def progress(self, job_id: str, worker: str, percent: int) -> None:
        """Tell how far a job's step is; nothing where the job is another's by now."""
        with self.database.writing() as session:
            session.execute(
                update(Job)
                .where(Job.job_id == job_id, Job.lease_owner == worker)
                .values(progress=percent)
            )

    def note_upload(self, job_id: str, worker: str) -> None:
        """Note that the last bytes of a package leave now; raises Lost."""
        with self.database.writing() as session:
            self._held(session, job_id, worker)
            note(session, job_id, UPLOAD_SENT, actor=worker)

    def may_have_arrived(self, job_id: str) -> bool:
        """Whether the package of a job that is `uploading` left as a whole."""
        with self.database.reading() as session:
            last = session.scalar(
                select(Event.kind)
                .where(
                    Event.job_id == job_id, Event.kind.in_((UPLOAD_SENT, "uploading"))
                )
                .order_by(Event.id.desc())
                .limit(1)
            )
        return last == UPLOAD_SENT

    def note_attempt(
        self, job_id: str, worker: str, file: str, attempt: Attempt
    ) -> None:
        """Note a delivery before its first byte and after its last; raises Lost."""
        with self.database.writing() as session:
            self._held(session, job_id, worker)
            session.add(
                DeliveryAttempt(
                    job_id=job_id,
                    file=file,
                    target=attempt.target,
                    node=attempt.node,
                    code=attempt.code,
                )
            )

    def attempts(self, job_id: str, file: str) -> list[Attempt]:
        """What was noted of a file's deliveries, oldest first."""
        with self.database.reading() as session:
            rows = session.scalars(
                select(DeliveryAttempt)
                .where(DeliveryAttempt.job_id == job_id, DeliveryAttempt.file == file)
                .order_by(DeliveryAttempt.id)
            )
            return [
                Attempt(row.target, row.node, row.code)  # type: ignore[arg-type]
                for row in rows
            ]

    def delivered(
        self, job_id: str, worker: str, file: str, outcome: Outcome, *, required: bool
    ) -> None:
        """Note how a delivery stands; one that is done stays so."""
        with self.database.writing() as session:
            self._held(session, job_id, worker)
            row = session.get(Delivery, (job_id, outcome.target, file))
            if row is None:
                row = Delivery(job_id=job_id, target=outcome.target, file=file)
                session.add(row)
            elif row.delivered is not None:
                return
            if row.code != outcome.code:
                node = "" if outcome.node == outcome.target else outcome.node
                told = f"{outcome.target} {node}".strip()
                note(session, job_id, outcome.code[:32], told, worker)
            row.node, row.required = outcome.node[:64], required
            row.code, row.text = outcome.code[:32], outcome.text[:256]
            row.delivered = time.time() if outcome.delivered else None

    def put_off(self, job_id: str, worker: str, wait_s: float, **kept: Any) -> None:
        """Come back to a job later; that is no failure."""
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            self._later(session, job, wait_s, **kept)

    def failed(
        self,
        job_id: str,
        worker: str,
        code: str,
        *,
        wait_s: float | None = None,
        for_good: bool = False,
    ) -> bool:
        """A step failed: come back later, or stop for a person; whether it stopped.

        A job of which nothing has left yet is `failed`; any other keeps its state, so
        that what was done stays done.
        """
        settings = self._settings()
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            attempt = job.attempt + 1
            if not for_good and attempt < settings.attempts:
                wait = self.backoff_s(attempt)
                wait = wait if wait_s is None else max(wait, wait_s)
                note(session, job_id, "error", code, worker)
                self._later(
                    session, job, wait, attempt=attempt, last_error_code=code[:32]
                )
                return False
            if job.state == "matched":
                change(
                    session,
                    job,
                    "failed",
                    detail=code,
                    actor=worker,
                    attempt=attempt,
                    last_error_code=code[:32],
                    lease_owner=None,
                    run=job.run + 1,
                )
            else:
                self._stop(session, job, code, attempt=attempt)
            return True

    def stop(
        self, job_id: str, worker: str, code: str, *, state: State | None = None
    ) -> None:
        """A person has to decide: the job rests, in its state or in another."""
        with self.database.writing() as session:
            job = self._held(session, job_id, worker)
            if state is not None:
                change(session, job, state, detail=code, actor=worker)
            self._stop(session, job, code)

    def _stop(self, session: Session, job: Job, code: str, **kept: Any) -> None:
        note(session, job.job_id, "stopped", code, job.lease_owner)
        put(
            session,
            job,
            **{
                "stopped": code[:32],
                "last_error_code": code[:32],
                "lease_owner": None,
                "run": job.run + 1,
                **kept,
            },
        )

    def _later(self, session: Session, job: Job, wait_s: float, **kept: Any) -> None:
        put(
            session,
            job,
            **{
                "next_run_at": time.time() + wait_s,
                "lease_owner": None,
                "run": job.run + 1,
                **kept,
            },
        )

    def end(self, job_id: str, worker: str) -> None:
        """A run is over and nothing is left to do, or a person has to do it."""
        with self.database.writing() as session:
            job = session.get(Job, job_id)
            if job is not None and job.lease_owner == worker:
                put(session, job, lease_owner=None, run=job.run + 1)

    def backoff_s(self, attempt: int) -> float:
        """How long to wait after a failure: exponential, capped, with jitter."""
        settings = self._settings()
        longest = min(
            settings.backoff_cap_s,
            settings.backoff_base_s * 2 ** min(attempt - 1, 30),
        )
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load

    def _held(self, session: Session, job_id: str, worker: str) -> Job:
        job = session.get(Job, job_id, with_for_update=not self.database.is_sqlite)
        if job is None or job.lease_owner != worker:
            raise Lost("the job is no longer this worker's")
        return job

    # What the janitors of the workers do

    def due(self, limit: int = 100) -> list[Job]:
        """Jobs with something to do that the durable queue does not have yet."""
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(Job)
                    .where(
                        Job.state.in_(WORK),
                        Job.stopped.is_(None),
                        Job.paused.is_(False),
                        Job.lease_owner.is_(None),
                        Job.dispatched < Job.run,
                        Job.next_run_at <= time.time(),
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
                    Job.state.in_(WORK),
                    Job.lease_owner.is_(None),
                    Job.dispatched == Job.run,
                )
            )
            return [(row.job_id, row.run) for row in rows]

    def lost_runs(self, runs: Iterable[tuple[str, int]]) -> int:
        """Runs that a dead worker took from the durable queue and never began."""
        count = 0
        with self.database.writing() as session:
            for job_id, run in runs:
                job = session.get(Job, job_id)
                if job is None or job.run != run or job.lease_owner is not None:
                    continue
                put(session, job, run=run + 1)
                count += 1
        return count

    def take_back(self, dead_workers: Collection[str]) -> list[str]:
        """Jobs of dead workers are due again; those that kill workers are stopped."""
        orphaned = and_(
            Job.lease_owner.is_not(None),
            or_(Job.lease_until < time.time(), Job.lease_owner.in_(dead_workers)),
        )
        if not self._any(orphaned):
            return []
        taken = []
        with self.database.writing() as session:
            found = session.scalars(self._unlocked(select(Job).where(orphaned))).all()
            for job in found:
                taken.append(job.job_id)
                note(session, job.job_id, "lease-expired", actor=job.lease_owner)
                crashes = job.crashes + 1
                if crashes >= self._settings().crashes:
                    self._stop(session, job, "crash-loop", crashes=crashes)
                else:
                    wait = self.backoff_s(crashes) if crashes > 1 else 0.0
                    self._later(session, job, wait, crashes=crashes)
        return taken

    def renew(self, worker: Worker) -> None:
        """A heartbeat: the worker's row, and its leases."""
        now = time.time()
        with self.database.writing() as session:
            worker.heartbeat = now
            session.merge(worker)
            session.execute(
                update(Job)
                .where(Job.lease_owner == worker.worker_id)
                .values(lease_until=now + self._settings().lease_s)
            )
            session.execute(
                update(Duty)
                .where(Duty.owner == worker.worker_id)
                .values(until=now + self._settings().lease_s)
            )

    def has_duty(self, name: str, worker: str, dead: Collection[str]) -> bool:
        """Whether a worker is the one that does something for all; it may become it."""
        now = time.time()
        with self.database.reading() as session:
            row = session.get(Duty, name)
        if row is not None and row.owner == worker:
            return True
        if row is not None and row.until > now and row.owner not in dead:
            return False
        with self.database.writing() as session:
            row = session.get(Duty, name, with_for_update=not self.database.is_sqlite)
            until = now + self._settings().lease_s
            if row is None:
                session.add(Duty(name=name, owner=worker, until=until))
            elif row.until > now and row.owner not in {worker, *dead}:
                return False
            else:
                row.owner, row.until = worker, until
            return True

    def leave(self, worker_id: str) -> None:
        """A worker ends in order: its duties are free at once."""
        with self.database.writing() as session:
            found = session.get(Worker, worker_id)
            if found is not None:
                session.delete(found)
            session.execute(
                update(Duty).where(Duty.owner == worker_id).values(until=0.0)
            )

    def workers(self) -> list[Worker]:
        """All workers that were there within a day."""
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(Worker).where(Worker.heartbeat > time.time() - 86_400)
                )
            )

    def _any(self, which: ColumnElement[bool]) -> bool:
        """Whether there is such a job: a look takes no lock, as a change does."""
        with self.database.reading() as session:
            return session.scalar(select(Job.job_id).where(which).limit(1)) is not None

    def _unlocked(self, statement: Any) -> Any:  # Any: a select of jobs, either way
        """Rows that no other transaction holds; on SQLite we hold the whole file."""
        if self.database.is_sqlite:
            return statement
        return statement.with_for_update(skip_locked=True)
