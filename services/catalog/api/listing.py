"""Listings: questions asked by the words of an address, page by page.

    GET /api/v1/images?sample__experiment__name__startswith=Animal&spacing__lte=1.0
        &sort=-created_at&limit=50&fields=name,subject__label

Every name that the query language knows is a condition; `__in` and `__range` take
values with commas between. The next page's cursor remembers after which row it begins,
so that rows that come or go meanwhile shift nothing.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from theatrum.catalog.backend import Backend, RowData
from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query.fields import ORDER, RESOURCES, table_of
from theatrum.catalog.query.spec import Leaf, Q, Spec

OWN = frozenset({"limit", "cursor", "sort", "fields", "expand", "format"})
"""Words of an address that are no conditions."""
USUAL = 100
MOST = 1000


def spec_of(resource: str, words: Iterable[tuple[str, str]]) -> Spec:
    """The question that an address asks; `limit` and `cursor` left aside.

    Raises
    ------
    BadQuery
        Where a word is said twice, or a value does not fit.
    """
    conditions: dict[str, Any] = {}
    order: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    for said, value in words:
        # What teaching calls a collection is a project.
        name = "project__name" if said == "collection" else said
        if name == "sort":
            order = _names(value)
        elif name == "fields":
            values = _names(value)
        elif name in conditions:
            raise BadQuery(f"{name} is said twice: use {name}__in=a,b")
        elif name not in OWN:
            listed = name.endswith(("__in", "__range"))
            conditions[name] = tuple(value.split(",")) if listed else value
    where = (Q(**conditions),) if conditions else ()
    return Spec(resource, where, order=order, values=values)


def page(
    backend: Backend, spec: Spec, *, limit: int, cursor: str | None
) -> tuple[list[RowData], str | None]:
    """The rows of a page, and the cursor of the next; None where there is none."""
    order = spec.order or _usual_order(spec.of)
    keys = (*order, "id") if "id" in table_of(spec.of).c else order
    if cursor:
        spec = replace(spec, where=(*spec.where, _after(keys, _opened(cursor, keys))))
    shown = spec.values
    if shown:
        wanted = dict.fromkeys((*shown, *(key.lstrip("-") for key in keys)))
        spec = replace(spec, values=tuple(wanted))
    rows = backend.rows(replace(spec, order=order, limit=limit + 1))
    more = len(rows) > limit
    rows = rows[:limit]
    following = _cursor(backend, spec.of, keys, rows[-1]) if more else None
    if shown:
        rows = [{name: row[name] for name in shown} for row in rows]
    return rows, following


def _usual_order(resource: str) -> tuple[str, ...]:
    columns = table_of(resource).c
    fallback = ("created_at",) if "created_at" in columns else ()
    return ORDER.get(RESOURCES[resource], fallback)


# Any here: what a column holds
def _cursor(
    backend: Backend, resource: str, keys: Sequence[str], row: Mapping[str, Any]
) -> str:
    paths = [key.lstrip("-") for key in keys]
    missing = [path for path in paths if path not in row]
    if missing:  # sorted by a related row's column
        spec = Spec(resource, (Q(id=row["id"]),), values=tuple(paths))
        (row,) = backend.rows(spec)
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


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())
