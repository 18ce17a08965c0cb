"""One run of a batch by itself: stopped while the others go on, or done once more.

What somebody decides stands in the run's row and, for code that looks at its context,
in a file beside the batch's plan. The driver finds the row ended when the result comes
back, and throws that away; what follows on the run is skipped as after any failure.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sqlalchemy import select

from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.ledger import FINAL, Ledger
from theatrum.catalog.engine.work import stop_file
from theatrum.catalog.errors import NotFound
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import Batch, Run, now
from theatrum.catalog.writing import project_for

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend


def cancel_run(backend: LocalBackend, run_id: str) -> None:
    """Stop one run; the others of its batch go on.

    Raises
    ------
    NotFound, NotAllowed
        Where it is not the user's to change.
    BadBatch
        Where it ended already.
    """
    with _recording(backend) as book:
        run, batch = _found(backend, book, run_id)
        if run.state in FINAL:
            raise BadBatch(f"This run ended already: it {_ENDED[run.state]}.")
        if batch is not None:
            cancel_file = _ledger(backend, batch).cancel_file
            cancel_file.parent.mkdir(parents=True, exist_ok=True)
            stop_file(cancel_file, run.id).touch()
        told = {"class": "Cancelled", "message": f"cancelled by {backend.user}"}
        book.change(run, state="cancelled", error=told, ended_at=now())
        book.run_event(run, "state", "cancelled")


def again_run(backend: LocalBackend, run_id: str) -> None:
    """Want once more a run that failed or was cancelled, and what it kept from being
    done; the batch does it when it is gone on with.

    Raises
    ------
    NotFound, NotAllowed
        Where it is not the user's to change.
    BadBatch
        Where there is nothing to do again, or nothing says how.
    """
    with _recording(backend) as book:
        run, batch = _found(backend, book, run_id)
        if batch is None:
            raise BadBatch("This run is of no batch: nothing says how to do it again.")
        if run.state not in ("failed", "cancelled"):
            said = _ENDED.get(run.state, f"is {run.state}")
            raise BadBatch(f"Only what failed or was cancelled is retried: it {said}.")
        cancel_file = _ledger(backend, batch).cancel_file
        if cancel_file.exists():
            raise BadBatch("Its whole batch was cancelled: retry the batch.")
        stop_file(cancel_file, run.id).unlink(missing_ok=True)
        skipped = select(Run).where(
            Run.batch_id == batch.id,
            Run.item_key == run.item_key,
            Run.state == "skipped",
        )
        for row in book.session.scalars(skipped).all():
            book.delete(row)  # it never began: it gets a row when it does
        book.change(run, state="queued", error=None, ended_at=None)
        book.run_event(run, "state", "queued")


_ENDED = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "was cancelled",
    "skipped": "was skipped, because what comes before it gave nothing",
    "cached": "was done before",
}


def _found(backend: LocalBackend, book: Book, run_id: str) -> tuple[Run, Batch | None]:
    run = book.session.get(Run, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    project_for(backend, book, run.project_id)
    batch = book.session.get(Batch, run.batch_id) if run.batch_id else None
    return run, batch


def _ledger(backend: LocalBackend, batch: Batch) -> Ledger:
    return Ledger(backend, batch.id, batch.project_id)


def _recording(backend: LocalBackend) -> AbstractContextManager[Book]:
    return recording(backend.database, backend.user, on_behalf_of=backend.on_behalf_of)
