"""What the pages read of the database: plain values, a page of a list at a time.

Lists go by a cursor instead of an offset, so that the last of ten thousand jobs costs
what the first costs, and new jobs do not move what somebody looks at. Times are seconds
since 1970, durations seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import defer

from services.ia_api.errors import BadInvocation
from services.ia_api.jobs import EventRow, JobRow, Wanted, row_of, where
from services.ia_api.models import Audit, Job, Token
from services.ia_api.states import ACTIVE, CHECKPOINTS, ENDED, State
from services.ia_api.store import Store

PAGE = 50
HOUR_S = 3600.0
_LONGEST_ID = 16


@dataclass(frozen=True)
class Cursor:
    """The place of a job in the list, newest first."""

    created: float
    job_id: str

    def __str__(self) -> str:
        return f"{self.created!r}~{self.job_id}"

    @classmethod
    def read(cls, text: str) -> Cursor:
        """The cursor of an address; raises BadInvocation."""
        created, mark, job_id = text.partition("~")
        try:
            found = cls(float(created), job_id)
        except ValueError as err:
            raise BadInvocation("the address names no place in the list") from err
        if not mark or not 0 < found.created < 1e12 or len(job_id) > _LONGEST_ID:
            raise BadInvocation("the address names no place in the list")
        return found


@dataclass(frozen=True)
class Listing:
    """One page of the list of jobs; the cursors are None where nothing follows."""

    rows: Sequence[JobRow]
    newer: Cursor | None
    older: Cursor | None


def listing(
    store: Store,
    wanted: Wanted,
    *,
    before: Cursor | None = None,
    after: Cursor | None = None,
    limit: int = PAGE,
) -> Listing:
    """Jobs, newest first: the newest, or those older or newer than a place."""
    query = select(Job).options(defer(Job.input_json), defer(Job.context_json))
    query = query.where(*where(wanted)).limit(limit + 1)
    if after is not None:
        query = query.where(_newer(after)).order_by(Job.created, Job.job_id.desc())
    else:
        if before is not None:
            query = query.where(_older(before))
        query = query.order_by(Job.created.desc(), Job.job_id)
    with store.database.reading() as session:
        found = [row_of(job) for job in session.scalars(query)]
    more = len(found) > limit
    rows = found[:limit]
    if after is not None:
        rows.reverse()
    has_newer = more if after is not None else before is not None
    has_older = more if after is None else True
    return Listing(
        rows,
        newer=_place(rows[0]) if rows and has_newer else None,
        older=_place(rows[-1]) if rows and has_older else None,
    )


def _place(row: JobRow) -> Cursor:
    return Cursor(row.created, row.job_id)


def _older(than: Cursor) -> ColumnElement[bool]:
    return or_(
        Job.created < than.created,
        and_(Job.created == than.created, Job.job_id > than.job_id),
    )


def _newer(than: Cursor) -> ColumnElement[bool]:
    return or_(
        Job.created > than.created,
        and_(Job.created == than.created, Job.job_id < than.job_id),
    )


def siblings(store: Store, job: Job, limit: int = 10) -> list[JobRow]:
    """Other jobs of the same app on the same slide, newest first."""
    query = (
        select(Job)
        .options(defer(Job.input_json), defer(Job.context_json))
        .where(
            Job.callback_url == job.callback_url,
            Job.application_id == job.application_id,
            Job.slide_id == job.slide_id,
            Job.job_id != job.job_id,
        )
        .order_by(Job.created.desc())
        .limit(limit)
    )
    with store.database.reading() as session:
        return [row_of(one) for one in session.scalars(query)]


def depths(store: Store) -> dict[str, Counter[str]]:
    """Active jobs by app and state."""
    found: dict[str, Counter[str]] = {}
    with store.database.reading() as session:
        rows = session.execute(
            select(Job.app, Job.state, func.count())
            .where(Job.state.in_(ACTIVE))
            .group_by(Job.app, Job.state)
        )
        for app, state, number in rows:
            found.setdefault(app, Counter())[state] = number
    return found


# One job


@dataclass(frozen=True)
class Step:
    """A checkpoint of a job, and how long the way to it took."""

    name: str
    at: float | None
    """None: not reached."""
    took_s: float | None
    """From the begin of the attempt, or the checkpoint before."""


@dataclass(frozen=True)
class Attempt:
    """One turn of a worker at a job."""

    number: int
    worker: str | None
    began: float
    ended: float | None
    outcome: str
    detail: str


def steps(history: Sequence[EventRow]) -> list[Step]:
    """The checkpoints in their order, with what each took in its turn."""
    reached: dict[str, Step] = {}
    since: float | None = None
    for event in history:
        if event.kind == "checkpoint" and event.detail in CHECKPOINTS:
            took_s = None if since is None else max(0.0, event.at - since)
            reached[event.detail] = Step(event.detail, event.at, took_s)
            since = event.at
        elif event.kind in {"running", "received"}:
            since = event.at
    return [reached.get(name, Step(name, None, None)) for name in CHECKPOINTS]


def attempts(history: Sequence[EventRow]) -> list[Attempt]:
    """The turns of workers at a job, oldest first."""
    found: list[Attempt] = []
    ends: frozenset[str] = ENDED | {"queued", "retry_wait", "waiting_auth"}
    for event in history:
        if event.kind == "running":
            found.append(
                Attempt(len(found) + 1, event.worker, event.at, None, "running", "")
            )
        elif event.kind in ends and found and found[-1].ended is None:
            last = found[-1]
            found[-1] = Attempt(
                last.number, last.worker, last.began, event.at, event.kind, event.detail
            )
    return found


@dataclass(frozen=True)
class Choices:
    """What a person may do with a job, and why not where not."""

    retry: bool
    cancel: bool
    supersede: bool
    anew: bool
    """Whether `retry` begins another job instead of going on with this one."""
    why_not: str = ""


def choices(store: Store, job: Job) -> Choices:
    """What a person may do with a job now."""
    active = job.state in ACTIVE
    waits = job.state in {"retry_wait", "waiting_auth"}
    if job.state in {"succeeded", "deleted_by_user"}:
        why = (
            "The result is there, and is never written over."
            if job.state == "succeeded"
            else "A person deleted the result; it is never made anew."
        )
        return Choices(
            retry=False,
            cancel=False,
            supersede=False,
            anew=False,
            why_not=f"{why} Ask for the analysis in the viewer to have it again.",
        )
    token = store.settings.credentials is not None or _has_token(store, job)
    return Choices(
        retry=waits or (not active and token),
        cancel=active,
        supersede=active and token,
        anew=not waits,
        why_not=""
        if token or waits
        else "No callback token is left, so this cannot be begun anew from here: ask "
        "for the analysis in the viewer, or set credentials.",
    )


def _has_token(store: Store, job: Job) -> bool:
    with store.database.reading() as session:
        found = session.scalar(
            select(Token.id).where(
                Token.callback_url == job.callback_url,
                Token.application_id == job.application_id,
            )
        )
    return found is not None


# Throughput


@dataclass(frozen=True)
class Hour:
    """Jobs that ended within one hour."""

    at: float
    ended: dict[State, int]
    p50_s: float | None
    """Half of the jobs that succeeded ran no longer than this; None: none did."""
    p95_s: float | None

    @property
    def total(self) -> int:
        return sum(self.ended.values())


ENDINGS: tuple[State, ...] = (
    "succeeded",
    "dead",
    "cancelled",
    "superseded",
    "deleted_by_user",
)


def hours(store: Store, count: int, *, app: str | None = None) -> list[Hour]:
    """Ended jobs hour by hour up to now, oldest first, empty hours included."""
    first = (time.time() // HOUR_S - count + 1) * HOUR_S
    query = select(Job.ended, Job.state, Job.started).where(
        Job.ended >= first,
        # `created` has an index and `ended` has none; no job outlives its deadline
        # by a day.
        Job.created >= first - store.settings.job_deadline_s - 86_400,
    )
    if app is not None:
        query = query.where(Job.app == app)
    counted: list[Counter[str]] = [Counter() for _ in range(count)]
    ran: list[list[float]] = [[] for _ in range(count)]
    with store.database.reading() as session:
        for ended, state, started in session.execute(query):
            if ended is None:
                continue
            slot = min(int((ended - first) // HOUR_S), count - 1)
            counted[slot][state] += 1
            if state == "succeeded" and started is not None:
                ran[slot].append(ended - started)
    return [
        Hour(
            at=first + number * HOUR_S,
            ended={state: counted[number][state] for state in ENDINGS},
            p50_s=percentile(ran[number], 50),
            p95_s=percentile(ran[number], 95),
        )
        for number in range(count)
    ]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that `percent` of the values do not exceed (nearest rank)."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(0, int(rank) - 1)]


# The audit log


@dataclass(frozen=True)
class Sought:
    """Which lines of the audit log; what is empty holds for all."""

    action: str = ""
    app: str = ""
    caller: str = ""
    job_id: str = ""
    since: float | None = None


def audit_page(
    store: Store,
    sought: Sought,
    *,
    below: int | None = None,
    limit: int = PAGE,
) -> tuple[list[Audit], int | None]:
    """Lines of the audit log, newest first, and where the next page begins."""
    query = select(Audit).where(*_sought(sought))
    if below is not None:
        query = query.where(Audit.id < below)
    query = query.order_by(Audit.id.desc()).limit(limit + 1)
    with store.database.reading() as session:
        found = list(session.scalars(query))
    rows = found[:limit]
    return rows, rows[-1].id if len(found) > limit else None


def audit_lines(store: Store, sought: Sought) -> Iterator[Audit]:
    """All lines that are sought, newest first, some at a time."""
    below: int | None = None
    while True:
        rows, below = audit_page(store, sought, below=below, limit=1000)
        yield from rows
        if below is None:
            return


def audit_actions(store: Store) -> list[str]:
    """The actions that the audit log tells of."""
    with store.database.reading() as session:
        query = select(Audit.action).distinct().order_by(Audit.action)
        return list(session.scalars(query))


def _sought(sought: Sought) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if sought.action:
        found.append(Audit.action == sought.action)
    if sought.app:
        found.append(Audit.app == sought.app)
    if sought.caller:
        found.append(Audit.caller == sought.caller)
    if sought.job_id:
        found.append(Audit.job_id == sought.job_id)
    if sought.since is not None:
        found.append(Audit.at >= sought.since)
    return found


Since = Literal["", "hour", "day", "week", "month"]
_SPANS: dict[Since, float] = {
    "hour": HOUR_S,
    "day": 24 * HOUR_S,
    "week": 168 * HOUR_S,
    "month": 720 * HOUR_S,
}


def moment(since: Since) -> float | None:
    """When a span of time up to now began; None where it is unbounded."""
    return time.time() - _SPANS[since] if since else None
