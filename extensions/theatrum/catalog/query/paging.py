"""Pages of a question, each beginning after the last row of the one before.

A cursor holds by what the rows are sorted and which values the last one had, so that
rows that come or go meanwhile shift nothing, and the hundredth page costs what the
first one did.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from theatrum.catalog.backend import Backend, RowData
from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query.fields import ORDER, RESOURCES, primary_key, table_of
from theatrum.catalog.query.spec import Leaf, Q, Spec


def page(
    backend: Backend, spec: Spec, *, limit: int, cursor: str | None
) -> tuple[list[RowData], str | None]:
    """The rows of a page, and the cursor of the next; None where there is none.

    Raises BadQuery for a cursor that is none, or is of another listing, and for what
    has no pages.
    """
    keys = _keys(spec)
    if spec.distinct:
        raise BadQuery("distinct values have no pages: ask for a slice")
    if cursor:
        spec = replace(
            spec, offset=0, where=(*spec.where, _after(keys, _opened(cursor, keys)))
        )
    shown = spec.values
    if shown:
        wanted = dict.fromkeys((*shown, *(key.lstrip("-") for key in keys)))
        spec = replace(spec, values=tuple(wanted))
    rows = backend.rows(replace(spec, order=keys, limit=limit + 1))
    more = len(rows) > limit
    if more:
        rows = _whole(rows, keys) if shown else rows[:limit]
    following = _cursor(backend, spec.of, keys, rows[-1]) if more else None
    if shown:
        rows = [{name: row[name] for name in shown} for row in rows]
    return rows, following


def _keys(spec: Spec) -> tuple[str, ...]:
    """What rows are sorted by: as is asked, and then by what tells them apart."""
    table = table_of(spec.of)
    fallback = ("created_at",) if "created_at" in table.c else ()
    order = spec.order or ORDER.get(RESOURCES[spec.of], fallback)
    told = {key.lstrip("-") for key in order}
    rest = (column.name for column in primary_key(table))
    return (*order, *(str(name) for name in rest if name not in told))


def _whole(rows: list[RowData], keys: Sequence[str]) -> list[RowData]:
    """The rows without the last of them, nor those that belong together with it.

    A field that leads to several rows gives a row for each; a page between them would
    lose some.
    """
    paths = [key.lstrip("-") for key in keys]
    last = [rows[-1][path] for path in paths]
    kept = [row for row in rows if [row[path] for path in paths] != last]
    if not kept:
        raise BadQuery("one row's fields are longer than a page: ask for longer ones")
    return kept


# Any here: what a column holds
def _cursor(
    backend: Backend, resource: str, keys: Sequence[str], row: Mapping[str, Any]
) -> str:
    table = table_of(resource)
    paths = [key.lstrip("-") for key in keys]
    missing = [path for path in paths if path not in row]
    if missing:  # sorted by a related row's column
        own = {str(one.name): row[str(one.name)] for one in primary_key(table)}
        (row,) = backend.rows(Spec(resource, (Q(**own),), values=tuple(paths)))
    values = [
        value.isoformat() if isinstance(value, datetime) else value
        for value in (row[path] for path in paths)
    ]
    text = json.dumps([list(keys), values], separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _opened(cursor: str, keys: Sequence[str]) -> list[Any]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        # Any: whatever somebody sent
        said, values = json.loads(urlsafe_b64decode(padded.encode()))
    except (ValueError, TypeError) as err:
        raise BadQuery("this cursor is none: begin again without one") from err
    scalars = isinstance(values, list) and all(
        one is None or isinstance(one, str | int | float) for one in values
    )
    if said != list(keys) or not scalars or len(values) != len(keys):
        raise BadQuery("this cursor is of another listing: begin again without one")
    return list(values)


def _after(keys: Sequence[str], values: Sequence[Any]) -> Q:
    """The rows after one, as the listing sorts: what is unknown comes last."""
    conditions: list[Q] = []
    equal: list[Leaf] = []
    for key, value in zip(keys, values, strict=True):
        path = key.lstrip("-")
        if value is not None:
            further = Q(**{f"{path}__{'lt' if key.startswith('-') else 'gt'}": value})
            later = (
                further if path == "id" else further | Q(**{f"{path}__isnull": True})
            )
            conditions.append(_all(equal, later))
            equal.append(Leaf(path, value))
        else:
            equal.append(Leaf(f"{path}__isnull", True))
    after = conditions[0]
    for one in conditions[1:]:
        after = after | one
    return after


def _all(equal: Sequence[Leaf], last: Q) -> Q:
    found = last
    for leaf in equal:
        found = Q(**{leaf.field: leaf.value}) & found
    return found
