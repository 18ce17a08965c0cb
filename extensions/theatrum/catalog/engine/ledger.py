"""What the driver writes: batches, runs, and what came of them.

Only the driver opens the catalogue. A run's files are moved from staging into
`derived/` under names that follow from the run, then its rows are written in one
transaction with the run's end. Killed in between, the run is not ended, is done again,
and puts its files over those that nobody points at: nothing is lost, nothing is there
twice.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from theatrum.catalog.engine import keys
from theatrum.catalog.engine.harvest import Kept
from theatrum.catalog.engine.work import Done, Ref, Source, Task, environment_hash
from theatrum.catalog.facts import digest_of
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import (
    Asset,
    Batch,
    DataTable,
    Image,
    NodeDef,
    Project,
    Run,
    RunOutput,
    new_id,
    now,
)
from theatrum.node import Node

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend

logger = logging.getLogger("theatrum.catalog")
FINAL = frozenset({"succeeded", "failed", "cancelled", "skipped", "cached"})
GOOD = frozenset({"succeeded", "cached"})


@dataclass(frozen=True)
class Wanted:
    """One run that shall be: which node on what, for which item, where in a flow."""

    item_key: str
    node: Node[..., Any]
    params: Mapping[str, Any]
    inputs: Mapping[str, Source | tuple[Source, ...]]
    node_key: str = ""
    parent: str | None = None
    run_id: str = ""
    attempt: int = 1
    kind: str = ""
    waits: str = ""
    """For whom it waits, in place of a worker: `review`, `external`."""
    anew: bool = False
    """It is done even where an earlier run did the same."""


@dataclass(frozen=True)
class Begun:
    """A run that has a row: its task, or what an earlier run's outputs are."""

    wanted: Wanted
    task: Task
    cached: bool = False
    waiting: bool = False


