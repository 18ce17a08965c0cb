"""How many of the rows that a question finds have each value of a field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Float,
    String,
    case,
    collate,
    distinct,
    func,
    literal,
    select,
)

from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query.fields import table_of
from theatrum.catalog.query.spec import Spec
from theatrum.catalog.query.sql import Compiler, Joined, Rows

MOST_FACETS = 30
MOST_VALUES = 1000


@dataclass(frozen=True)
class Facet:
    """A field, and how its values are put together."""

    field: str
    limit: int = 50
    """The most frequent values only."""
    edges: tuple[float, ...] = ()
    """Of numbers: the borders between bins, the smallest first; a number that is a
    border belongs to the bin above it."""


def facet_query(compiler: Compiler, spec: Spec, facet: Facet) -> Rows:
    """(value, count) for a facet, the most frequent first, then the smallest.

    A row with several values counts for each of them once. Of bins the value is the
    number of borders that lie at or below it.
    """
    if not 0 < facet.limit <= MOST_VALUES:
        raise BadQuery(f"a facet shows 1 to {MOST_VALUES} values")
    root = table_of(spec.of)
    tables = Joined(compiler, root)
    value = tables.field(facet.field)
    if facet.edges:
        value = _binned(facet, value)
    counted = func.count()
    if tables.multiplies:
        (key,) = root.primary_key
        counted = func.count(distinct(key))
    plain = replace(spec, order=(), values=(), distinct=False)
    found = compiler.found(plain, root)
    if spec.offset or spec.limit is not None:
        sliced = compiler.rows(plain).subquery()
        (key,) = root.primary_key
        found = key.in_(select(sliced.c[key.name]))
    ranked = value
    if compiler.dialect != "sqlite" and isinstance(value.type, String):
        ranked = collate(value, "C")
    return (
        select(value.label("value"), counted.label("count"))
        .select_from(tables.source)
        .where(found)
        .group_by(value)
        .order_by(counted.desc(), ranked.asc().nulls_last())
        .limit(facet.limit)
    )


def _binned(facet: Facet, value: Any) -> Any:
    if not isinstance(value.type, Float) and value.type.python_type is not int:
        raise BadQuery(f"{facet.field} is no number: it has no bins")
    if list(facet.edges) != sorted(set(facet.edges)):
        raise BadQuery("the borders of bins go from small to large")
    bins = [(value < edge, literal(place)) for place, edge in enumerate(facet.edges)]
    return case((value.is_(None), None), *bins, else_=len(facet.edges))


def facets_from_json(said: Any) -> Sequence[Facet]:
    """Read facets: names of fields, or objects with `field`, `limit`, `edges`."""
    if not isinstance(said, list) or len(said) > MOST_FACETS:
        raise BadQuery(f"facets is a list of {MOST_FACETS} fields at most")
    return [_facet(one) for one in said]


def _facet(said: Any) -> Facet:
    match said:
        case str(name):
            return Facet(name)
        case {"field": str(name), **rest}:
            limit = rest.pop("limit", 50)
            edges: Any = rest.pop("edges", [])
            numbers = isinstance(edges, list) and all(
                isinstance(one, int | float) and not isinstance(one, bool)
                for one in edges
            )
            if not rest and type(limit) is int and numbers:
                return Facet(name, limit, tuple(float(one) for one in edges))
    raise BadQuery('a facet is a field, or {"field": ..., "limit": 50, "edges": []}')
