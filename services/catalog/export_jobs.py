"""Exports that are too large to wait for: made by a thread of the service, durably.

A job is a row of `batch` with a file beside it (`asset`, role `export`); it outlives
the service. What a kill interrupts goes on at the next start: at the byte where it
stopped, where the size of the whole is known, else from the beginning. A job belongs
to who asked for it; what they may no longer export they cannot fetch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select
from theatrum.catalog.errors import CatalogError, NotFound
from theatrum.catalog.exchange import exporting
from theatrum.catalog.exchange.zips import Archive
from theatrum.catalog.formats.scene import Scene
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Spec, spec_from_json
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Asset, Batch, Project, new_id, now

from hub.durable.database import Database

ENGINE: Final = "export"
KEPT: Final = timedelta(days=7)
"""How long a finished export can be fetched."""
_SYNCED: Final = 64 * 2**20
"""Bytes between two looks at what somebody decided meanwhile."""
_IDLE_S: Final = 300.0


@dataclass(frozen=True)
class Order:
    """What somebody wants to have exported.

    Attributes
    ----------
    projects
        Ids of the projects that they may export, when they asked.
    """

    spec: Spec
    what: str
    options: Mapping[str, Any]
    projects: Sequence[int]
    person: str


class Cancelled(CatalogError):
    """Somebody cancelled the job while it ran."""


@dataclass
class Exports:
    """The jobs of a service, and the thread that works on them."""

    database: Database
    files: Path
    scenes: Callable[[str, int], Scene] | None = None
    """Opens images for the thread; None to open them in this process."""
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopping: bool = False
    _cancelled: set[str] = field(default_factory=set)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work, with what was interrupted first."""
        self.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._work, name="exports", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the job at hand where it is; the next start goes on with it."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def order(self, order: Order, tag: str, size: int | None) -> Batch:
        """Put a job in line; the one that is there already where it is the same."""
        with recording(self.database, order.person) as book:
            for known in book.session.scalars(
                select(Batch).where(
                    Batch.requested_by == order.person,
                    Batch.state.in_(("queued", "running", "succeeded")),
                )
            ):
                if known.engine == {"kind": ENGINE, "tag": tag}:
                    return known
            job = book.add(
                Batch(
                    id=new_id(),
                    project_id=min(order.projects),
                    name=f"export of {order.what}",
                    query=order.spec.to_json(),
                    params={
                        "what": order.what,
                        "options": dict(order.options),
                        # By number: names of projects are not everybody's to read.
                        "projects": sorted(order.projects),
                    },
                    engine={"kind": ENGINE, "tag": tag},
                    requested_by=order.person,
                    counts={"bytes": 0, "of": size},
                )
            )
        self._wake.set()
        return job

    def find(self, key: str, person: str) -> Batch:
        """A person's own job; raises NotFound."""
        with self.database.reading() as session:
            job = session.get(Batch, key)
            if job is None or job.requested_by != person or not _is_export(job):
                raise NotFound("there is no such export of yours")
            return job

    def of(self, person: str) -> list[Batch]:
        """A person's jobs, the newest first."""
        with self.database.reading() as session:
            asked = select(Batch).where(Batch.requested_by == person)
            jobs = session.scalars(asked.order_by(Batch.created_at.desc()).limit(500))
            return [job for job in jobs if _is_export(job)]

    def cancel(self, key: str, person: str) -> None:
        """Stop a job, and forget what it made."""
        self.find(key, person)
        self._cancelled.add(key)
        with recording(self.database, person) as book:
            job = book.get(Batch, key)
            if job.state in ("queued", "running", "succeeded"):
                book.change(job, state="cancelled", ended_at=now())
        self._wake.set()
        if job.state == "cancelled":
            self._forget(key)

    def path(self, key: str) -> Path:
        """Where a job's file lies when it is whole."""
        return self.files / f"{key}.zip"

    # The thread

    def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            job = self._next()
            if job is None:
                self._forget_old()
                self._wake.wait(_IDLE_S)
                continue
            try:
                self._make(job)
            except Cancelled:
                self._forget(job.id)
            except Exception as error:
                # The boundary: whatever an image's reader fails with is this job's
                # fault alone, and the next in line goes on.
                said = str(error) if isinstance(error, CatalogError) else ""
                self._settle(job, "failed", reason=said or type(error).__name__)
                self._partial(job.id).unlink(missing_ok=True)

    def _next(self) -> Batch | None:
        with self.database.reading() as session:
            asked = select(Batch).where(Batch.state.in_(("running", "queued")))
            jobs = session.scalars(asked.order_by(Batch.created_at))
            return next((job for job in jobs if _is_export(job)), None)

    def _make(self, job: Batch) -> None:
        self._settle(job, "running")
        archive, tag = self._laid_out(job)
        partial = self._partial(job.id)
        begun = partial.stat().st_size if partial.exists() else 0
        # What is as it was goes on where it stopped; anything else begins anew.
        is_same = tag == job.engine["tag"] and archive.size is not None
        begin = begun if is_same and begun <= (archive.size or 0) else 0
        with partial.open("r+b" if begun else "wb") as file:
            file.truncate(begin)
            file.seek(begin)
            done = told = begin
            for block in archive.stream(begin):
                if job.id in self._cancelled:
                    raise Cancelled(job.id)
                if self._stopping:
                    return
                file.write(block)
                done += len(block)
                if done - told >= _SYNCED:
                    told = done
                    self._settle(job, "running", done=done)
            file.flush()
            os.fsync(file.fileno())
        whole = self.path(job.id)
        partial.rename(whole)
        self._settle(job, "succeeded", done=done)
        with recording(self.database, job.requested_by) as book:
            book.asset(
                book.get(Batch, job.id),
                role="export",
                uri=str(whole),
                size=done,
                media_type="application/zip",
            )

    def _laid_out(self, job: Batch) -> tuple[Archive, str]:
        with self.database.reading() as session:
            wanted = Project.id.in_(job.params["projects"])
            names = frozenset(session.scalars(select(Project.name).where(wanted)))
        backend = LocalBackend(
            self.database,
            self.files,
            job.requested_by,
            names,
            frozenset(),
            scenes=self.scenes,
        )
        spec = spec_from_json(job.query)
        what, options = job.params["what"], job.params["options"]
        members = exporting.members(backend, spec, what, options)
        said = {"what": what, "options": options}
        return Archive(members), exporting.tag_of(members, said)

    def _settle(
        self, job: Batch, state: str, *, done: int | None = None, reason: str = ""
    ) -> None:
        with recording(self.database, job.requested_by) as book:
            row = book.get(Batch, job.id)
            if row.state == "cancelled":
                raise Cancelled(job.id)
            counts = dict(row.counts)
            if done is not None:
                counts["bytes"] = done
            if reason:
                counts["reason"] = reason
            moments: dict[str, Any] = {}
            if state == "running" and row.started_at is None:
                moments["started_at"] = now()
            if state in ("succeeded", "failed"):
                moments["ended_at"] = now()
            book.change(row, state=state, counts=counts, **moments)

    def _forget(self, key: str) -> None:
        self._partial(key).unlink(missing_ok=True)
        self.path(key).unlink(missing_ok=True)

    def _partial(self, key: str) -> Path:
        return self.files / f".{key}.partial"

    def _forget_old(self) -> None:
        """Give back the disk: files of a week ago, and what nobody waits for."""
        with self.database.reading() as session:
            old = session.scalars(
                select(Asset).where(
                    Asset.role == "export",
                    Asset.owner_kind == "batch",
                    Asset.deleted_at.is_(None),
                    Asset.created_at < now() - KEPT,
                )
            ).all()
        for asset in old:
            Path(asset.uri).unlink(missing_ok=True)
            with recording(self.database, "catalog") as book:
                book.delete(book.get(Asset, asset.id))
                job = book.session.get(Batch, asset.owner_id)
                if job is not None:
                    book.change(job, state="cancelled")


def _is_export(job: Batch) -> bool:
    return bool(job.engine) and job.engine.get("kind") == ENGINE
