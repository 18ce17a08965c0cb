"""A batch in a notebook: begun from a query, watched, cancelled, gone on with.

    batch = catalog.images.filter(modality="MR").map(project, how="max")
    batch                      # a bar that moves
    batch.wait()
    batch.counts               # {"succeeded": 970, "failed": 30}
    batch.failures             # which, and why
    batch.results              # a query of the images that it made

The driver works in a thread of this process. Where the process dies, `open_batch(id)`
in another one and `resume()` go on: what ended stays as it is, the rest is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from sqlalchemy import select
from sqlalchemy.orm import aliased

from theatrum.catalog.engine import plans
from theatrum.catalog.engine.addresses import Engine, chosen
from theatrum.catalog.engine.driver import Driver, alone
from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.keys import given, ref_of_image
from theatrum.catalog.engine.ledger import FINAL, GOOD, Ledger
from theatrum.catalog.engine.plans import Item, Planner, Rules
from theatrum.catalog.engine.reaching import reached
from theatrum.catalog.engine.regions import source_of_region
from theatrum.catalog.engine.work import Source
from theatrum.catalog.errors import NotFound
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import recording
from theatrum.catalog.rows import Row
from theatrum.catalog.tables import Batch as BatchRow
from theatrum.catalog.tables import Project, Run, new_id
from theatrum.node import Node

if TYPE_CHECKING:
    from theatrum.catalog.engine.far import RemoteBatch
    from theatrum.catalog.image import CatalogImage
    from theatrum.catalog.local import LocalBackend
    from theatrum.catalog.query.lazy import Query
    from theatrum.catalog.remote import RemoteBackend

logger = logging.getLogger("theatrum.catalog")


class Batch:
    """Many runs under one order; the handle may be thrown away while it works."""

    def __init__(self, backend: LocalBackend, batch_id: str) -> None:
        row = _row(backend, batch_id)
        self.id = batch_id
        self._backend = backend
        self._ledger = Ledger(backend, batch_id, row.project_id)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._live: dict[str, tuple[float, str]] = {}
        self.total = int(row.counts.get("items", 0))

    # Working

    def start(self, engine: Engine | str | None = None) -> Batch:
        """Begin, or go on, in a thread of this process; returns itself."""
        if self._thread is not None and self._thread.is_alive():
            raise BadBatch("This batch is being worked on already.")
        planner, rules = plans.load(self._ledger.folder)
        wanted, close = chosen(engine)
        self._error = None
        self._thread = threading.Thread(
            target=self._drive,
            args=(planner, rules, wanted, close),
            name=f"theatrum-batch-{self.id}",
            daemon=True,
        )
        self._thread.start()
        return self

    def _drive(
        self, planner: Planner, rules: Rules, engine: Engine, close: bool
    ) -> None:
        try:
            with alone(self._ledger.folder):
                pool = reached(engine, self._ledger)
                if pool is None:
                    self._settle()
                else:
                    Driver(self._ledger, planner, rules, pool, self._heard).run()
        except BaseException as error:  # told by wait(); a thread has nobody else
            self._error = error
            logger.debug("batch %s ended early", self.id, exc_info=error)
        finally:
            if close:
                engine.close()

    def wait(self, timeout: float | None = None) -> Batch:
        """Wait until it ended; raises what the driver raised, and TimeoutError."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"The batch is not done: {self.counts}.")
        if self._error is not None:
            raise self._error
        return self

    def resume(self, engine: Engine | str | None = None) -> Batch:
        """Go on after the process that drove it died: only what did not end is done."""
        self._ledger.cancel_file.unlink(missing_ok=True)
        return self.start(engine)

    def retry(self, engine: Engine | str | None = None) -> Batch:
        """Do once more what failed, was cancelled or skipped."""
        self.again()
        return self.start(engine)

    def again(self) -> None:
        """Want once more what failed, was cancelled or skipped; `resume` does it."""
        self._ledger.cancel_file.unlink(missing_ok=True)
        while self._ledger.again():
            pass

    def cancel(self) -> None:
        """Stop it: running nodes are told, stuck ones of their own process killed."""
        self._ledger.folder.mkdir(parents=True, exist_ok=True)
        self._ledger.cancel_file.touch()
        if not self.running or self.state == "queued":
            self._settle()

    def _settle(self) -> None:
        """Where nobody drives it here: say that it is cancelled, unless it ended."""
        if self.state not in ("queued", "running", "waiting"):
            return
        self._ledger.batch(state="cancelled", reason="")
        self._ledger.unwanted()

    def start_and_close(self, engine: Engine, close: bool) -> None:
        """Begin, and close the engine at the end where it was opened for this alone."""
        self.start(engine)
        if close:
            threading.Thread(
                target=_close_after, args=(self._thread, engine), daemon=True
            ).start()

    def rerun(self, step: str, **given: Any) -> Batch:
        """Do a flow's batch again from a step on; see `flows.running.rerun`."""
        from theatrum.catalog.flows.running import rerun

        return rerun(self, step, **given)

    @property
    def reviews(self) -> list[dict[str, Any]]:
        """What waits for a person."""
        from theatrum.catalog.flows.running import reviews

        return reviews(self.backend, self.id)

    def review(self, run_id: str, *, approve: bool, comment: str = "") -> None:
        """Let an item pass, or not; `resume` goes on with those that passed."""
        from theatrum.catalog.flows.running import answer

        answer(self.backend, run_id, approve=approve, comment=comment)

    # Looking

    @property
    def backend(self) -> LocalBackend:
        """The catalogue that it is in."""
        return self._backend

    @property
    def folder(self) -> Path:
        """Where its plan lies."""
        return self._ledger.folder

    @property
    def state(self) -> str:
        """queued, running, waiting (for people), succeeded, failed or cancelled.

        `succeeded` is a batch that came to its end; single items may have failed.
        """
        return str(_row(self._backend, self.id).state)

    @property
    def reason(self) -> str:
        """Why it waits (an engine that does not answer), or failed; else ""."""
        return str(_row(self._backend, self.id).reason)

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        return self._ledger.counts()

    @property
    def running(self) -> bool:
        """Whether this process works on it."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def progress(self) -> float:
        """The share of the items that ended, 0 to 1; parts of running ones count."""
        counts = self.counts
        ended = sum(count for state, count in counts.items() if state in FINAL)
        with self._lock:
            parts = sum(share for share, _ in self._live.values())
        whole = max(self.total, sum(counts.values()), 1)
        return min(1.0, (ended + parts) / whole)

    @property
    def elapsed_s(self) -> float:
        """The seconds that it took, or takes until now."""
        return elapsed_s(_row(self._backend, self.id))

    @property
    def live(self) -> dict[str, tuple[float, str]]:
        """Of the runs that tell it: how far each is, and what it does."""
        with self._lock:
            return dict(self._live)

    @property
    def runs(self) -> Query[Any]:
        """Its runs, as a query."""
        return self._query(Spec("runs", (Q(batch_id=self.id),)))

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Of each run that failed its item, its place in the flow, and why."""
        with self._backend.database.reading() as session:
            rows = session.scalars(
                select(Run)
                .where(Run.batch_id == self.id, Run.state == "failed")
                .order_by(Run.item_key)
            )
            return [
                {
                    "item": row.item_key,
                    "node": row.node_key,
                    "run": row.id,
                    "attempt": row.attempt,
                    **(row.error or {}),
                }
                for row in rows
            ]

    @property
    def results(self) -> Query[CatalogImage]:
        """The images that it made, or that an earlier run made for it."""
        with self._backend.database.reading() as session:
            rows = session.scalars(
                select(Run.metrics).where(
                    Run.batch_id == self.id, Run.state == "cached"
                )
            )
            # Of what was done in this batch no list is made: it may be very long.
            found = tuple(str(metrics["cached_from"]) for metrics in rows)
        mine = Q(run__batch_id=self.id)
        where = mine | Q(run_id__in=found) if found else mine
        return self._query(Spec("images", (where,)))

    def numbers(self) -> list[dict[str, Any]]:
        """Of each run its item and the numbers that it gave, for a data frame."""
        origin = aliased(Run)
        of_origin = Run.metrics["cached_from"].as_string() == origin.id
        query = (
            select(Run.item_key, Run.node_key, Run.id, Run.metrics, origin.metrics)
            .outerjoin(origin, of_origin)
            .where(Run.batch_id == self.id, Run.state.in_(GOOD))
            .order_by(Run.item_key)
        )
        with self._backend.database.reading() as session:
            return [
                {
                    "item": item,
                    "node": place,
                    "run": run_id,
                    **(first or metrics).get("numbers", {}),
                }
                for item, place, run_id, metrics, first in session.execute(query)
            ]

    def _query(self, spec: Spec) -> Query[Any]:
        from theatrum.catalog.query.lazy import Query
        from theatrum.catalog.rows import maker

        return Query(self._backend, spec, maker(spec.of))

    def _heard(self, run_id: str, share: float, text: str) -> None:
        with self._lock:
            if share >= 1:
                self._live.pop(run_id, None)
            else:
                self._live[run_id] = (share, text)
                while len(self._live) > 256:
                    self._live.pop(next(iter(self._live)))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        why = f" ({reason})" if (reason := self.reason) else ""
        return f"<batch {self.id} {self.state}: {counts or 'nothing begun'}{why}>"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        # A widget where there is a kernel to move it, else the text.
        from theatrum.catalog.engine.progress import shown

        return shown(self)


