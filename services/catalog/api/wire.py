"""The catalogue as it is seen from outside: no place on this machine leaves it.

Questions may not name such columns either, for their answers would tell them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import NotFound, UnknownField
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.facets import Facet
from theatrum.catalog.query.spec import Leaf, Q, Spec

if TYPE_CHECKING:
    import xarray

INSIDE = frozenset({"path", "uri", "manifest_uri", "deleted_at"})
"""Columns that say where something lies here, or that it was deleted."""


@dataclass(frozen=True)
class OverTheWire(LocalBackend):
    """A database as somebody far away sees it."""

    def rows(self, spec: Spec) -> list[RowData]:
        """See `Backend`; without the columns of `INSIDE`."""
        refuse_inside(spec)
        return [shown(row) for row in LocalBackend.rows(self, spec)]

    def each(self, spec: Spec) -> Iterator[RowData]:
        """See `Backend`; without the columns of `INSIDE`."""
        refuse_inside(spec)
        return (shown(row) for row in LocalBackend.each(self, spec))

    def count(self, spec: Spec) -> int:
        """See `Backend`."""
        refuse_inside(spec)
        return LocalBackend.count(self, spec)

    # Any: a facet's value is whatever its column holds
    def facets(
        self, spec: Spec, facets: Sequence[Facet]
    ) -> dict[str, list[tuple[Any, int]]]:
        """See `Backend`."""
        refuse_inside(spec, *(facet.field for facet in facets))
        return LocalBackend.facets(self, spec, facets)

    def sql(self, spec: Spec) -> str:
        """See `Backend`."""
        refuse_inside(spec)
        return LocalBackend.sql(self, spec)

    def create(self, resource: str, values: Mapping[str, Any]) -> RowData:
        """See `Backend`; without the columns of `INSIDE`."""
        return shown(LocalBackend.create(self, resource, values))

    def change(self, resource: str, key: str, values: Mapping[str, Any]) -> RowData:
        """See `Backend`; without the columns of `INSIDE`."""
        return shown(LocalBackend.change(self, resource, key, values))

    def keep(self, array: xarray.DataArray, kept: Mapping[str, Any]) -> RowData:
        """See `Backend`; without the columns of `INSIDE`."""
        return shown(LocalBackend.keep(self, array, kept))

    def inside(self, spec: Spec) -> list[RowData]:
        """Rows with all of their columns, for the service's own use."""
        return LocalBackend.rows(self, spec)

    def whole(self, resource: str, key: str) -> RowData:
        """A row with all of its columns, for the service's own use; raises NotFound."""
        found = LocalBackend.rows(self, Spec(resource, (Q(id=key),)))
        if not found:
            raise NotFound("there is nothing here that you may see")
        return found[0]


# Any: columns of whatever table
def shown(row: Mapping[str, Any]) -> RowData:
    """A row without what stays inside; of a failure its words, not the source lines."""
    said = {name: value for name, value in row.items() if name not in INSIDE}
    if isinstance(said.get("error"), dict):
        error = said["error"].items()
        said["error"] = {name: text for name, text in error if name != "traceback"}
    return said


def refuse_inside(spec: Spec, *more: str) -> None:
    """Raise UnknownField where a question names what stays inside."""
    named = (*_fields(spec), *(one.lstrip("-") for one in spec.order), *more)
    for path in (*named, *spec.values):
        for step in path.split("__"):
            if step in INSIDE:
                raise UnknownField(f"{spec.of} have no field {step!r} here")


def _fields(spec: Spec) -> Iterator[str]:
    waiting: list[Leaf | Q] = [*spec.where]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Q):
            waiting.extend(part.parts)
            continue
        yield part.field
        values = part.value if isinstance(part.value, tuple) else (part.value,)
        for value in values:
            if isinstance(value, Spec):
                refuse_inside(value)
