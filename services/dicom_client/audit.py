"""Who did what: lines that are only ever added, each sealed by the one before.

Every line holds a SHA-256 over the digest of the line before and its own values, so
that a line which is changed, left out or put in between breaks the chain from there
on. The oldest lines may be forgotten after their retention; the chain then begins with
the digest of the last one that went.

Nothing that identifies a patient stands in a line: a job's id does.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from hub.durable.database import Database
from services.dicom_client.models import Audit

_FIRST = "0" * 64
_COLUMNS = ("id", "at", "who", "action", "job_id", "before", "after", "chain")
# Any number that no other program on the server locks by.
_CHAIN_LOCK = 0xD1C0_0001


def note(
    session: Session,
    who: str,
    action: str,
    *,
    job_id: str = "",
    before: Any = None,  # Any: JSON
    after: Any = None,
) -> None:
    """Add a line within a transaction that writes: it stands with what it tells of."""
    bind = session.get_bind()
    if bind.dialect.name == "postgresql":
        # Until the end of the transaction: two lines never follow the same one.
        session.execute(
            text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHAIN_LOCK}
        )
    session.flush()
    last = session.scalar(select(Audit).order_by(Audit.id.desc()).limit(1))
    line = Audit(
        id=1 if last is None else last.id + 1,
        at=time.time(),
        who=who[:128],
        action=action[:64],
        job_id=job_id,
        before=_text(before),
        after=_text(after),
    )
    line.chain = _chain(_FIRST if last is None else last.chain, line)
    session.add(line)
    session.flush()


def broken_at(database: Database) -> int | None:
    """The first line that does not follow from the one before; None if all do."""
    before: Audit | None = None
    for line in _lines(database):
        if before is None:
            # What went with the retention cannot be looked at any more.
            follows = line.id > 1 or line.chain == _chain(_FIRST, line)
        else:
            follows = line.id == before.id + 1 and line.chain == _chain(
                before.chain, line
            )
        if not follows:
            return line.id
        before = line
    return None


def newest(
    database: Database, limit: int = 200, below: int | None = None
) -> list[Audit]:
    """Lines for the page, newest first."""
    with database.reading() as session:
        chosen = select(Audit).order_by(Audit.id.desc()).limit(limit)
        if below is not None:
            chosen = chosen.where(Audit.id < below)
        return list(session.scalars(chosen))


def as_csv(database: Database) -> Iterator[str]:
    """All lines, oldest first, with a heading; formulas are made harmless."""
    yield _csv_line(_COLUMNS)
    for line in _lines(database):
        yield _csv_line(_guarded(getattr(line, name)) for name in _COLUMNS)


def as_json(database: Database) -> Iterator[str]:
    """All lines, oldest first, one JSON object a line."""
    for line in _lines(database):
        yield json.dumps(as_dict(line), ensure_ascii=False) + "\n"


def as_dict(line: Audit) -> dict[str, Any]:  # Any: JSON
    """A line as it is told and exported."""
    return {name: getattr(line, name) for name in _COLUMNS}


def forget(database: Database, before: float) -> None:
    """Remove the lines that are older than the retention; the newest stays."""
    with database.writing() as session:
        last = session.scalar(select(Audit.id).order_by(Audit.id.desc()).limit(1))
        session.execute(delete(Audit).where(Audit.at < before, Audit.id < (last or 0)))


def _lines(database: Database, piece: int = 1000) -> Iterator[Audit]:
    after = 0
    while True:
        with database.reading() as session:
            found = list(
                session.scalars(
                    select(Audit)
                    .where(Audit.id > after)
                    .order_by(Audit.id)
                    .limit(piece)
                )
            )
        if not found:
            return
        yield from found
        after = found[-1].id


def _text(value: Any) -> str:  # Any: JSON
    return "" if value is None else json.dumps(value, sort_keys=True, default=str)


def _chain(before: str, line: Audit) -> str:
    told = [line.id, repr(line.at), line.who, line.action, line.job_id]
    whole = json.dumps([before, *told, line.before, line.after])
    return hashlib.sha256(whole.encode()).hexdigest()


def _csv_line(values: Iterable[object]) -> str:
    written = io.StringIO()
    csv.writer(written).writerow(list(values))
    return written.getvalue()


def _guarded(value: object) -> object:
    """A spreadsheet takes what begins so for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")):
        return f"'{value}"
    return value
