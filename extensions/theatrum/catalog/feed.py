"""The feed of changes: every new, changed or deleted row is told in the order it came.

What is told is which row and which of its columns, never their contents: who follows
the feed asks for the row, and sees what their rights let them see.

Who follows it remembers the last number that they saw, so a smaller one must never come
later. On PostgreSQL a number is drawn when a row is written, and transactions commit in
another order than they wrote. So what a transaction tells is written as the last of it,
under a lock that is held until it is committed: numbers rise as they are seen.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session

from theatrum.catalog.tables import (
    Annotation,
    Base,
    Channel,
    Event,
    Image,
    Measurement,
    Project,
    Roi,
    Run,
    RunEvent,
    RunInput,
    RunOutput,
    SeriesMember,
)

QUIET = (Channel, SeriesMember, RunInput, RunOutput, RunEvent, Event)
"""Told with the run, the image or the acquisition that they are part of."""
_WAITING: Final = "theatrum feed"
_LOCK: Final = zlib.crc32(b"theatrum catalog feed")
"""A number that no other program on the server is likely to take."""


def tell(session: Session, actor: str, row: Base, op: str, changed: list[str]) -> None:
    """Append to the feed that a row came (`create`), changed (`update`) or went.

    It is written when the session commits.
    """
    key = getattr(row, "id", "")
    project_id = None
    if isinstance(row, Project):
        project_id = row.id
    elif getattr(row, "project_id", None) is not None:
        project_id = row.project_id  # type: ignore[attr-defined]
    if _WAITING not in session.info:
        session.info[_WAITING] = []
        event.listen(session, "before_commit", _write)
        event.listen(session, "after_rollback", _forget)
    # Any: columns of any type
    said: dict[str, Any] = {
        "project_id": project_id,
        "topic": _topic(row, project_id),
        "kind": row.__tablename__,
        "op": op,
        "object_id": str(key),
        "changed": changed,
        "actor": actor,
    }
    session.info[_WAITING].append(said)


def _write(session: Session) -> None:
    waiting = session.info[_WAITING]
    if not waiting:
        return
    # What is written but not sent yet may wait for others: not under the lock.
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(:key)")
        session.execute(lock, {"key": _LOCK})
    session.execute(insert(Event), list(waiting))
    waiting.clear()


def _forget(session: Session) -> None:
    session.info[_WAITING].clear()


def _topic(row: Base, project_id: int | None) -> str:
    """What one subscribes to: the narrowest thing that the row is about."""
    match row:
        case Run(batch_id=str(batch)):
            return f"batch/{batch}"
        case Annotation(target_kind="image", target_id=str(image)):
            return f"image/{image}"
        case Roi(image_id=image) | Measurement(image_id=image):
            return f"image/{image}"
        case Image(id=image):
            return f"image/{image}"
        case _:
            return f"project/{project_id}" if project_id is not None else "catalog"
