"""Steps that another notebook or program does: taken by a lease, kept by a heartbeat.

    from theatrum.catalog.flows.external import serve

    def draw(work):
        return {"line": trace(work.inputs["image"])}

    serve(catalog.backend, "draw-axon", draw)

It serves a catalogue of its own machine as well as one behind a service (over HTTP).
A step that waits is taken by one server at a time. The lease runs out unless its holder
renews it, so that the work of a notebook that was closed goes to another one. Results
come back through the same book as any other run's.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from theatrum.catalog.engine.harvest import harvest
from theatrum.catalog.engine.ledger import Ledger, Wanted
from theatrum.catalog.engine.line import want_again
from theatrum.catalog.engine.work import Done, Ref, environment_hash, failure_of, opened
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.flows.errors import LeaseLost
from theatrum.catalog.flows.standing import external
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import Image, Project, Run, RunInput, now
from theatrum.node import Array, Measure, Outputs, Port

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend
    from theatrum.catalog.remote import RemoteBackend
    from theatrum.catalog.remote_work import RemoteLease

LEASE_S = 30.0


@dataclass
class Lease:
    """One step that this server does now."""

    backend: LocalBackend
    run_id: str
    holder: str
    batch_id: str
    project_id: int
    item: str
    step: str
    refs: Mapping[str, Ref] = field(default_factory=dict)
    gives: Mapping[str, str] = field(default_factory=dict)
    until: float = 0.0
    """When it runs out, in seconds of the epoch."""

    @functools.cached_property
    def inputs(self) -> dict[str, Any]:
        """What goes in, by port: arrays, not yet read."""
        return {
            name: opened(Port(name, "array"), ref) for name, ref in self.refs.items()
        }

    def renew(self, seconds: float = LEASE_S) -> None:
        """Keep it for so many more seconds; raises LeaseLost."""
        with recording(self.backend.database, self.backend.user) as book:
            row = book.session.get(Run, self.run_id)
            if row is None or not self._mine(row):
                raise LeaseLost("this work is another one's now, or was cancelled")
            until = time.time() + seconds
            book.change(row, metrics={**row.metrics, "lease_until": until})
        self.until = until

    def finish(self, **outputs: Any) -> None:
        """Hand results in, by the names of the step's ports; raises LeaseLost."""
        self.renew()
        missing = sorted(set(self.gives) - set(outputs))
        if missing:
            raise CatalogError(f"the step gives {missing[0]!r} as well: hand it in")
        ledger = Ledger(self.backend, self.batch_id, self.project_id)
        # Not in `staging`: a driver that ends its turn meanwhile empties that.
        staging = ledger.folder / "external" / f"{self.run_id}-{secrets.token_hex(4)}"
        try:
            ports = {name: _port(name, value) for name, value in outputs.items()}
            kept = harvest(Outputs(ports, outputs), staging)
            self._end(ledger, Done(self.run_id, "succeeded", kept))
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        """Tell that the step gave nothing, and why."""
        ledger = Ledger(self.backend, self.batch_id, self.project_id)
        self._end(ledger, Done(self.run_id, "failed", failure=failure_of(error)))

    def _end(self, ledger: Ledger, done: Done) -> None:
        wanted = Wanted(
            self.item,
            external,
            {},
            dict(self.refs),
            node_key=self.step,
            run_id=self.run_id,
        )
        told = Done(
            done.run_id,
            done.state,
            done.outputs,
            done.failure,
            time.time(),
            time.time(),
            self.holder,
            environment_hash(),
        )
        ledger.finish([(wanted, told)])
        with ledger.recording() as book:
            want_again(book, self.batch_id)

    def _mine(self, row: Run) -> bool:
        return row.state == "waiting" and row.metrics.get("holder") == self.holder


def lease(
    backend: LocalBackend, served: str, holder: str, seconds: float = LEASE_S
) -> Lease | None:
    """Take the oldest step that waits under a name; None where none does."""
    with recording(backend.database, backend.user) as book:
        rows = book.session.scalars(
            select(Run)
            .where(Run.state == "waiting", Run.engine_key == f"external:{served}")
            .order_by(Run.created_at, Run.id)
            .limit(200)
            # Two servers that ask at once get two steps (PostgreSQL; SQLite has one
            # writer at a time).
            .with_for_update(skip_locked=True)
        )
        for row in rows:
            if float(row.metrics.get("lease_until") or 0) > time.time():
                continue
            project = book.session.get(Project, row.project_id)
            if backend.projects is not None and (
                project is None or project.name not in backend.projects
            ):
                continue
            until = time.time() + seconds
            told = {**row.metrics, "holder": holder, "lease_until": until}
            book.change(row, metrics=told, started_at=row.started_at or now())
            return _lease(backend, book, row, holder)
    return None


