"""All rows that belong to some images: up to their projects, back to their originals.

From each row the way goes on over its foreign keys, to what hangs on it (channels,
regions, notes, files beside), and from a run to everything that went into it, so that
the lineage of what is gathered is whole. What the asker may not see is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.fields import RESOURCE_OF
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.tables import Base

TABLES: Final = (
    "project", "experiment", "cohort_group", "subject", "visit", "sample",
    "source_file", "acquisition", "series_member", "node_def", "flow", "batch", "run",
    "image", "channel", "label", "roi", "view", "transform", "measurement",
    "data_table", "asset", "plane_table", "annotation", "result", "run_input",
    "run_output",
)  # fmt: skip
"""What a bundle holds, each after what its rows point at."""
HANGING: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "image": (
        ("channel", "image_id"), ("roi", "image_id"), ("view", "image_id"),
        ("measurement", "image_id"), ("plane_table", "image_id"),
        ("result", "image_id"), ("transform", "from_image_id"),
    ),
    "acquisition": (("series_member", "acquisition_id"),),
    "run": (
        ("run_input", "run_id"), ("run_output", "run_id"), ("data_table", "run_id"),
    ),
}  # fmt: skip
NOTED: Final = frozenset(
    {
        *("image", "acquisition", "sample", "subject", "visit", "experiment", "roi"),
        *("run", "source_file", "cohort_group", "data_table"),
    }
)
"""What can have annotations and files beside it."""
_AT_ONCE: Final = 400
_AMONG_TEXTS: Final = frozenset({"image", "roi", "source_file", "data_table"})


@dataclass
class Rows:
    """Rows by table, each table by key."""

    by_table: dict[str, dict[str, RowData]] = field(
        default_factory=lambda: {table: {} for table in TABLES}
    )
    images: tuple[str, ...] = ()
    """The images that were asked for; the others are what they were made of."""

    def of(self, table: str) -> list[RowData]:
        """A table's rows, in the order of their keys."""
        rows = self.by_table[table]
        return [rows[key] for key in sorted(rows)]

    def has(self, table: str, key: object) -> bool:
        """Whether a row is there."""
        return str(key) in self.by_table.get(table, {})


def gather(backend: LocalBackend, spec: Spec) -> Rows:
    """The images that a question finds, and everything that belongs to them.

    Raises
    ------
    BadRecord
        Where the question is not about images.
    """
    if spec.of != "images":
        raise BadRecord(f"what is exported are images, not {spec.of}")
    found = Rows()
    asked = LocalBackend.rows(backend, _whole(spec))
    found.images = tuple(row["id"] for row in asked)
    fresh = _add(found, "image", asked)
    looked: dict[str, set[str]] = {table: set() for table in NOTED}
    while fresh:
        wanted = _wanted(found, fresh)
        fresh = []
        for (table, column), keys in wanted.items():
            fresh += _add(found, table, _ask(backend, table, column, keys))
        fresh += _beside(backend, found, looked)
    _trim(found)
    return found


def plain(row: Mapping[str, Any]) -> RowData:
    """A row as JSON has it: moments in ISO 8601."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def key_of(table: str, row: Mapping[str, Any]) -> str:
    """What a row is known by in its table."""
    columns = Base.metadata.tables[table].primary_key.columns
    return "/".join(str(row[column.name]) for column in columns)


def _whole(spec: Spec) -> Spec:
    return Spec(spec.of, spec.where, spec.order, spec.offset, spec.limit)


def _add(found: Rows, table: str, rows: Iterable[RowData]) -> list[tuple[str, RowData]]:
    fresh = []
    for row in rows:
        key = key_of(table, row)
        if key not in found.by_table[table]:
            found.by_table[table][key] = row
            fresh.append((table, row))
    return fresh


def _wanted(
    found: Rows, fresh: Iterable[tuple[str, RowData]]
) -> dict[tuple[str, str], set[Any]]:
    """What new rows point at, and what hangs on them: values by table and column."""
    wanted: dict[tuple[str, str], set[Any]] = {}
    for table, row in fresh:
        for column in Base.metadata.tables[table].columns:
            for key in column.foreign_keys:
                target, value = key.column.table.name, row[column.name]
                if value is not None and not found.has(target, value):
                    wanted.setdefault((target, "id"), set()).add(value)
        for other, name in HANGING.get(table, ()):
            wanted.setdefault((other, name), set()).add(row["id"])
        if table == "run_input" and row["object_kind"] in _AMONG_TEXTS:
            kind, value = row["object_kind"], row["object_id"]
            if not found.has(kind, value):
                wanted.setdefault((kind, "id"), set()).add(value)
    return {place: keys for place, keys in wanted.items() if place[0] in TABLES}


def _beside(
    backend: LocalBackend, found: Rows, looked: Mapping[str, set[str]]
) -> list[tuple[str, RowData]]:
    """Notes on rows, and files beside them, of rows not looked at yet."""
    fresh = []
    for table in sorted(NOTED):
        keys = found.by_table[table].keys() - looked[table]
        looked[table].update(keys)
        for chunk in _chunks(keys):
            notes = Q(target_kind=table, target_id__in=chunk)
            beside = Q(owner_kind=table, owner_id__in=chunk)
            for other, where in (("annotation", notes), ("asset", beside)):
                spec = Spec(RESOURCE_OF[other], (where,))
                fresh += _add(found, other, LocalBackend.rows(backend, spec))
    return fresh


def _ask(
    backend: LocalBackend, table: str, column: str, keys: Iterable[Any]
) -> list[RowData]:
    rows: list[RowData] = []
    for chunk in _chunks(keys):
        spec = Spec(RESOURCE_OF[table], (Q(**{f"{column}__in": chunk}),))
        rows += LocalBackend.rows(backend, spec)
    return rows


def _chunks(keys: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    listed = sorted(keys)
    for begin in range(0, len(listed), _AT_ONCE):
        yield tuple(listed[begin : begin + _AT_ONCE])


def _trim(found: Rows) -> None:
    """Forget what speaks of rows that are not there."""
    for table in ("run_input", "run_output"):
        kept = {
            key: row
            for key, row in found.by_table[table].items()
            if found.has(row["object_kind"], row["object_id"])
        }
        found.by_table[table] = kept
    # Downloads that were made of others are no part of them.
    assets = found.by_table["asset"]
    for key in [key for key, row in assets.items() if row["role"] == "export"]:
        del assets[key]


def digest_text(rows: Rows) -> str:
    """The rows as one text that changes when any of them does."""
    return json.dumps(
        {table: [plain(row) for row in rows.of(table)] for table in TABLES},
        sort_keys=True,
        default=str,
    )