class Ledger:
    """The book of one batch; used by one thread."""

    def __init__(self, backend: LocalBackend, batch_id: str, project_id: int) -> None:
        self.backend = backend
        self.batch_id = batch_id
        self.project_id = project_id
        self.folder = backend.files / "batches" / batch_id
        self.derived = backend.files / "derived"
        self._definitions: dict[str, str] = {}

    @property
    def cancel_file(self) -> Path:
        """Once it is there, no run of the batch is wanted any more."""
        return self.folder / "cancelled"

    def _recording(self) -> Any:
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
        begun: list[Begun] = []
        with self._recording() as book:
            for one in wanted:
                begun.append(self._begun(book, one, refresh, limits))
        return begun

    def _begun(
        self, book: Book, one: Wanted, refresh: bool, limits: Task | None
    ) -> Begun:
        code = keys.def_hash(one.node)
        params = digest_of(dict(one.params))
        inputs = keys.input_hash(one.inputs)
        key = keys.cache_key(code, params, inputs, environment_hash())
        pure = one.node.pure
        found = None
        if pure and not (refresh or one.anew):
            found = self._done_before(book, key)
        run_id = one.run_id or new_id()
        one = replace(one, run_id=run_id)
        if one.waits:
            return self._waiting(book, one, code)
        fields: dict[str, Any] = {
            "cache_key": key if pure else "",
            "params_hash": params,
            "input_hash": inputs,
            "env_hash": environment_hash(),
            "attempt": one.attempt,
            "code_version": one.node.version,
            "state": "cached" if found else "queued",
            "metrics": {"cached_from": found} if found else {},
            "engine_key": "",
            "error": None,
        }
        row = book.session.get(Run, run_id)
        moment = now()
        if row is not None:
            times = {"started_at": moment, "ended_at": moment if found else None}
            book.change(row, **(fields | times))
        else:
            fields.pop("params_hash")
            row = book.run(
                self.project_id,
                node=self._definition(book, one.node, code),
                params=dict(one.params),
                id=run_id,
                batch_id=self.batch_id,
                item_key=one.item_key,
                node_key=one.node_key,
                parent_run_id=one.parent,
                **fields,
            )
            self._inputs(book, row, one)
        book.run_event(row, "state", str(fields["state"]))
        staging = self.folder / "staging" / f"{run_id}-{one.attempt}"
        task = Task(
            run_id,
            one.node,
            one.params,
            one.inputs,
            staging,
            self.cancel_file,
            limits.timeout_s if limits else 0.0,
            limits.memory_bytes if limits else 0,
        )
        return Begun(one, task, found is not None)

    def _waiting(self, book: Book, one: Wanted, code: str) -> Begun:
        """Write down a run that somebody else does: a person, another program."""
        served = str(one.params.get("served", ""))
        key = f"{one.waits}:{served}" if served else one.waits
        gives = one.params.get("gives", {})
        if book.session.get(Run, one.run_id) is None:
            row = book.run(
                self.project_id,
                node=self._definition(book, one.node, code),
                params={},
                state="waiting",
                id=one.run_id,
                batch_id=self.batch_id,
                item_key=one.item_key,
                node_key=one.node_key,
                engine_key=key,
                metrics={"gives": dict(gives)} if gives else {},
            )
            self._inputs(book, row, one)
            book.run_event(row, "state", "waiting")
        else:
            row = book.get(Run, one.run_id)
            book.change(row, state="waiting", error=None, ended_at=None)
        nothing = Task(one.run_id, one.node, {}, {}, self.folder, self.cancel_file)
        return Begun(one, nothing, waiting=True)

    def _definition(self, book: Book, node: Node[..., Any], code: str) -> NodeDef:
        known = self._definitions.get(code)
        if known is not None:
            return book.get(NodeDef, known)
        kinds = {"notebook": "notebook", "container": "container"}
        schema = node.parameters
        # What ships is everybody's; what somebody wrote, with its source, is theirs.
        ships = (node.address or "").startswith("theatrum.")
        defined = book.node_def(
            project_id=None if ships else self.project_id,
            name=node.name,
            def_hash=code,
            version=node.version,
            namespace=(node.address or "notebook").partition(":")[0],
            title=node.title,
            kind=kinds.get(node.kind, "python"),
            entrypoint=node.address or "",
            ports_in=[keys.described(one) for one in node.inputs.values()],
            ports_out=[keys.described(one) for one in node.outputs.values()],
            params_schema=schema,
            defaults={
                name: one["default"]
                for name, one in schema.get("properties", {}).items()
                if "default" in one
            },
            resources={
                "memory_bytes": node.resources.memory_bytes,
                "seconds": node.resources.seconds,
                "processors": node.resources.processors,
            },
            env={"hash": environment_hash()},
            pure=node.pure,
            source=keys.source_of(node),
        )
        self._definitions[code] = defined.id
        return defined

    def _done_before(self, book: Book, key: str) -> str | None:
        """The run of this project that did the same; its files are still there."""
        query = (
            select(Run.id)
            .where(
                Run.cache_key == key,
                Run.state == "succeeded",
                Run.project_id == self.project_id,
            )
            .order_by(Run.created_at.desc())
        )
        for run_id in book.session.scalars(query.limit(3)):
            if self._whole(book, run_id):
                return str(run_id)
        return None

    def _whole(self, book: Book, run_id: str) -> bool:
        for row in book.session.scalars(
            select(RunOutput).where(RunOutput.run_id == run_id)
        ):
            made: Any = None
            if row.object_kind == "image":
                made = book.session.get(Image, row.object_id)
            elif row.object_kind == "asset":
                made = book.session.get(Asset, row.object_id)
            elif row.object_kind == "data_table":
                made = book.session.get(DataTable, row.object_id)
            else:
                continue
            if made is None or made.deleted_at is not None:
                return False
            if not Path(getattr(made, "path", None) or made.uri).exists():
                return False
        return True

    def _inputs(self, book: Book, row: Run, one: Wanted) -> None:
        tables = {"image": Image, "asset": Asset, "data_table": DataTable}
        for port, sources in one.inputs.items():
            several = sources if isinstance(sources, tuple) else (sources,)
            for position, source in enumerate(several):
                if isinstance(source, Ref) and source.kind in tables:
                    made = book.session.get(tables[source.kind], source.id)
                    if made is not None:
                        book.input(
                            row,
                            port,
                            made,
                            position=position,
                            checksum=source.checksum[:64],
                        )

    # Ending

    def finish(self, ended: Sequence[tuple[Wanted, Done]]) -> None:
        """Write what came of runs; each whole, and once."""
        try:
            with self._recording() as book:
                for wanted, done in ended:
                    self._finish(book, wanted, done)
        except Exception as error:  # the boundary: one bad result must not take others
            if len(ended) == 1:
                wanted, done = ended[0]
                logger.warning("the result of run %s is refused", wanted.run_id)
                failed = replace(
                    done, state="failed", outputs=(), failure=_refusal(error)
                )
                with self._recording() as book:
                    self._finish(book, wanted, failed)
                return
            for one in ended:
                self.finish([one])

    def _finish(self, book: Book, wanted: Wanted, done: Done) -> None:
        row = book.session.get(Run, wanted.run_id)
        if row is None or row.state in FINAL:
            return  # told twice: the first time counts
        numbers = {
            one.port: one.value
            for one in done.outputs
            if one.form in ("number", "text")
        }
        for one in done.outputs:
            self._keep(book, row, wanted, one)
        error = None
        if done.failure is not None:
            error = {
                "class": done.failure.kind,
                "message": done.failure.message,
                "traceback": done.failure.trace,
                "poison": done.failure.died,
            }
        code = keys.def_hash(wanted.node)
        environment = done.env_hash or row.env_hash
        key = row.cache_key
        if key and environment != row.env_hash:
            # The worker's packages are others than the driver's: found by those only.
            key = keys.cache_key(code, row.params_hash, row.input_hash, environment)
        moment = now()
        book.change(
            row,
            state=done.state,
            started_at=_moment(done.began) or moment,
            ended_at=_moment(done.ended) or moment,
            host=done.host,
            attempt=wanted.attempt,
            error=error,
            env_hash=environment,
            cache_key=key,
            metrics={**done.metrics, **({"numbers": numbers} if numbers else {})},
        )
        if done.failure is not None:
            book.run_event(row, "log", done.failure.message, level="error")
        book.run_event(row, "state", done.state)

    def _keep(self, book: Book, row: Run, wanted: Wanted, one: Kept) -> None:
        sources = _images(wanted.inputs)
        image = book.session.get(Image, sources[0].id) if sources else None
        if one.form in ("number", "text"):
            if image is not None:
                units = {one.port: one.facts.get("unit") or ""}
                book.measurements(image, row, {one.port: one.value}, units=units)
            return
        if one.form == "shape":
            if image is not None:
                kinds = {"Polygon": "polygon", "LineString": "polyline"}
                book.roi(
                    image,
                    kind=kinds[one.value["type"]],
                    run=row,
                    geometry=one.value,
                    status="draft",
                )
            return
        if one.path is None:
            raise ValueError(f"{one.port} has no file")
        if one.form == "array":
            self._keep_array(book, row, wanted, one, image)
        elif one.form == "table":
            place = self._moved(row, one, f"{row.id}-{one.port}.parquet")
            table = DataTable(
                id=new_id(),
                project_id=row.project_id,
                name=_named(wanted, one, sources),
                uri=str(place),
                schema=dict(one.facts["schema"]),
                row_count=one.facts["row_count"],
                sha256=one.checksum,
                run_id=row.id,
            )
            book.add(table)
            book.output(row, one.port, table, position=one.position)
        else:
            place = self._moved(row, one, f"{row.id}-{one.port}/{one.path.name}")
            asset = Asset(
                id=new_id(),
                project_id=row.project_id,
                owner_kind="run" if image is None else "image",
                owner_id=row.id if image is None else image.id,
                role=one.facts["role"],
                media_type=one.facts["media_type"],
                uri=str(place),
                size=one.size,
                sha256=one.checksum,
                run_id=row.id,
            )
            book.add(asset)
            book.output(row, one.port, asset, position=one.position)

    def _keep_array(
        self, book: Book, row: Run, wanted: Wanted, one: Kept, image: Image | None
    ) -> None:
        told = one.value
        place = self._moved(row, one, f"{row.id}-{one.port}-{one.position}.ome.zarr")
        kind = wanted.kind or ("crop" if wanted.node.name == "crop" else "derived")
        columns: dict[str, Any] = {}
        if image is not None:
            columns = {
                name: getattr(image, name)
                for name in ("acquisition_id", "sample_id", "subject_id", "modality")
            }
        columns |= {
            name: value for name, value in one.facts.items() if value is not None
        }
        if told.get("plane"):
            columns["plane"] = told["plane"]
        project = book.get(Project, row.project_id)
        made = book.image(
            project,
            path=str(place),
            name=_named(wanted, one, _images(wanted.inputs)),
            # Not as run=: the book would call the port "image", and flows go by ports.
            run_id=row.id,
            kind="label" if told["is_label"] else kind,
            checksum=one.checksum,
            size_bytes=one.size,
            channels=[{"name": name} for name in told["channels"]] or None,
            **columns,
        )
        book.output(row, one.port, made, position=one.position)

    def _moved(self, row: Run, one: Kept, name: str) -> Path:
        """Put an output where it stays; what a killed driver left there goes."""
        assert one.path is not None  # noqa: S101  (asked by the caller; for mypy)
        place = self.derived / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if one.path.exists():
            if place.is_dir():
                shutil.rmtree(place)
            one.path.rename(place)
        elif not place.exists():
            raise FileNotFoundError(f"run {row.id} wrote no {one.path.name}")
        beside = one.path.with_name(f"{one.path.name}.sha256")
        if beside.exists():
            beside.rename(place.with_name(f"{place.name}.sha256"))
        return place

    # Asking

    def open_runs(self) -> dict[tuple[str, str], tuple[str, str, int]]:
        """Runs by (item, place in the flow): id, state and attempt of each."""
        with self.backend.database.reading() as session:
            rows = session.execute(
                select(
                    Run.item_key, Run.node_key, Run.id, Run.state, Run.attempt
                ).where(Run.batch_id == self.batch_id)
            )
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

    # The batch itself

    def batch(self, **fields: Any) -> None:
        """Change the batch's row."""
        with self._recording() as book:
            book.change(book.get(Batch, self.batch_id), **fields)

    def skip(self, wanted: Iterable[Wanted], why: str) -> None:
        """Write that runs were never begun, and why."""
        with self._recording() as book:
            for one in wanted:
                code = keys.def_hash(one.node)
                known = book.session.get(Run, one.run_id) if one.run_id else None
                told = {"class": "Skipped", "message": why}
                if known is not None:
                    book.change(known, state="skipped", error=told, ended_at=now())
                    continue
                book.run(
                    self.project_id,
                    node=self._definition(book, one.node, code),
                    params=dict(one.params),
                    state="skipped",
                    batch_id=self.batch_id,
                    item_key=one.item_key,
                    node_key=one.node_key,
                    parent_run_id=one.parent,
                    error=told,
                )


