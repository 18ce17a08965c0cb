"""Requests become jobs, and people end them: each change one transaction.

The row of a job is the truth; the durable queue only carries its id. What workers do
with jobs is in `leases`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from hub.durable.database import Database
from hub.durable.sealing import Sealer, digest
from services.ia_api import tokens
from services.ia_api.errors import Busy
from services.ia_api.models import Alias, Audit, Job, Tombstone, new_job_id
from services.ia_api.settings import ServiceSettings
from services.ia_api.states import ACTIVE, State
from services.ia_api.tokens import Place
from services.ia_api.transitions import change, note, put
from services.ia_api.transitions import get as get_job

_Other = aliased(Job)

TOO_LATE = "too-late"
"""Of a job that was superseded before its first result was stored."""
_WITHDRAWN = "withdrawn"
"""In place of a cancellation token's mark: this request wants the job no more."""


@dataclass(frozen=True)
class Request:
    """A checked request for an analysis.

    `stamp` tells equal work from other work; `mark` tells one request from another
    where there is no cancellation token for it.
    """

    app: str
    application_id: str
    slide_id: str
    callback_url: str
    token: str
    action: Literal["create", "newImageFiles"]
    input: dict[str, Any]  # Any: JSON as it was sent
    context: dict[str, Any]
    cancellation_token: str | None
    stamp: str
    application_version: str
    mark: str = ""

    @property
    def idem_key(self) -> str:
        """Of the request (section 2.7); one without a token is like no other."""
        if self.action == "newImageFiles":
            mark = self.mark
        else:
            mark = self.cancellation_token or f"none {new_job_id()}"
        return digest(*self._place, self.action, mark)

    @property
    def active_key(self) -> str:
        return digest(*self._place, self.stamp)

    @property
    def _place(self) -> tuple[str, str, str]:
        return self.callback_url, self.application_id, self.slide_id


def stamp_of(given: dict[str, Any], context: dict[str, Any]) -> str:
    """The stamp of a request's input and context: the same for the same work."""
    return digest(
        json.dumps([given.get("type"), given.get("content"), context], sort_keys=True)
    )


@dataclass(frozen=True)
class Received:
    """What became of a request."""

    job: Job
    how: Literal["new", "repeated", "attached"]
    instead_of: Job | None = None
    """The job that the new one superseded."""