@overload
def open_batch(backend: LocalBackend, batch_id: str) -> Batch: ...
@overload
def open_batch(backend: RemoteBackend, batch_id: str) -> RemoteBatch: ...
def open_batch(
    backend: LocalBackend | RemoteBackend, batch_id: str
) -> Batch | RemoteBatch:
    """Return a batch of the catalogue, here or behind a service; raises NotFound."""
    from theatrum.catalog.remote import RemoteBackend

    if isinstance(backend, RemoteBackend):
        from theatrum.catalog.engine.far import RemoteBatch

        return RemoteBatch(backend, batch_id)
    return Batch(backend, batch_id)


def create(
    backend: LocalBackend,
    planner: Planner,
    items: Iterator[Item],
    rules: Rules,
    *,
    project_id: int,
    name: str = "",
    query: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    engine: str = "",
    flow_id: str | None = None,
) -> Batch:
    """Write a new batch down, with its plan; nothing is run yet."""
    key = new_id()
    folder = backend.files / "batches" / key
    count = plans.save(folder, planner, rules, items)
    with recording(
        backend.database, backend.user, on_behalf_of=backend.on_behalf_of
    ) as book:
        book.add(
            BatchRow(
                id=key,
                project_id=project_id,
                name=name,
                flow_id=flow_id,
                query=dict(query or {}),
                params=_plain(params or {}),
                engine={"address": engine, "rules": asdict(rules)},
                requested_by=backend.user,
                counts={"items": count},
            )
        )
    return Batch(backend, key)


