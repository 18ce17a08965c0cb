"""Listings: questions asked by the words of an address, page by page.

    GET /api/v1/images?sample__experiment__name__startswith=Animal&spacing__lte=1.0
        &sort=-created_at&limit=50&fields=name,subject__label

Every name that the query language knows is a condition; `__in` and `__range` take
values with commas between. Pages follow on each other by their cursors, as
`theatrum.catalog.query.paging` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query.spec import Q, Spec

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


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())
