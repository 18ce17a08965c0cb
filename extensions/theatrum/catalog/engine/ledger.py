"""The book of a batch: what the driver writes and asks.

Only the driver opens the catalogue. Runs get their rows in `entering`, and what came of
them is written in `ending`, each in one transaction with all of a turn's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from theatrum.catalog.engine import keys
from theatrum.catalog.engine.ending import FINAL, GOOD, end
from theatrum.catalog.engine.entering import changed, define, enter
from theatrum.catalog.engine.wanted import Begun, Wanted
from theatrum.catalog.engine.work import Done, Ref, Source, Task, failure_of
from theatrum.catalog.feed import tell
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import (
    Asset,
    Batch,
    DataTable,
    Image,
    NodeDef,
    Run,
    RunOutput,
    now,
)
from theatrum.node import Node

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend

__all__ = ["FINAL", "GOOD", "Begun", "Ledger", "Wanted"]
logger = logging.getLogger("theatrum.catalog")
ASKED_AT_ONCE = 500
"""Items whose runs are looked up by one question."""

# Of an item and a place in the flow: id, state and attempt of its run.
Runs = dict[tuple[str, str], tuple[str, str, int]]


class Ledger:
    """The book of one batch; used by one thread."""

    def __init__(self, backend: LocalBackend, batch_id: str, project_id: int) -> None:
        self.backend = backend
        self.batch_id = batch_id
        self.project_id = project_id
        self.folder = backend.files / "batches" / batch_id
        self.derived = backend.files / "derived"
        self.definitions: dict[str, str] = {}
        """Ids of the definitions that were written down, by digests."""
        self._codes: dict[Node[..., Any], str] = {}

    @property
    def cancel_file(self) -> Path:
        """Once it is there, no run of the batch is wanted any more."""
        return self.folder / "cancelled"

    def recording(self) -> AbstractContextManager[Book]:
        """Open the catalogue's book for one transaction, for the batch's user."""
        backend = self.backend
        return recording(
            backend.database, backend.user, on_behalf_of=backend.on_behalf_of
        )

    # Beginning

    def begin(
        self, wanted: Sequence[Wanted], *, refresh: bool, limits: Task | None = None
    ) -> list[Begun]:
        """Give runs their rows; those that were done before are ended at once.

        Parameters
        ----------
        refresh
            Do all anew, whatever was done before.
        limits
            A task whose time and memory all of these get.
        """
        with self.recording() as book:
            return enter(self, book, wanted, refresh=refresh, limits=limits)

    def code_of(self, node: Node[..., Any]) -> str:
        """The digest of a node's code and interface, computed once."""
        if node not in self._codes:
            self._codes[node] = keys.def_hash(node)
        return self._codes[node]

    # Ending

    def finish(self, ended: Sequence[tuple[Wanted, Done]]) -> None:
        """Write what came of runs; each whole, and once."""
        try:
            with self.recording() as book:
                end(self, book, ended)
        except Exception as error:  # the boundary: one bad result must not take others
            if len(ended) == 1:
                wanted, done = ended[0]
                logger.warning("the result of run %s is refused", wanted.run_id)
                failed = replace(
                    done, state="failed", outputs=(), failure=failure_of(error)
                )
                with self.recording() as book:
                    end(self, book, [(wanted, failed)])
                return
            for one in ended:
                self.finish([one])

    # Asking

    def open_runs(self) -> Runs:
        """All runs by (item, place in the flow): for what is over all items."""
        return self._runs()

    def runs_of(self, items: Sequence[str]) -> Runs:
        """The runs of some items by (item, place in the flow)."""
        return self._runs(Run.item_key.in_(items))

    def _runs(self, *more: Any) -> Runs:
        columns = Run.item_key, Run.node_key, Run.id, Run.state, Run.attempt
        query = select(*columns).where(Run.batch_id == self.batch_id, *more)
        with self.backend.database.reading() as session:
            rows = session.execute(query)
            return {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows}

    def states(self, run_ids: Sequence[str]) -> dict[str, str]:
        """The states of some runs."""
        with self.backend.database.reading() as session:
            query = select(Run.id, Run.state).where(Run.id.in_(list(run_ids)))
            return {row[0]: row[1] for row in session.execute(query)}

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        with self.backend.database.reading() as session:
            rows = session.execute(
                select(Run.state, func.count())
                .where(Run.batch_id == self.batch_id)
                .group_by(Run.state)
            )
            return {str(state): int(count) for state, count in rows}

    def outputs(self, run_id: str) -> dict[str, list[Any]]:
        """What a run gave, by port: sources for other runs, or plain numbers."""
        with self.backend.database.reading() as session:
            run = session.get(Run, run_id)
            if run is None:
                return {}
            origin = run.metrics.get("cached_from") or run_id
            made: dict[str, list[Any]] = {}
            source = session.get(Run, origin)
            for port, value in (
                (source.metrics if source else {}).get("numbers", {}).items()
            ):
                made[port] = [keys.given(value)]
            rows = session.scalars(
                select(RunOutput)
                .where(RunOutput.run_id == origin)
                .order_by(RunOutput.port, RunOutput.position)
            )
            for row in rows:
                found = _source(session, row)
                if found is not None:
                    made.setdefault(row.port, []).append(found)
            return made

    def is_discarded(self, run_id: str) -> bool:
        """Whether an array that a run gave, or that stands for it, was not kept."""
        return any(
            isinstance(one, Ref) and one.gone
            for several in self.outputs(run_id).values()
            for one in several
        )

    def again(self) -> int:
        """Want some runs once more that gave nothing; returns how many, 0 at the end.

        A few hundred in a transaction: others write in between.
        """
        query = select(Run).where(
            Run.batch_id == self.batch_id,
            Run.state.in_(("failed", "cancelled", "skipped")),
        )
        with self.recording() as book, book.session.no_autoflush:
            rows = book.session.scalars(query.limit(ASKED_AT_ONCE)).all()
            for row in rows:
                if row.state == "skipped":
                    # It never began: it gets a row when it does.
                    book.session.delete(row)
                    tell(book.session, book.actor, row, "delete", [])
                else:
                    changed(book, row, state="queued", error=None, ended_at=None)
        return len(rows)

    def unwanted(self) -> None:
        """Cancel what waits for people and programs outside: nobody wants it now."""
        query = select(Run).where(Run.batch_id == self.batch_id, Run.state == "waiting")
        left = True
        while left:
            with self.recording() as book, book.session.no_autoflush:
                rows = book.session.scalars(query.limit(ASKED_AT_ONCE)).all()
                for row in rows:
                    changed(book, row, state="cancelled", ended_at=now())
                left = bool(rows)

    # The batch itself

    def batch(self, **fields: Any) -> None:
        """Change the batch's row."""
        with self.recording() as book:
            book.change(book.get(Batch, self.batch_id), **fields)

    def skip(self, wanted: Iterable[Wanted], why: str) -> None:
        """Write that runs were never begun, and why."""
        with self.recording() as book:
            for one in wanted:
                known = book.session.get(Run, one.run_id) if one.run_id else None
                told = {"class": "Skipped", "message": why}
                if known is not None:
                    book.change(known, state="skipped", error=told, ended_at=now())
                    continue
                code = self.code_of(one.node)
                definition = define(self, book, one.node, code)
                book.run(
                    self.project_id,
                    node=book.get(NodeDef, definition),
                    params=dict(one.params),
                    state="skipped",
                    batch_id=self.batch_id,
                    item_key=one.item_key,
                    node_key=one.node_key,
                    parent_run_id=one.parent,
                    error=told,
                )

    def take_back(self, begun: Iterable[Begun]) -> None:
        """Forget runs that have a row and were not sent: they get one when they are."""
        with self.recording() as book:
            for one in begun:
                row = book.session.get(Run, one.wanted.run_id)
                if row is not None and row.state == "queued":
                    book.delete(row)


def _source(session: Any, row: RunOutput) -> Source | None:
    if row.object_kind == "image":
        image = session.get(Image, row.object_id)
        columns = {
            name: getattr(image, name)
            for name in (
                *("id", "path", "scene", "checksum"),
                *("name", "attrs", "plane", "state"),
            )
        }
        return keys.ref_of_image(columns)
    if row.object_kind == "asset":
        asset = session.get(Asset, row.object_id)
        return Ref("asset", asset.id, asset.uri, 0, asset.sha256, "", asset.media_type)
    if row.object_kind == "data_table":
        table = session.get(DataTable, row.object_id)
        return Ref("data_table", table.id, table.uri, 0, table.sha256, table.name)
    return None
