"""Batches that are to be gone on with: after an answer, a lease's end, a retried run.

A driver reads how far its items are when it begins each of them. What somebody else
ends meanwhile it may have passed already. So who ends or reopens a step leaves a new
mark in the batch's row; a worker that finds another mark at its end than at its
beginning puts the batch in line once more (`worker.py`). Nothing is lost however the
two meet, and a pass too many does nothing.
"""

from __future__ import annotations

from typing import Final

from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import Batch, new_id

from hub.durable.database import Database

BY_SERVICE: Final = "service"
"""In a batch's `engine`: the catalogue's worker does it, not somebody's notebook."""
_MARK: Final = "again"


def want_again(book: Book, batch_id: str | None) -> None:
    """Have the worker go on with a batch, where it is the worker's."""
    batch = book.session.get(Batch, batch_id or "")
    if batch is None or batch.engine.get("by") != BY_SERVICE:
        return
    is_open = batch.state in ("queued", "running", "cancelled")
    book.change(
        batch,
        engine={**batch.engine, _MARK: new_id()},
        state=batch.state if is_open else "queued",
        ended_at=batch.ended_at if is_open else None,
    )


def mark_of(database: Database, batch_id: str) -> str:
    """The mark that a batch has now."""
    with database.reading() as session:
        batch = session.get(Batch, batch_id)
        return str(batch.engine.get(_MARK, "")) if batch is not None else ""


def settle(database: Database, user: str, batch_id: str, before: str) -> None:
    """Put a batch in line again that was wanted again while it was worked on."""
    with recording(database, user, on_behalf_of="catalog") as book:
        batch = book.session.get(Batch, batch_id)
        if batch is None or str(batch.engine.get(_MARK, "")) == before:
            return
        if batch.state not in ("cancelled", "queued", "running"):
            book.change(batch, state="queued", ended_at=None)
