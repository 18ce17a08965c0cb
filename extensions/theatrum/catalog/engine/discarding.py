"""Arrays in between that a flow does not keep: their files go, what is known of them
stays.

A discarded image is out of sight like a deleted one, and its row, with its checksum and
its run, goes on explaining what was made of it. By the checksum a later order finds in
the cache what follows; only where something new has to be made of it, it is made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, exists, or_, select

from theatrum.catalog.record import Book
from theatrum.catalog.tables import Annotation, Image, Roi, Run, RunInput, RunOutput
from theatrum.catalog.tables.images import DISCARDED

if TYPE_CHECKING:
    from theatrum.catalog.engine.ledger import Ledger

_AT_ONCE = 200
_OPEN = ("queued", "running", "waiting")


def discard(ledger: Ledger, steps: Set[str], item: str | None = None) -> int:
    """Discard what some steps of a batch gave; returns how many images.

    Only of items whose runs are all good, and only what the batch itself made; not what
    somebody marked, or what a run that is not at its end still needs.

    Parameters
    ----------
    steps
        Keys of a flow's steps.
    item
        The one item that is meant; None for all.
    """
    gone = 0
    last = ""
    while steps:
        with ledger.recording() as book:
            rows = _found(ledger, book, item, last)
            chosen = [image for place, image in rows if _bare(place) in steps]
            paths = [image.path for image in chosen]
            for image in chosen:
                book.change(image, state=DISCARDED)
                book.delete(image)
        # Behind the commit: a file without a row that lives is lost by nobody.
        for path in paths:
            remove(Path(path))
        gone += len(paths)
        if len(rows) < _AT_ONCE:
            break
        last = rows[-1][1].id
    return gone


def swept(ledger: Ledger) -> None:
    """Take away files that stayed because a driver was killed after the commit."""
    query = (
        select(Image.path)
        .join(RunOutput, _of_run())
        .join(Run, Run.id == RunOutput.run_id)
        .where(Run.batch_id == ledger.batch_id, Image.state == DISCARDED)
    )
    with ledger.backend.database.reading() as session:
        for path in session.scalars(query).yield_per(_AT_ONCE):
            remove(Path(path))


def remove(path: Path) -> None:
    """Take away an array and what stands beside it."""
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)


def _found(
    ledger: Ledger, book: Book, item: str | None, after: str
) -> list[tuple[str, Image]]:
    """Places and images that may go, in the order of their ids."""
    other = Run.__table__.alias()
    bad = select(other.c.item_key).where(
        other.c.batch_id == ledger.batch_id,
        other.c.state.not_in(("succeeded", "cached")),
    )
    user = Run.__table__.alias()
    needed = (
        select(RunInput.run_id)
        .join(user, user.c.id == RunInput.run_id)
        .where(
            RunInput.object_kind == "image",
            RunInput.object_id == Image.id,
            user.c.state.in_(_OPEN),
        )
    )
    noted = select(Annotation.id).where(
        Annotation.target_kind == "image",
        Annotation.target_id == Image.id,
        Annotation.deleted_at.is_(None),
    )
    marked = select(Roi.id).where(Roi.image_id == Image.id, Roi.deleted_at.is_(None))
    query = (
        select(Run.node_key, Image)
        .join(RunOutput, RunOutput.run_id == Run.id)
        .join(Image, _of_run())
        .where(
            Run.batch_id == ledger.batch_id,
            Run.state == "succeeded",
            Image.deleted_at.is_(None),
            Image.id > after,
            ~or_(exists(needed), exists(noted), exists(marked)),
        )
        .order_by(Image.id)
        .limit(_AT_ONCE)
    )
    if item is None:
        query = query.where(Run.item_key.not_in(bad))
    else:
        query = query.where(Run.item_key == item)
    return [(place, image) for place, image in book.session.execute(query)]


def _of_run() -> ColumnElement[bool]:
    return and_(RunOutput.object_kind == "image", RunOutput.object_id == Image.id)


def _bare(place: str) -> str:
    return place.partition("#")[0]
