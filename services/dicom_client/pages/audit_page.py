"""The audit log: who did what, filtered, and to keep.

GET /audit          `who`, `action`, `series`, `since`, `below`
GET /audit.csv, /audit.json    all lines that the filter lets through
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Select, select

from hub.durable.database import Database
from services.dicom_client import audit
from services.dicom_client.models import Audit
from services.dicom_client.pages.rating import cell, table
from services.dicom_client.pages.rendering import Here
from services.dicom_client.pages.rights import Administrator

_PAGE = 100
_PIECE = 1000
_COLUMNS = ["id", "at", "who", "action", "job_id", "before", "after", "chain"]
SINCE_S = {"": 0.0, "day": 86_400.0, "week": 604_800.0, "month": 2_592_000.0}
Text = Annotated[str, Query(max_length=128)]


@dataclass(frozen=True)
class Sought:
    """Which lines; what is empty does not choose."""

    who: str = ""
    action: str = ""
    series: str = ""
    since: str = ""

    def chosen(self) -> Select[Audit]:
        lines = select(Audit)
        if self.who:
            lines = lines.where(Audit.who == self.who)
        if self.action:
            lines = lines.where(Audit.action == self.action)
        if self.series:
            lines = lines.where(Audit.job_id == self.series)
        if SINCE_S.get(self.since):
            lines = lines.where(Audit.at >= time.time() - SINCE_S[self.since])
        return lines


def _sought(
    who: Text = "", action: Text = "", series: Text = "", since: Text = ""
) -> Sought:
    return Sought(who, action, series, since)


Wanted = Annotated[Sought, Depends(_sought)]


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/audit", lines, methods=["GET"])
    router.add_api_route("/audit.csv", as_csv, methods=["GET"])
    router.add_api_route("/audit.json", as_json, methods=["GET"])


def lines(
    here: Here,
    member: Administrator,
    sought: Wanted,
    below: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
    check: bool = False,
) -> Response:
    """Lines, newest first; `check` has the whole chain of digests looked through."""
    database = here.service.database
    chosen = sought.chosen().order_by(Audit.id.desc()).limit(_PAGE + 1)
    if below is not None:
        chosen = chosen.where(Audit.id < below)
    with database.reading() as session:
        found = list(session.scalars(chosen))
        actions = sorted(session.scalars(select(Audit.action).distinct()))
        people = sorted(session.scalars(select(Audit.who).distinct()))
    return here.page(
        member,
        "audit.html",
        tab="audit",
        rows=found[:_PAGE],
        older=found[_PAGE - 1].id if len(found) > _PAGE else None,
        first=below is None,
        sought=sought,
        actions=actions,
        people=people,
        checked=check,
        broken=audit.broken_at(database) if check else None,
    )


def _all(database: Database, sought: Sought) -> Iterator[Audit]:
    """All lines that are sought, oldest first, piece by piece."""
    after = 0
    while True:
        piece = sought.chosen().where(Audit.id > after).order_by(Audit.id).limit(_PIECE)
        with database.reading() as session:
            found = list(session.scalars(piece))
        if not found:
            return
        yield from found
        after = found[-1].id


def as_csv(here: Here, member: Administrator, sought: Wanted) -> Response:
    """The lines for a spreadsheet."""

    def text() -> Iterator[str]:
        yield table(_COLUMNS, [])
        for line in _all(here.service.database, sought):
            cells: list[Any] = [getattr(line, name) for name in _COLUMNS]
            yield table([cell(one) for one in cells], [])

    return _exported(here, member.name, text(), "text/csv", "audit.csv")


def as_json(here: Here, member: Administrator, sought: Wanted) -> Response:
    """The lines as one JSON list."""

    def text() -> Iterator[str]:
        before = "[\n"
        for line in _all(here.service.database, sought):
            yield before + json.dumps(audit.as_dict(line), ensure_ascii=False)
            before = ",\n"
        yield "\n]\n" if before == ",\n" else "[]\n"

    return _exported(here, member.name, text(), "application/json", "audit.json")


def _exported(
    here: Here, who: str, text: Iterator[str], kind: str, name: str
) -> Response:
    with here.service.database.writing() as session:
        audit.note(session, who, "audit-export", after=name)
    return StreamingResponse(
        text,
        media_type=kind,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