def _source(session: Any, row: RunOutput) -> Source | None:
    if row.object_kind == "image":
        image = session.get(Image, row.object_id)
        columns = {
            name: getattr(image, name)
            for name in ("id", "path", "scene", "checksum", "name", "attrs", "plane")
        }
        return keys.ref_of_image(columns)
    if row.object_kind == "asset":
        asset = session.get(Asset, row.object_id)
        return Ref("asset", asset.id, asset.uri, 0, asset.sha256, "", asset.media_type)
    if row.object_kind == "data_table":
        table = session.get(DataTable, row.object_id)
        return Ref("data_table", table.id, table.uri, 0, table.sha256, table.name)
    return None


def _images(inputs: Mapping[str, Source | tuple[Source, ...]]) -> list[Ref]:
    found: list[Ref] = []
    for sources in inputs.values():
        several = sources if isinstance(sources, tuple) else (sources,)
        found += [
            one for one in several if isinstance(one, Ref) and one.kind == "image"
        ]
    return found


def _named(wanted: Wanted, one: Kept, sources: list[Ref]) -> str:
    stem = sources[0].name if sources else wanted.item_key
    port = "" if one.port == "result" else f"-{one.port}"
    number = f"-{one.position + 1}" if one.position else ""
    return f"{stem}-{wanted.node_key or wanted.node.name}{port}{number}"


def _refusal(error: BaseException) -> Any:
    from theatrum.catalog.engine.work import failure_of

    return failure_of(error)


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
