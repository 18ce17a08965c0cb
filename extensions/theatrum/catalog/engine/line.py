"""Batches that the catalogue's service does, and how they get in line once more.

A driver reads how far its items are when it begins each of them. What somebody else
ends meanwhile (an answer to a review, a step done outside) it may have passed already.
So who ends a step leaves a new mark in the batch's row; the service's worker that finds
another mark at its end than at its beginning does the batch once more. Nothing is lost
however the two meet, and a pass too many does nothing. A notebook's own batch is gone
on with by `resume()`.
"""

from __future__ import annotations

from typing import Final

from theatrum.catalog.record import Book
from theatrum.catalog.tables import Batch, new_id

BY_SERVICE: Final = "service"
"""In a batch's `engine`: the service's worker does it, not somebody's notebook."""
MARK: Final = "again"
"""Where in it the mark is."""


def want_again(book: Book, batch_id: str | None) -> None:
    """Have the worker go on with a batch, where it is the worker's."""
    batch = book.session.get(Batch, batch_id or "")
    if batch is None or batch.engine.get("by") != BY_SERVICE:
        return
    is_open = batch.state in ("queued", "running", "cancelled")
    book.change(
        batch,
        engine={**batch.engine, MARK: new_id()},
        state=batch.state if is_open else "queued",
        ended_at=batch.ended_at if is_open else None,
    )
