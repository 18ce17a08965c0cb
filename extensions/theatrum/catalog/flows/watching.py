"""A flow that is attached to what comes in: the same definition, live.

    live = Live(catalog.images.filter(modality="MR"), flow)
    live.run(stop)                 # until the event `stop` is set

Each look asks the query anew and begins a batch with the images that this flow has not
had yet: a watched folder (`theatrum catalog ingest --watch`), a scanner that sends, a
colleague who uploads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from theatrum.catalog.engine.batch import Batch, local_of
from theatrum.catalog.engine.plans import items_of
from theatrum.catalog.flows.running import run_flow
from theatrum.catalog.tables import Batch as BatchRow
from theatrum.catalog.tables import Run

if TYPE_CHECKING:
    from theatrum.catalog.flows.graph import Flow
    from theatrum.catalog.query.lazy import Query


class Live:
    """A query and the flow that its images go through, as they come."""

    def __init__(self, query: Query[Any], flow: Flow, **given: Any) -> None:
        """`given` is what `run_flow` takes."""
        self._query, self._flow, self._given = query, flow, given
        self._name = f"live {flow.name} {flow.def_hash[:12]}"
        self._backend = local_of(query)

    def seen(self) -> set[str]:
        """The images that were begun with, by this flow as it is."""
        with self._backend.database.reading() as session:
            batches = session.scalars(
                select(BatchRow.id).where(BatchRow.name == self._name)
            ).all()
            found = set(
                session.scalars(select(Run.item_key).where(Run.batch_id.in_(batches)))
            )
        for batch in batches:
            folder = self._backend.files / "batches" / batch
            if (folder / "items.jsonl").exists():
                found |= {one.key for one in items_of(folder)}
        return found

    def poll(self) -> Batch | None:
        """Look once: the batch of what is new, or None."""
        known = self.seen()
        fresh = [
            row["id"] for row in self._query.values("id") if row["id"] not in known
        ]
        if not fresh:
            return None
        some = self._query.filter(id__in=fresh[:5000])
        return run_flow(some, self._flow, name=self._name, **self._given)

    def run(self, stop: threading.Event, every_s: float = 5.0) -> Iterator[Batch]:
        """Look again and again until `stop` is set; yields each batch when it ended."""
        while not stop.is_set():
            batch = self.poll()
            if batch is not None:
                yield batch.wait()
            else:
                stop.wait(every_s)