class Store:
    """The jobs of one installation; safe to share between threads."""

    def __init__(
        self, database: Database, sealer: Sealer, settings: ServiceSettings
    ) -> None:
        self.database = database
        self.settings = settings
        self._sealer = sealer
        self._waiting = (0.0, 0)

    def ping(self) -> None:
        """Raise what the driver raises where the database does not answer."""
        with self.database.reading() as session:
            session.execute(select(1))

    # Requests

    def admit(self) -> None:
        """Raise Busy where too many jobs wait already."""
        if self._count_waiting() >= self.settings.queue_limit:
            raise Busy("too many jobs wait already")

    def receive(self, request: Request) -> Received:
        """Note a request; what was asked before is found again. Raises Busy."""
        self.admit()
        for _ in range(5):
            try:
                with self.database.writing() as session:
                    return self._receive(session, request)
            except IntegrityError:
                # Another process noted the same at the same moment: now it is there.
                continue
        raise Busy("the same request comes in too many times at once")

    def receive_beyond(self, request: Request, done: Job) -> Received:
        """Note a request that joined a job whose final result is stored already.

        The worker has not noted yet that it is done: from now on nobody joins it, and
        in the same transaction the request begins a job of its own. Raises Busy.
        """
        with self.database.writing() as session:
            put(session, get_job(session, done.job_id), active_key=None)
            session.execute(delete(Alias).where(Alias.idem_key == request.idem_key))
            return self._receive(session, request)

    def _receive(self, session: Session, request: Request) -> Received:
        place = Place(request.callback_url, request.application_id)
        # Nobody has seen yet whether the pathology server takes it.
        token_ref = tokens.keep(
            session, self._sealer, place, request.token, accepted=False
        )
        known = self._by_idem_key(session, request.idem_key)
        if known is not None:
            return Received(known, "repeated")
        active = session.scalar(
            select(Job).where(Job.active_key == request.active_key).with_for_update()
        )
        superseded = None
        if active is not None:
            if request.action == "newImageFiles":
                self._attach(session, active, request)
                return Received(active, "repeated")
            # A job that nobody asked for has no result yet that could be answered.
            if self.settings.on_repeat == "attach" and active.action == "create":
                self._attach(session, active, request)
                return Received(active, "attached")
            # What it has not said yet is said by the new one, in the same result.
            change(session, active, "superseded")
            superseded = active
        now = time.time()
        job = Job(
            job_id=new_job_id(),
            idem_key=request.idem_key,
            active_key=request.active_key,
            app=request.app,
            application_id=request.application_id,
            slide_id=request.slide_id,
            callback_url=request.callback_url,
            token_ref=token_ref,
            action=request.action,
            input_json=request.input,
            context_json=request.context,
            cancellation_token=token_mark(request.cancellation_token),
            state="received",
            # A person waits for the one, nobody for the other.
            priority=1 if request.action == "create" else 10,
            deadline=now + self.settings.job_deadline_s,
            application_version=request.application_version,
            created=now,
            updated=now,
        )
        session.add(job)
        session.flush()
        note(session, job.job_id, "received")
        if request.action == "newImageFiles":
            change(session, job, "queued")
        return Received(job, "new", superseded)

    def _attach(self, session: Session, job: Job, request: Request) -> None:
        # Nobody waits for what a notification asked for: it keeps no job from ending.
        unasked = request.action == "newImageFiles"
        mark = _WITHDRAWN if unasked else token_mark(request.cancellation_token)
        session.add(
            Alias(idem_key=request.idem_key, job_id=job.job_id, cancellation_token=mark)
        )
        note(session, job.job_id, "attached")

    def _by_idem_key(self, session: Session, key: str) -> Job | None:
        found = session.scalar(select(Job).where(Job.idem_key == key))
        if found is not None:
            return found
        return session.scalar(
            select(Job)
            .join(Alias, Alias.job_id == Job.job_id)
            .where(Alias.idem_key == key)
        )

    def _count_waiting(self) -> int:
        """How many jobs are active, at most a second old."""
        at, count = self._waiting
        if time.monotonic() - at > 1:
            with self.database.reading() as session:
                count = (
                    session.scalar(
                        select(func.count())
                        .select_from(Job)
                        .where(Job.state.in_(ACTIVE))
                    )
                    or 0
                )
            self._waiting = (time.monotonic(), count)
        return count

    def queue(
        self,
        job_id: str,
        *,
        result: dict[str, Any],  # Any: a stored result
        slide_size: Sequence[int],
        api_version: str,
        token: str | None = None,
        audit: Audit | None = None,
    ) -> bool:
        """The first result is stored: off to the workers. False where it ended.

        `token`: what the pathology server accepted for that.
        """
        kept = {
            "result_id": result["id"],
            "result_version": str(result["versionId"]),
            "slide_size": list(slide_size),
            "api_version": api_version,
        }
        with self.database.writing() as session:
            if audit is not None:
                session.add(audit)
            job = get_job(session, job_id, lock=False)
            place = Place(job.callback_url, job.application_id)
            if token is not None and job.state == "received":
                # Before the job is held: who holds a token may wait for its jobs.
                tokens.keep(session, self._sealer, place, token, accepted=True)
            session.expire(job)
            job = get_job(session, job_id)
            if job.state == "received":
                change(session, job, "queued", **kept)
                return True
            # Ended meanwhile: the last word still has to be said on the result, with a
            # token that may be forgotten by now. Who closes a job holds it before its
            # token, and so do we here.
            if token is not None:
                kept["token_ref"] = tokens.keep(
                    session, self._sealer, place, token, accepted=True
                )
            if job.state == "superseded":
                # The job that did so came too early to take this result over.
                kept["error_code"] = TOO_LATE
            put(session, job, closed=None, **kept)
            return False

    def refuse(self, job_id: str, code: str) -> None:
        """The first result could not be stored: the request may be made again."""
        with self.database.writing() as session:
            job = get_job(session, job_id)
            if job.state == "received":
                # Free for the same request, which may come again.
                key = digest(job.idem_key, job.job_id)
                change(session, job, "dead", detail=code, error_code=code, idem_key=key)

    def unfinished_before(self, job: Job) -> Job | None:
        """The newest ended job on the slide whose result says no more than that.

        Its result may be used again; a finished one never is.
        """
        with self.database.reading() as session:
            return session.scalar(
                select(Job)
                .where(
                    Job.callback_url == job.callback_url,
                    Job.application_id == job.application_id,
                    Job.slide_id == job.slide_id,
                    Job.job_id != job.job_id,
                    Job.state.in_(("dead", "cancelled", "superseded")),
                    Job.result_id.is_not(None),
                    Job.result_id.not_in(
                        select(Tombstone.result_id).where(
                            Tombstone.callback_url == job.callback_url,
                            Tombstone.application_id == job.application_id,
                        )
                    ),
                    Job.result_id.not_in(
                        select(_Other.result_id).where(
                            _Other.state.in_(ACTIVE), _Other.result_id.is_not(None)
                        )
                    ),
                )
                .order_by(Job.created.desc())
                .limit(1)
            )

    # Ended by a person

    def cancel(
        self, callback_url: str, application_id: str, cancellation_token: str
    ) -> list[str]:
        """End the jobs of a cancellation token; ids of those that were active.

        A job to which several requests were attached ends when the last of them is
        cancelled; until then it goes on for the others.
        """
        mark = token_mark(cancellation_token)
        aliases = select(Alias.job_id).where(Alias.cancellation_token == mark)
        ended = []
        with self.database.writing() as session:
            found = session.scalars(
                select(Job)
                .where(
                    Job.state.in_(ACTIVE),
                    Job.callback_url == callback_url,
                    Job.application_id == application_id,
                    or_(Job.cancellation_token == mark, Job.job_id.in_(aliases)),
                )
                .with_for_update()
            ).all()
            for job in found:
                if self._is_wanted_without(session, job, mark):
                    note(session, job.job_id, _WITHDRAWN)
                    continue
                change(session, job, "cancelled")
                ended.append(job.job_id)
        return ended

    def _is_wanted_without(self, session: Session, job: Job, mark: str | None) -> bool:
        """Strike a request off a job; whether another one still asks for it.

        One without a cancellation token cannot be cancelled, so it always does.
        """
        if job.cancellation_token == mark:
            put(session, job, cancellation_token=_WITHDRAWN)
        session.execute(
            update(Alias)
            .where(Alias.job_id == job.job_id, Alias.cancellation_token == mark)
            .values(cancellation_token=_WITHDRAWN)
        )
        if job.cancellation_token != _WITHDRAWN:
            return True
        others = select(Alias.idem_key).where(
            Alias.job_id == job.job_id,
            or_(
                Alias.cancellation_token.is_(None),
                Alias.cancellation_token != _WITHDRAWN,
            ),
        )
        return session.scalar(others.limit(1)) is not None

    def result_deleted(
        self, callback_url: str, application_id: str, result_id: int
    ) -> list[str]:
        """A person deleted a result: end its jobs, and never make it anew."""
        with self.database.writing() as session:
            session.merge(
                Tombstone(
                    callback_url=callback_url,
                    application_id=application_id,
                    result_id=result_id,
                )
            )
            return self._end(
                session,
                "deleted_by_user",
                Job.callback_url == callback_url,
                Job.application_id == application_id,
                Job.result_id == result_id,
            )

    def is_deleted(self, job: Job) -> bool:
        """Whether a person deleted the result of a job."""
        with self.database.reading() as session:
            key = (job.callback_url, job.application_id, job.result_id)
            return session.get(Tombstone, key) is not None

    def _end(
        self, session: Session, state: State, *which: ColumnElement[bool]
    ) -> list[str]:
        found = session.scalars(
            select(Job).where(Job.state.in_(ACTIVE), *which).with_for_update()
        ).all()
        for job in found:
            change(session, job, state)
        return [job.job_id for job in found]

    # Tokens

    def fresh_token(
        self,
        callback_url: str,
        application_id: str,
        token: str,
        *,
        accepted: bool = False,
    ) -> None:
        """Keep a token that came with a request which makes no job.

        `accepted`: the pathology server took it a moment ago.
        """
        place = Place(callback_url, application_id)
        with self.database.writing() as session:
            needed = session.scalar(
                select(Job.job_id).where(Job.closed.is_(None), *place.of(Job)).limit(1)
            )
            if needed is not None:
                tokens.keep(session, self._sealer, place, token, accepted=accepted)

    def token_of(self, job: Job) -> str:
        """The newest token for a job's callbacks; raises Unauthorized without one."""
        with self.database.reading() as session:
            return tokens.opened(session, self._sealer, job.token_ref)

    def has_other_token(self, job: Job, refused: str | None) -> bool:
        """Whether there is a token to try after one was refused."""
        with self.database.writing() as session:
            return tokens.after_refusal(session, self._sealer, job.token_ref, refused)

    def get(self, job_id: str) -> Job:
        """A job as it is now; raises NoSuchJob."""
        with self.database.reading() as session:
            return get_job(session, job_id, lock=False)


def token_mark(cancellation_token: str | None) -> str | None:
    """What is kept of a cancellation token: enough to know it again."""
    return digest("cancel", cancellation_token) if cancellation_token else None
