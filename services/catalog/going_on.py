"""Batches that are done once more, since somebody ended a step of theirs meanwhile.

Who ends one leaves a mark (`theatrum.catalog.engine.line`); the worker looks at it when
it begins with a batch and when it has done it (`worker.py`).
"""

from __future__ import annotations

from theatrum.catalog.engine.line import BY_SERVICE, MARK, want_again
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Batch

from hub.durable.database import Database

__all__ = ["BY_SERVICE", "mark_of", "settle", "want_again"]


def mark_of(database: Database, batch_id: str) -> str:
    """The mark that a batch has now."""
    with database.reading() as session:
        batch = session.get(Batch, batch_id)
        return str(batch.engine.get(MARK, "")) if batch is not None else ""


def settle(database: Database, user: str, batch_id: str, before: str) -> None:
    """Put a batch in line again that was wanted again while it was worked on."""
    with recording(database, user, on_behalf_of="catalog") as book:
        batch = book.session.get(Batch, batch_id)
        if batch is None or str(batch.engine.get(MARK, "")) == before:
            return
        if batch.state not in ("cancelled", "queued", "running"):
            book.change(batch, state="queued", ended_at=None)