def held(backend: LocalBackend, run_id: str, holder: str) -> Lease:
    """A lease that was taken before, for who comes back to it.

    Raises LeaseLost where it is another one's now, or the step is not wanted any more.
    """
    with recording(backend.database, backend.user) as book:
        row = book.session.get(Run, run_id)
        if row is None or row.metrics.get("holder") != holder:
            raise LeaseLost("this work is not yours: take some first")
        if row.state != "waiting":
            raise LeaseLost(f"this work is {row.state}: take other work")
        return _lease(backend, book, row, holder)


def _lease(backend: LocalBackend, book: Book, row: Run, holder: str) -> Lease:
    return Lease(
        backend,
        row.id,
        holder,
        row.batch_id or "",
        row.project_id,
        row.item_key,
        row.node_key,
        _refs(book.session, row),
        dict(row.metrics.get("gives", {})),
        float(row.metrics.get("lease_until") or 0),
    )


@contextlib.contextmanager
def kept(
    work: Lease | RemoteLease, seconds: float = LEASE_S
) -> Iterator[threading.Event]:
    """Renew a lease while its work goes on; the event tells that it was lost."""
    lost, done = threading.Event(), threading.Event()

    def beat() -> None:
        while not done.wait(seconds / 3):
            try:
                work.renew(seconds)
            except LeaseLost:
                lost.set()
                return

    heart = threading.Thread(target=beat, name="theatrum-lease", daemon=True)
    heart.start()
    try:
        yield lost
    finally:
        done.set()
        heart.join(seconds)


def serve(
    backend: LocalBackend | RemoteBackend,
    served: str,
    do: Callable[[Any], Mapping[str, Any]],
    *,
    holder: str = "",
    seconds: float = LEASE_S,
    stop: threading.Event | None = None,
    every_s: float = 1.0,
) -> int:
    """Do the steps that wait under a name, until stopped; returns how many were done.

    Without `stop` it returns as soon as none waits. What `do` raises fails that item
    only. Over a service, `do` is given a `RemoteLease`, which is used alike.
    """
    import os
    import socket

    name = holder or f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"
    done = 0
    while stop is None or not stop.is_set():
        work = _taken(backend, served, name, seconds)
        if work is None:
            if stop is None:
                return done
            stop.wait(every_s)
            continue
        with kept(work, seconds) as lost:
            try:
                outputs = do(work)
                if not lost.is_set():
                    work.finish(**outputs)
                    done += 1
            except LeaseLost:
                continue
            except Exception as error:  # the boundary to whatever serves a step
                work.fail(error)
    return done


def _taken(
    backend: LocalBackend | RemoteBackend, served: str, holder: str, seconds: float
) -> Lease | RemoteLease | None:
    from theatrum.catalog import remote_work

    if isinstance(backend, remote_work.RemoteBackend):
        return remote_work.lease(backend, served, holder, seconds)
    return lease(backend, served, holder, seconds)


def _refs(session: Any, row: Run) -> dict[str, Ref]:
    from theatrum.catalog.engine.keys import ref_of_image

    found = {}
    for one in session.scalars(select(RunInput).where(RunInput.run_id == row.id)):
        if one.object_kind == "image":
            image = session.get(Image, one.object_id)
            names = ("id", "path", "scene", "checksum", "name", "attrs", "plane")
            found[one.port] = ref_of_image(
                {name: getattr(image, name) for name in names}
            )
    return found


def _port(name: str, value: Any) -> Port:
    kind = _kind(value)
    measure = Measure() if kind == "number" else None
    return Port(name, kind, isinstance(value, tuple), measure=measure)


def _kind(value: Any) -> Any:
    from theatrum.node import File, Line, Polygon, Table

    one = value[0] if isinstance(value, tuple) and value else value
    if isinstance(one, bool):
        return "flag"
    if isinstance(one, int | float):
        return "number"
    for kind, form in (
        ("text", str),
        ("file", File),
        ("line", Line),
        ("polygon", Polygon),
        ("table", Table),
        ("array", Array),
    ):
        if isinstance(one, form):
            return kind
    raise CatalogError(f"{type(one).__name__} is nothing that a step gives")
