"""What the pages and the API are told of series: lists, details, figures, changes.

A patient's name, id and dates are opened here and nowhere else; who may not see them is
never brought here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.dicom_client import transitions
from services.dicom_client.models import Delivery, Event, Job, Overlap, Rating
from services.dicom_client.opening import Service
from services.dicom_client.states import (
    DELIVERY_UNKNOWN,
    FOR_A_PERSON,
    RETRIABLE,
    STATES,
    UPLOAD_UNKNOWN,
    WORK,
)

_DAY_S = 86_400.0
_PIECE = 200
# Any below: JSON of the API.
Told = dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """Which series a list shows; what is empty does not choose."""

    states: tuple[str, ...] = ()
    modality: str = ""
    template: str = ""
    source: str = ""
    text: str = ""
    """Found in patient's name or id, study or series description."""
    attention: bool = False
    """Only what waits for a person."""
    since: float = 0.0
    before: float | None = None
    """Only older ones than this `created`: the next page."""
    limit: int = 50


def listed(service: Service, wanted: Filter) -> Told:
    """Series, newest first, and where the next page begins."""
    found: list[Told] = []
    before = wanted.before
    while len(found) < wanted.limit:
        rows = _page(service, wanted, before)
        for job in rows:
            before = job.created
            summary = summarised(service, job)
            if _has(summary, wanted.text):
                found.append(summary)
            if len(found) >= wanted.limit:
                break
        if len(rows) < _PIECE:
            before = before if len(found) >= wanted.limit else None
            break
    return {"series": found, "next": before}


def _page(service: Service, wanted: Filter, before: float | None) -> Sequence[Job]:
    chosen = select(Job).order_by(Job.created.desc()).limit(_PIECE)
    if wanted.states:
        chosen = chosen.where(Job.state.in_(wanted.states))
    if wanted.modality:
        chosen = chosen.where(Job.modality == wanted.modality)
    if wanted.template:
        chosen = chosen.where(Job.template_name == wanted.template)
    if wanted.source:
        chosen = chosen.where(Job.source == wanted.source)
    if wanted.attention:
        chosen = chosen.where(
            Job.state.in_((*FOR_A_PERSON, "rejected", *RETRIABLE - {"cancelled"}))
            | Job.stopped.is_not(None)
        )
    if wanted.since:
        chosen = chosen.where(Job.created >= wanted.since)
    if before is not None:
        chosen = chosen.where(Job.created < before)
    with service.database.reading() as session:
        return list(session.scalars(chosen))


def _has(summary: Told, text: str) -> bool:
    wanted = text.strip().casefold()
    return not wanted or any(
        wanted in str(value).casefold() for value in summary["facts"].values()
    )


def summarised(service: Service, job: Job) -> Told:
    """One row of the list."""
    return {
        "id": job.job_id,
        "state": job.state,
        "stopped": job.stopped,
        "paused": job.paused,
        "reasons": job.reasons,
        "warnings": job.warnings,
        "template": job.template_name,
        "template_digest": job.template_digest,
        "engine": job.engine,
        "modality": job.modality,
        "instances": job.instances,
        "source": job.source,
        "server_status": job.server_status,
        "progress": job.progress,
        "attempt": job.attempt,
        "error": job.last_error_code,
        "next_run_at": job.next_run_at,
        "duplicate_of": job.duplicate_of,
        "created": job.created,
        "updated": job.updated,
        "ended": job.ended,
        "facts": service.jobs.facts(job),
        "actions": actions_of(job),
    }


def actions_of(job: Job) -> list[str]:
    """What a planner can do with a series now."""
    possible: list[str] = []
    if job.stopped == UPLOAD_UNKNOWN:
        possible += ["upload"]
    elif job.stopped == DELIVERY_UNKNOWN:
        possible += ["delivery"]
    elif job.stopped or job.state in RETRIABLE or job.state == "rejected":
        possible.append("retry")
    elif job.attempt and job.state in WORK and job.lease_owner is None:
        # It would be tried again by itself, later.
        possible.append("retry")
    if job.state == "held":
        possible.append("override")
    if job.state in FOR_A_PERSON or (job.content_hash and job.state != "stable"):
        possible.append("template")
    if job.state in FOR_A_PERSON:
        possible.append("ignore")
    if job.state == "ignored" and job.duplicate_of is None:
        possible.append("consider")
    if job.state == "rejected":
        possible.append("give-up")
    if job.state in (*WORK, "rejected") and job.state not in {"exported", "confirmed"}:
        possible.append("cancel")
    if job.state in WORK:
        possible.append("resume" if job.paused else "pause")
    return possible