def map_query(
    query: Query[Any],
    node: Any,
    *,
    engine: Engine | str | None = None,
    by: str | None = None,
    project: str | None = None,
    name: str = "",
    kind: str = "",
    mode: str = "wide",
    start: bool = True,
    parameters: Mapping[str, Any] | None = None,
    **given_values: Any,
) -> Batch:
    """Run a node on every image that a query finds; see `Query.map`."""
    backend = local_of(query)
    used = as_node(node)
    rules, rest = rules_of(given_values)
    rest |= parameters or {}
    fixed = {
        port: sources_of(value)
        for port, value in rest.items()
        if port in used.inputs and value is not None
    }
    params = {key: value for key, value in rest.items() if key not in used.inputs}
    planner = plans.one_node(used, params, fixed, kind)
    many = used.inputs[planner.port].many
    if by is not None:  # what is misspelt is told, whether the node takes one or many
        backend.compiler.rows(replace(query.spec, values=(by,)))
    items = grouped(query, by) if many else single(query)
    project_id = project_of(backend, query, project)
    wanted, close = chosen(engine)
    batch = create(
        backend,
        planner,
        items,
        rules,
        project_id=project_id,
        name=name or used.title,
        query=query.to_json(),
        params=planner.params,
        engine=str(wanted.address),
    )
    if mode == "deep":
        from theatrum.catalog.engine.deep import Deep

        wanted, close = Deep(wanted, close), True
    elif mode != "wide":
        raise BadBatch(
            'mode is "wide" (many images) or "deep" (each over all workers).'
        )
    if start:
        batch.start_and_close(wanted, close)
    return batch


def _close_after(thread: threading.Thread | None, engine: Engine) -> None:
    if thread is not None:
        thread.join()
    engine.close()


