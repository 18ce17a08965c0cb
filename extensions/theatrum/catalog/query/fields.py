"""The names that a query can use: resources, their columns, and the ways between them.

Ways follow from the foreign keys, in both directions: `image.sample_id` is the way
`sample` from images and the way `images` from samples. A few more are written here:
tags, values and comments, which belong to any row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, FromClause, Table

from theatrum.catalog.errors import UnknownField, near
from theatrum.catalog.tables import Base

RESOURCES = {
    "projects": "project",
    "experiments": "experiment",
    "groups": "cohort_group",
    "subjects": "subject",
    "visits": "visit",
    "samples": "sample",
    "file_rules": "file_rule",
    "files": "source_file",
    "acquisitions": "acquisition",
    "members": "series_member",
    "inbox": "inbox_item",
    "images": "image",
    "channels": "channel",
    "plane_tables": "plane_table",
    "assets": "asset",
    "views": "view",
    "transforms": "transform",
    "results": "result",
    "labels": "label",
    "rois": "roi",
    "annotations": "annotation",
    "measurements": "measurement",
    "tables": "data_table",
    "nodes": "node_def",
    "flows": "flow",
    "batches": "batch",
    "runs": "run",
    "run_inputs": "run_input",
    "run_outputs": "run_output",
    "run_events": "run_event",
    "versions": "dataset_version",
    "saved_queries": "saved_query",
    "events": "event",
}
"""Each resource and its table."""

RESOURCE_OF = {table: name for name, table in RESOURCES.items()}

ORDER = {
    "project": ("name",),
    "experiment": ("name",),
    "cohort_group": ("name",),
    "subject": ("label",),
    "visit": ("label",),
    "sample": ("name",),
    "file_rule": ("priority",),
    "image": ("name",),
    "channel": ("image_id", "index"),
    "label": ("vocabulary", "code"),
    "flow": ("name",),
    "saved_query": ("slug",),
    "node_def": ("name", "version"),
}
"""What comes first where a query does not say; else the oldest, else the first id."""

# Of rows without a project of their own: whose project is theirs.
OWNERS = {
    "channel": "image_id",
    "plane_table": "image_id",
    "result": "image_id",
    "series_member": "acquisition_id",
    "run_input": "run_id",
    "run_output": "run_id",
    "run_event": "run_id",
}
SHARED = frozenset({"label", "node_def", "flow"})
"""Rows without a project are everybody's."""

_BACK = {
    ("run_input", "run_id"): "inputs",
    ("run_output", "run_id"): "outputs",
    ("run_event", "run_id"): "run_events",
    ("transform", "from_image_id"): "transforms",
    ("transform", "to_image_id"): "transforms_here",
}
_AHEAD = {"node_def_id": "node"}
# The singular of a way is the way.
_SINGULAR = {
    "channel": "channels",
    "tag": "tags",
    "comment": "comments",
    "roi": "rois",
    "measurement": "measurements",
    "annotation": "annotations",
    "view": "views",
}
ALIASES = {
    ("project", "slug"): "name",
    ("annotation", "name"): "key",
}


@dataclass(frozen=True)
class Way:
    """How one gets from the rows of a table to those of another."""

    name: str
    target: str
    here: str
    there: str
    many: bool
    fixed: tuple[tuple[str, str], ...] = ()
    """Columns of the target and what they must be."""
    default: str | None = None
    """The target's field that is meant where none is named."""


def table_of(resource: str) -> Table:
    """The table of a resource; raises UnknownField."""
    name = RESOURCES.get(resource)
    if name is None:
        raise UnknownField(
            f"there is no resource {resource!r}.{near(resource, RESOURCES)}"
        )
    return Base.metadata.tables[name]


def primary_key(table: FromClause) -> tuple[ColumnElement[object], ...]:
    """A table's key."""
    return tuple(table.primary_key)


@functools.cache
def ways_from(table: str) -> dict[str, Way]:
    """All ways from a table, by name."""
    ways: dict[str, Way] = {}
    for column in Base.metadata.tables[table].columns:
        for key in column.foreign_keys:
            name = _AHEAD.get(column.name, column.name.removesuffix("_id"))
            target = key.column.table.name
            # A project is called by its name.
            default = "name" if target == "project" else None
            ways[name] = Way(
                name, target, column.name, "id", many=False, default=default
            )
    for other in Base.metadata.tables.values():
        if other.name not in RESOURCE_OF:
            continue
        for column in other.columns:
            for key in column.foreign_keys:
                if key.column.table.name == table:
                    name = _back_name(column, table)
                    ways[name] = Way(name, other.name, "id", column.name, many=True)
    if "id" in Base.metadata.tables[table].columns:
        ways |= _notes(table)
    return ways


def _back_name(column: Column[object], table: str) -> str:
    child = column.table.name
    if (child, column.name) in _BACK:
        return _BACK[child, column.name]
    if child == table:
        return "children"
    return RESOURCE_OF[child]


def _notes(table: str) -> dict[str, Way]:
    on = ("target_kind", table)

    def note(name: str, default: str | None, *fixed: tuple[str, str]) -> Way:
        return Way(
            name, "annotation", "id", "target_id", many=True,
            fixed=(on, *fixed), default=default,
        )  # fmt: skip

    def linked(name: str, target: str, kind: str, key: str) -> Way:
        return Way(name, target, "id", key, many=True, fixed=((kind, table),))

    ways = [
        note("tags", "key", ("kind", "tag")),
        note("key_values", "key", ("kind", "value")),
        note("comments", "text", ("kind", "comment")),
        note("annotations", None),
        linked("assets", "asset", "owner_kind", "owner_id"),
        linked("used_in", "run_input", "object_kind", "object_id"),
        linked("made_in", "run_output", "object_kind", "object_id"),
    ]
    return {way.name: way for way in ways}


def way(table: str, name: str) -> Way | None:
    """The way of that name from a table; None where there is none."""
    ways = ways_from(table)
    return ways.get(name) or ways.get(_SINGULAR.get(name, ""))


def column_name(table: str, name: str) -> str | None:
    """The column that a query's name means; None where there is none."""
    columns = Base.metadata.tables[table].columns
    name = ALIASES.get((table, name), name)
    if name == "pk":
        name = "id"
    return name if name in columns else None


def unknown(table: str, name: str, more: Iterable[str] = ()) -> UnknownField:
    """The error for a name that a table does not have, with those that are near."""
    resource = RESOURCE_OF.get(table, table)
    known = [*Base.metadata.tables[table].columns.keys(), *ways_from(table), *more]
    hint = near(name, known)
    if not hint:
        hint = f" There are {', '.join(sorted(known)[:12])}, ..."
    return UnknownField(f"{resource} have no field {name!r}.{hint}")