def detailed(service: Service, job_id: str) -> Told:
    """A series with all that is known of it; raises NoSuchThing."""
    with service.database.reading() as session:
        job = transitions.get(session, job_id)
        same = session.scalars(
            select(Job.job_id).where(
                Job.series_key == job.series_key, Job.job_id != job_id
            )
        ).all()
        return {
            **summarised(service, job),
            "findings": job.findings,
            "overridden": job.overridden,
            "profile_digest": job.profile_digest,
            "package_sha256": job.package_sha256,
            "result_sha256": job.result_sha256,
            "verified": job.verified,
            "submitted": job.submitted,
            "usual_s": _usual_s(session, job),
            "wiped": job.wiped,
            "same_series": list(same),
            "deliveries": _deliveries(session, job_id),
            "timeline": _timeline(session, job_id),
            "ratings": [
                {"who": row.who, "at": row.at, "roi": row.roi, **row.content}
                for row in session.scalars(
                    select(Rating).where(Rating.job_id == job_id).order_by(Rating.at)
                )
            ],
            "overlaps": [
                {"who": row.who, "at": row.at, "structures": row.content}
                for row in session.scalars(
                    select(Overlap).where(Overlap.job_id == job_id).order_by(Overlap.at)
                )
            ],
        }


def _usual_s(session: Session, job: Job) -> float | None:
    """How long series with this template take from their submission to their end."""
    rows = session.execute(
        select(Job.submitted, Job.ended)
        .where(
            Job.template_name == job.template_name,
            Job.state == "done",
            Job.submitted.is_not(None),
            Job.ended.is_not(None),
        )
        .order_by(Job.ended.desc())
        .limit(50)
    ).all()
    return (
        statistics.median(row.ended - row.submitted for row in rows) if rows else None
    )


def _deliveries(session: Session, job_id: str) -> list[Told]:
    rows = session.scalars(select(Delivery).where(Delivery.job_id == job_id))
    return [
        {
            "target": row.target,
            "node": row.node,
            "required": row.required,
            "delivered": row.delivered,
            "code": row.code,
            "text": row.text,
        }
        for row in rows
    ]


def _timeline(session: Session, job_id: str) -> list[Told]:
    rows = session.scalars(
        select(Event).where(Event.job_id == job_id).order_by(Event.id)
    )
    return [
        {"at": row.at, "kind": row.kind, "detail": row.detail, "actor": row.actor}
        for row in rows
    ]


def figures(service: Service, days: int = 30) -> Told:
    """Counts by state, ends by day, and how long a series takes."""
    since = time.time() - days * _DAY_S
    with service.database.reading() as session:
        states = dict(
            session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
        )
        rows = session.execute(
            select(Job.state, Job.created, Job.ended, Job.modality, Job.template_name)
            .where(Job.ended >= since)
            .order_by(Job.ended)
        ).all()
        stopped = session.scalar(
            select(func.count()).select_from(Job).where(Job.stopped.is_not(None))
        )
    by_day: dict[str, dict[str, int]] = {}
    by_template: dict[str, int] = {}
    seconds = []
    for row in rows:
        day = time.strftime("%Y-%m-%d", time.gmtime(row.ended))
        counts = by_day.setdefault(day, {})
        counts[row.state] = counts.get(row.state, 0) + 1
        if row.state == "done":
            seconds.append(row.ended - row.created)
            by_template[row.template_name] = by_template.get(row.template_name, 0) + 1
    return {
        "states": {state: int(states.get(state, 0)) for state in STATES},
        "stopped": stopped or 0,
        "by_day": by_day,
        "by_template": by_template,
        "median_seconds": statistics.median(seconds) if seconds else None,
        "done": len(seconds),
    }


def changes(service: Service, after: int, limit: int = 500) -> list[Told]:
    """What happened after an event, oldest first; it names nobody."""
    with service.database.reading() as session:
        rows = session.execute(
            select(Event.id, Event.job_id, Event.kind, Event.at, Job.state)
            .join(Job, Job.job_id == Event.job_id)
            .where(Event.id > after)
            .order_by(Event.id)
            .limit(limit)
        )
        return [
            {
                "event": row.id,
                "id": row.job_id,
                "kind": row.kind,
                "at": row.at,
                "state": row.state,
            }
            for row in rows
        ]


def moving(service: Service) -> list[tuple[str, str, int]]:
    """Series in a step that tells how far it is: id, state, percent."""
    with service.database.reading() as session:
        rows = session.execute(
            select(Job.job_id, Job.state, Job.progress).where(
                Job.progress > 0, Job.state.in_(WORK)
            )
        )
        return [(row.job_id, row.state, row.progress) for row in rows]


def newest_event(service: Service) -> int:
    """The number of the newest event."""
    with service.database.reading() as session:
        return session.scalar(select(func.max(Event.id))) or 0
