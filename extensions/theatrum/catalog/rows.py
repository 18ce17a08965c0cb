"""A row in a notebook: its columns as attributes, its relations as rows and queries.

channel = catalog.channels.first()
channel.emission_nm          # a column
channel.image                # the row that it points at
channel.image.channels       # a query
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from theatrum.catalog.backend import Backend, RowData
from theatrum.catalog.errors import near
from theatrum.catalog.query.fields import (
    RESOURCE_OF,
    RESOURCES,
    Way,
    way,
    ways_from,
)
from theatrum.catalog.query.lazy import Query, related
from theatrum.catalog.query.spec import Q, Spec


class Row:
    """A row of any resource; it is as it was when it was fetched."""

    def __init__(self, backend: Backend, columns: RowData, resource: str) -> None:
        self._backend = backend
        self._columns = columns
        self._resource = resource

    @property
    def _table(self) -> str:
        return RESOURCES[self._resource]

    # Any: a column, a row, or a query
    def __getattr__(self, name: str) -> Any:
        # Copying and pickling ask for names before there are columns.
        columns = self.__dict__.get("_columns")
        if columns is None or name.startswith("__"):
            raise AttributeError(name)
        if name in columns:
            return columns[name]
        over = way(self._table, name)
        if over is None:
            known = [*columns, *ways_from(self._table)]
            raise AttributeError(
                f"{self._resource} have no {name!r}.{near(name, known)}"
            )
        return self._over(over)

    def _over(self, over: Way) -> Any:
        resource = RESOURCE_OF[over.target]
        here = self._columns[over.here]
        if over.many:
            fixed = {over.there: here, **dict(over.fixed)}
            return related(self._backend, resource, maker(resource), **fixed)
        if here is None:
            return None
        spec = Spec(resource, (Q(**{over.there: here}),))
        return Query(self._backend, spec, maker(resource)).first()

    def to_dict(self) -> RowData:
        """The columns."""
        return dict(self._columns)

    def refresh(self) -> None:
        """Fetch the columns again."""
        spec = Spec(self._resource, (Q(id=self._columns["id"]),))
        (self._columns,) = self._backend.rows(spec) or (self._columns,)

    def change(self, **columns: Any) -> None:
        """Set columns, where your role in the project lets you."""
        self._columns = self._backend.change(
            self._resource, str(self._columns["id"]), columns
        )

    def delete(self) -> None:
        """Take the row out of sight."""
        self._backend.remove(self._resource, str(self._columns["id"]))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._columns, *ways_from(self._table)})

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Row)
            and self._resource == other._resource
            and self._columns.get("id") is not None
            and self._columns.get("id") == other._columns.get("id")
        )

    def __hash__(self) -> int:
        return hash((self._resource, self._columns.get("id")))

    def __repr__(self) -> str:
        name = next(
            (
                str(self._columns[key])
                for key in ("name", "label", "slug", "key", "title", "id")
                if self._columns.get(key)
            ),
            "",
        )
        return f"<{self._table} {name}>"

    def _repr_html_(self) -> str:
        from theatrum.catalog.query import html

        said = {
            name: value
            for name, value in self._columns.items()
            if value not in (None, "", [], {})
        }
        return html.facts(said)


def maker(resource: str) -> Callable[[Backend, RowData], Any]:
    """What makes a resource's rows of their columns; Any: images have their own."""
    if resource == "images":
        from theatrum.catalog.image import CatalogImage

        return CatalogImage

    def make(backend: Backend, columns: RowData) -> Row:
        return Row(backend, columns, resource)

    return make


def shown(value: object) -> str:
    """A column's value for people."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return str(value)
