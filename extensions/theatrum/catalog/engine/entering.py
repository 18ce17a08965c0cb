"""Runs get their rows, many in one transaction: what is new, done before, or waits.

A batch of a hundred thousand spends its time here if each run is looked up and written
by itself. So all cache keys are asked for at once, rows are written table by table, and
only what was found is looked at one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from theatrum.catalog.boundaries import SHIPPED
from theatrum.catalog.engine import keys
from theatrum.catalog.engine.wanted import Begun, Wanted
from theatrum.catalog.engine.work import Ref, Task, environment_hash
from theatrum.catalog.facts import digest_of
from theatrum.catalog.feed import tell
from theatrum.catalog.record import Book
from theatrum.catalog.tables import (
    Asset,
    Base,
    DataTable,
    Image,
    Run,
    RunEvent,
    RunInput,
    RunOutput,
    new_id,
    now,
)
from theatrum.catalog.tables.images import DISCARDED
from theatrum.node import Node

if TYPE_CHECKING:
    from theatrum.catalog.engine.ledger import Ledger

MADE: dict[str, type[Image] | type[Asset] | type[DataTable]] = {
    "image": Image,
    "asset": Asset,
    "data_table": DataTable,
}
"""What lies in files, by the names of the tables."""


def enter(
    ledger: Ledger,
    book: Book,
    wanted: Sequence[Wanted],
    *,
    refresh: bool,
    limits: Task | None = None,
) -> list[Begun]:
    """Give runs their rows; those that were done before are ended at once."""
    session = book.session
    with session.no_autoflush:
        prints = [_Print(ledger, one) for one in wanted]
        asked = [one for one in prints if one.wanted.node.pure]
        asked = [one for one in asked if not (refresh or one.wanted.anew)]
        done = _done_before(ledger, book, {one.key for one in asked})
        for one in asked:
            one.found = done.get(one.key, "")
        known = rows_of(book, [one.run_id for one in wanted if one.run_id])
        runs: list[Run] = []
        beside: list[Base] = []
        begun = []
        for one in prints:
            row = known.get(one.wanted.run_id)
            if not one.found and one.lacks:
                begun.append(Begun(one.wanted, _nothing(ledger, one), lacking=True))
                continue
            begun.append(_entered(ledger, book, one, row, limits))
            made, more = _rows(ledger, book, begun[-1], one, row)
            runs += made
            beside += more
        seqs = next_events(book, [row.id for row in known.values()])
        for event in beside:
            if isinstance(event, RunEvent):
                event.seq = seqs.get(event.run_id, 0)
        book.add_all(runs)
        book.add_all(beside)
    return begun


class _Print:
    """A wanted run with its digests, and the run that did the same before."""

    def __init__(self, ledger: Ledger, wanted: Wanted) -> None:
        self.code = ledger.code_of(wanted.node)
        self.params = digest_of(dict(wanted.params))
        self.inputs = keys.input_hash(wanted.inputs)
        self.key = keys.cache_key(
            self.code, self.params, self.inputs, environment_hash()
        )
        self.wanted = wanted
        self.found = ""
        self.lacks = not wanted.waits and any(
            isinstance(one, Ref) and one.gone
            for sources in wanted.inputs.values()
            for one in (sources if isinstance(sources, tuple) else (sources,))
        )


def _entered(
    ledger: Ledger, book: Book, one: _Print, row: Run | None, limits: Task | None
) -> Begun:
    """What a run is from now on; a row of before is brought up to it."""
    wanted = replace(one.wanted, run_id=one.wanted.run_id or new_id())
    if wanted.waits:
        if row is not None:
            changed(
                book,
                row,
                state="waiting",
                error=None,
                ended_at=None,
                attempt=wanted.attempt,
                metrics=_gives(wanted),
            )
        return Begun(wanted, _nothing(ledger, one), waiting=True)
    if row is not None:
        moment = now()
        changed(
            book,
            row,
            started_at=moment,
            ended_at=moment if one.found else None,
            params_hash=one.params,
            **_columns(one),
        )
    task = Task(
        wanted.run_id,
        wanted.node,
        wanted.params,
        wanted.inputs,
        ledger.folder / "staging" / f"{wanted.run_id}-{wanted.attempt}",
        ledger.cancel_file,
        limits.timeout_s if limits else 0.0,
        limits.memory_bytes if limits else 0,
    )
    return Begun(wanted, task, bool(one.found))


# Any: what a step's ports give
def _gives(wanted: Wanted) -> dict[str, Any]:
    """What a lease of a run that waits says that it is to give."""
    gives = wanted.params.get("gives", {})
    return {"gives": dict(gives)} if gives else {}


def _nothing(ledger: Ledger, one: _Print) -> Task:
    """The task of a run that no worker does."""
    node, cancel_file = one.wanted.node, ledger.cancel_file
    return Task(one.wanted.run_id, node, {}, {}, ledger.folder, cancel_file)


def _columns(one: _Print) -> dict[str, Any]:
    return {
        "cache_key": one.key if one.wanted.node.pure else "",
        "input_hash": one.inputs,
        "env_hash": environment_hash(),
        "attempt": one.wanted.attempt,
        "code_version": one.wanted.node.version,
        "state": "cached" if one.found else "queued",
        "metrics": {"cached_from": one.found} if one.found else {},
        "engine_key": "",
        "error": None,
    }


def _rows(
    ledger: Ledger, book: Book, begun: Begun, one: _Print, row: Run | None
) -> tuple[list[Run], list[Base]]:
    """The new rows of a run: itself, and what stands beside it."""
    wanted = begun.wanted
    state = "waiting" if begun.waiting else "cached" if begun.cached else "queued"
    event = RunEvent(run_id=wanted.run_id, seq=0, kind="state", message=state)
    if row is not None:
        return [], [] if begun.waiting else [event]
    definition = define(ledger, book, wanted.node, one.code)
    moment = now()
    common: dict[str, Any] = {
        "id": wanted.run_id,
        "project_id": ledger.project_id,
        "batch_id": ledger.batch_id,
        "node_def_id": definition,
        "item_key": wanted.item_key,
        "node_key": wanted.node_key,
        "requested_by": book.actor,
        "on_behalf_of": book.on_behalf_of,
    }
    if begun.waiting:
        served = str(wanted.params.get("served", ""))
        # What is told of the step is kept; to whom it goes stands in its own columns.
        ways = ("served", "gives")
        told = {name: one for name, one in wanted.params.items() if name not in ways}
        made = Run(
            **common,
            params=told,
            params_hash=digest_of(told),
            state="waiting",
            started_at=moment,
            engine_key=f"{wanted.waits}:{served}" if served else wanted.waits,
            metrics=_gives(wanted),
        )
    else:
        made = Run(
            **common,
            parent_run_id=wanted.parent,
            params=dict(wanted.params),
            params_hash=one.params,
            started_at=moment if begun.cached else None,
            ended_at=moment if begun.cached else None,
            **_columns(one),
        )
    return [made], [*_inputs(wanted), event]


def _inputs(wanted: Wanted) -> list[RunInput]:
    rows = []
    for port, sources in wanted.inputs.items():
        several = sources if isinstance(sources, tuple) else (sources,)
        rows += [
            RunInput(
                run_id=wanted.run_id,
                port=port,
                position=position,
                object_kind=source.kind,
                object_id=source.id,
                checksum=source.checksum[:64],
            )
            for position, source in enumerate(several)
            if source.id and (source.kind in MADE or source.kind == "roi")
        ]
    return rows


def define(ledger: Ledger, book: Book, node: Node[..., Any], code: str) -> str:
    """The id of a node's definition, written down where it is new."""
    known = ledger.definitions.get(code)
    if known is not None:
        return known
    kinds = {one: one for one in ("notebook", "container", "bids-app")}
    schema = node.parameters
    # What ships is everybody's; what somebody wrote, with its source, is theirs.
    ships = (node.address or "").startswith(SHIPPED)
    defined = book.node_def(
        project_id=None if ships else ledger.project_id,
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
    ledger.definitions[code] = defined.id
    return defined.id


# What was done before


def _done_before(ledger: Ledger, book: Book, asked: set[str]) -> dict[str, str]:
    """Of cache keys the run of this project that did the same; its files are there."""
    if not asked:
        return {}
    query = (
        select(Run.cache_key, Run.id)
        .where(
            Run.cache_key.in_(asked),
            Run.state == "succeeded",
            Run.project_id == ledger.project_id,
        )
        .order_by(Run.created_at.desc())
    )
    found: dict[str, str] = {}
    tried: dict[str, int] = {}
    for key, run_id in book.session.execute(query):
        tried[key] = tried.get(key, 0) + 1
        if key not in found and tried[key] <= _TRIES and _whole(book, run_id):
            found[key] = str(run_id)
    return found


_TRIES = 3
"""Runs that did the same are looked at, until one whose files are there."""


def _whole(book: Book, run_id: str) -> bool:
    outputs = select(RunOutput).where(RunOutput.run_id == run_id)
    for row in book.session.scalars(outputs):
        table = MADE.get(row.object_kind)
        if table is None:
            continue
        made: Any = book.session.get(table, row.object_id)  # of one of three tables
        if isinstance(made, Image) and made.state == DISCARDED:
            continue  # not kept: what follows is found by its checksum
        if made is None or made.deleted_at is not None:
            return False
        if not Path(getattr(made, "path", None) or made.uri).exists():
            return False
    return True


# For many rows at once


def rows_of(book: Book, run_ids: Sequence[str]) -> dict[str, Run]:
    """Runs by id, those that are there."""
    if not run_ids:
        return {}
    rows = book.session.scalars(select(Run).where(Run.id.in_(run_ids)))
    return {row.id: row for row in rows}


def next_events(book: Book, run_ids: Sequence[str]) -> dict[str, int]:
    """The number of the next event of each run; those without any are left out."""
    if not run_ids:
        return {}
    rows = book.session.execute(
        select(RunEvent.run_id, func.max(RunEvent.seq))
        .where(RunEvent.run_id.in_(run_ids))
        .group_by(RunEvent.run_id)
    )
    return {str(run_id): int(last) + 1 for run_id, last in rows}


# Any: columns
def changed(book: Book, row: Run, **fields: Any) -> None:
    """Set columns of a run and tell of it; written with the others, at the end."""
    names = [name for name, new in fields.items() if getattr(row, name) != new]
    for name in names:
        setattr(row, name, fields[name])
    if names:
        tell(book.session, book.actor, row, "update", names)