def rules_of(values: Mapping[str, Any]) -> tuple[Rules, dict[str, Any]]:
    """Part the words of `map` into how to run, and what goes to the node."""
    names = Rules.__dataclass_fields__
    told = {name: value for name, value in values.items() if name in names}
    rules = Rules(**told)
    if rules.on_error not in ("continue", "stop", "threshold"):
        raise BadBatch("on_error is continue, stop or threshold.")
    if not 0 <= rules.threshold <= 1:
        raise BadBatch("threshold is a share, from 0 to 1.")
    return rules, {name: value for name, value in values.items() if name not in names}


def sources_of(value: Any) -> Source | tuple[Source, ...]:
    """Return a value as what goes into a run: an image's or region's row, or itself.

    Of a region of the catalogue its geometry goes in. Raises BadBatch for one that is
    no area and no line.
    """
    if isinstance(value, list | tuple):
        found = [sources_of(one) for one in value]
        return tuple(one for one in found if not isinstance(one, tuple))
    if hasattr(value, "to_dict") and hasattr(value, "level"):
        return ref_of_image(value.to_dict())
    if isinstance(value, Row) and value._table == "roi":
        return source_of_region(value)
    return given(value)


def as_node(function: Any) -> Node[..., Any]:
    """Return a node; a plain function of one array becomes one, with a warning."""
    import warnings

    from theatrum.node import node

    if isinstance(function, Node):
        return function
    if not callable(function):
        raise BadBatch(f"{function!r} is no node and no function.")
    warnings.warn(
        "This function is no node: it travels as it is now, and its source is kept "
        "with the run. Write @node above it, in a file, to give it a version.",
        UserWarning,
        stacklevel=4,
    )
    if getattr(function, "__annotations__", None):
        return node(function)
    from theatrum.catalog.engine.plain import plain_node

    return plain_node(function)


def single(query: Query[Any]) -> Iterator[Item]:
    """Yield the images of a query, each by itself."""
    for key in _ids(query):
        yield Item(key, (key,))


def grouped(query: Query[Any], by: str | None) -> Iterator[Item]:
    """Yield the images of a query by the values of a column; all in one without."""
    if by is None:
        ids = tuple(_ids(query))
        if ids:
            yield Item("all", ids)
        return
    groups: dict[str, list[str]] = {}
    for row in query.values("id", by):
        groups.setdefault(str(row[by]), []).append(row["id"])
    for key in sorted(groups):
        yield Item(key[:128], tuple(groups[key]))


def _ids(query: Query[Any]) -> Iterator[str]:
    for row in query.values("id"):
        yield row["id"]


def project_of(backend: LocalBackend, query: Query[Any], named: str | None) -> int:
    """The project that the results go to: named, or the one of all of the images."""
    from theatrum.catalog.writing import project_for

    if named is None:
        names = query.values("project__name")
        if not (query.spec.offset or query.spec.limit is not None):
            names = names.order_by().distinct()
        found = {row["project__name"] for row in names}
        if len(found) > 1:
            raise BadBatch(
                "These images are of several projects: say which one the results go "
                f"to, as project=. They are of {', '.join(sorted(found))}."
            )
        if not found:
            raise BadBatch("The query finds no image.")
        named = found.pop()
    with recording(backend.database, backend.user) as book:
        return int(project_for(backend, book, named).id)


def local_of(query: Query[Any]) -> LocalBackend:
    """The database behind a query of images; raises BadBatch where there is none."""
    from theatrum.catalog.local import LocalBackend

    if query.spec.of != "images":
        raise BadBatch(f"A node takes images, and this query finds {query.spec.of}.")
    backend = query._backend
    if not isinstance(backend, LocalBackend):
        raise BadBatch(
            "Only who holds the catalogue writes it: over the network, order the batch "
            "from the service (POST /api/v1/batches), or connect to the home."
        )
    return backend


def _row(backend: LocalBackend, batch_id: str) -> BatchRow:
    with backend.database.reading() as session:
        row = session.get(BatchRow, batch_id)
        if row is None:
            raise NotFound(f"there is no batch {batch_id}")
        if backend.projects is not None:
            project = session.get(Project, row.project_id)
            if project is None or project.name not in backend.projects:
                raise NotFound(f"there is no batch {batch_id}")
        return row


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    import json

    return dict(json.loads(json.dumps(dict(params), default=str)))


def elapsed_s(row: BatchRow) -> float:
    """Return the seconds that a batch took, or takes until now."""
    if row.started_at is None:
        return 0.0
    end = row.ended_at.timestamp() if row.ended_at else time.time()
    return end - row.started_at.timestamp()
