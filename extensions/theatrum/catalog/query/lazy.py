"""A question that one goes on asking: immutable, and asked only when it is looked at.

    images.filter(sample__experiment__name__startswith="Animal", modality="MR")
          .exclude(tags="bad").order_by("-created_at")[:20]

Each method gives a new query. Rows are fetched by a loop, `first()`, `one()`, `get()`,
an index or a conversion, numbers by `count()`, `exists()` and `facets()`. Printed, a
query shows its SQL; in a notebook, a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from theatrum.catalog.backend import Backend, RowData
from theatrum.catalog.errors import BadQuery, NotFound, SeveralFound
from theatrum.catalog.query.facets import Facet
from theatrum.catalog.query.spec import Leaf, Q, Spec

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import xarray

    from theatrum.catalog.engine.batch import Batch
    from theatrum.catalog.engine.far import RemoteBatch
    from theatrum.catalog.flows.graph import Flow

Handle = TypeVar("Handle")
Make = Callable[[Backend, RowData], Handle]


class Query(Generic[Handle]):
    """A question about one resource."""

    def __init__(self, backend: Backend, spec: Spec, make: Make[Handle]) -> None:
        self._backend = backend
        self._make = make
        self.spec = spec

    def _with(self, **changed: Any) -> Query[Handle]:
        return Query(self._backend, replace(self.spec, **changed), self._make)

    # Asking on

    def all(self) -> Query[Handle]:
        """The same question."""
        return self

    # Any here and below: whatever a field can be compared with
    def filter(self, *conditions: Q, **more: Any) -> Query[Handle]:
        """Those of the rows of which all conditions are true."""
        return self._narrowed(Q(*conditions, **more))

    def exclude(self, *conditions: Q, **more: Any) -> Query[Handle]:
        """Those of the rows of which not all conditions are true."""
        return self._narrowed(~Q(*conditions, **more))

    def search(self, words: str) -> Query[Handle]:
        """The images with all of the words; see `theatrum.catalog.query.text`."""
        return self._narrowed(Q(search=words))

    def order_by(self, *fields: str) -> Query[Handle]:
        """In the order of fields; `-field` puts the largest first."""
        self._refuse_slice("sort")
        return self._with(order=fields)

    def values(self, *fields: str) -> Query[dict[str, Any]]:
        """These fields of each row, as dictionaries."""
        if not fields:
            raise BadQuery("name the fields, such as values('name', 'modality')")
        return Query(self._backend, replace(self.spec, values=fields), _as_it_is)

    def distinct(self) -> Query[Handle]:
        """Of equal values one; for what `values` gives."""
        if not self.spec.values:
            raise BadQuery("distinct goes with values: rows are never equal")
        return self._with(distinct=True)

    def _narrowed(self, condition: Q) -> Query[Handle]:
        self._refuse_slice("narrow")
        return self._with(where=(*self.spec.where, condition))

    def _refuse_slice(self, what: str) -> None:
        if self.spec.limit is not None or self.spec.offset:
            raise BadQuery(f"{what} first and slice then: this query is a slice")

    # Looking

    def __iter__(self) -> Iterator[Handle]:
        for row in self._backend.each(self.spec):
            yield self._make(self._backend, row)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return self.exists()

    @overload
    def __getitem__(self, at: int | str) -> Handle: ...
    @overload
    def __getitem__(self, at: slice) -> Query[Handle]: ...
    def __getitem__(self, at: int | str | slice) -> Handle | Query[Handle]:
        """A slice, the row at a place, or the row of an id or a `project/name`."""
        if isinstance(at, slice):
            return self._sliced(at)
        if isinstance(at, str):
            return self._named(at)
        if at < 0:
            raise BadQuery("count from the beginning: turn the order for the last")
        for row in self._sliced(slice(at, at + 1)):
            return row
        raise IndexError(f"the query finds no row {at}")

    def _sliced(self, at: slice) -> Query[Handle]:
        begin, end = at.start or 0, at.stop
        if begin < 0 or (end is not None and end < 0) or at.step not in (None, 1):
            raise BadQuery("a slice counts from the beginning, one by one")
        limit = self.spec.limit if end is None else max(end - begin, 0)
        if self.spec.limit is not None:
            limit = min(limit or 0, max(self.spec.limit - begin, 0))
        return self._with(offset=self.spec.offset + begin, limit=limit)

    def _named(self, key: str) -> Handle:
        project, slash, name = key.partition("/")
        if slash and self.spec.of in ("images", "samples", "experiments", "flows"):
            found = self.filter(project__name=project, name=name)
        else:
            found = self.filter(id=key)
        try:
            return found.one()
        except NotFound as err:
            raise NotFound(
                f"none of the {self.spec.of} is {key!r}: name it as project/name or by "
                "its id, as a listing shows them"
            ) from err

    def count(self) -> int:
        """How many rows there are."""
        return self._backend.count(self.spec)

    def exists(self) -> bool:
        """Whether there is a row."""
        limit = 1 if self.spec.limit is None else min(1, self.spec.limit)
        return bool(self._backend.rows(replace(self.spec, limit=limit)))

    def first(self) -> Handle | None:
        """The first row in the query's order; None where there is none."""
        return next(iter(self[:1]), None)

    def one(self) -> Handle:
        """The only row; raises NotFound or SeveralFound."""
        # Without iter() a list would count the rows first.
        found: list[Handle] = [*iter(self[:2])]
        if not found:
            raise NotFound(f"none of the {self.spec.of} is like this")
        if len(found) > 1:
            raise SeveralFound(
                f"{self.count()} of the {self.spec.of} are like this: narrow the "
                "query, or take first()"
            )
        return found[0]

    def get(self, *conditions: Q, **more: Any) -> Handle:
        """The only row of which the conditions are true; as `filter(...).one()`."""
        return self.filter(*conditions, **more).one()

    def facets(
        self, *fields: str, limit: int = 50, **edges: Sequence[float]
    ) -> dict[str, dict[Any, int]]:
        """How many rows have each value of some fields, the most frequent first.

        A named field has bins: `facets("modality", spacing=[0.5, 1, 2])` counts those
        below 0.5, from 0.5 to below 1, and so on.
        """
        asked = [Facet(name, limit) for name in fields]
        asked += [
            Facet(name, limit, tuple(float(one) for one in borders))
            for name, borders in edges.items()
        ]
        found = self._backend.facets(self.spec, asked)
        return {
            facet.field: {
                _bin(facet, value): count for value, count in found[facet.field]
            }
            for facet in asked
        }

    def sql(self) -> str:
        """The SQL by which rows are fetched."""
        return self._backend.sql(self.spec)

    def to_json(self) -> dict[str, Any]:
        """The question as JSON, for a saved query or the service."""
        return self.spec.to_json()

    # As something else

    def to_arrow(self) -> pyarrow.Table:
        """The rows as an Arrow table; JSON columns as text."""
        from theatrum.catalog.query import tables

        return tables.arrow(self.spec, self._fetched())

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame, with the types of their columns."""
        from theatrum.catalog.query import tables

        return tables.frame(self.spec, self._fetched())

    def to_xarray(self) -> xarray.Dataset:
        """The images' arrays, not yet read, as one Dataset: a variable for each.

        Images of equal shape are better stacked by `xarray.concat`; here each keeps
        dimensions of its own, called by its place and their names.
        """
        from theatrum.catalog.query import tables

        return tables.dataset(self)

    # Any: dask has no types
    def to_bag(self, npartitions: int | None = None) -> Any:
        """The rows as a dask bag; of images, of their arrays, not yet read."""
        from theatrum.catalog.query import tables

        return tables.bag(self, npartitions)

    # Working on them

    # Any: a node's parameters, and values of its other inputs
    def map(self, node: Any, **given: Any) -> Batch | RemoteBatch:
        """Run a node on every image that is found; each result is kept with its run.

        `given`: the node's parameters and its other inputs by name; `engine` (an
        address such as "local" or "tcp://host:8786", or an `Engine`); `project` for
        the results; `by`, a column, for nodes that take several images; `on_error`
        (continue, stop, threshold), `retries`, `isolate`, `timeout_s`, `refresh`.
        Where the node has a parameter of such a name: `parameters={"name": "x"}`.
        A catalogue behind a service does a node that it knows there; another one, or
        what names an `engine`, is done from here, and kept there all the same.
        """
        from theatrum.catalog.engine.batch import map_query
        from theatrum.catalog.remote import RemoteBackend

        if isinstance(self._backend, RemoteBackend):
            from theatrum.catalog.engine.ordering import order_node

            return order_node(self, node, **given)
        return map_query(self, node, **given)

    # Any: placeholders and inputs of the flow
    def apply(
        self, flow: Flow | Mapping[str, Any], **given: Any
    ) -> Batch | RemoteBatch:
        """Run a flow on every image that is found; see `theatrum.catalog.flows`.

        `given`: the flow's placeholders, and what `map` takes.
        """
        from theatrum.catalog.flows.running import run_flow
        from theatrum.catalog.remote import RemoteBackend

        if isinstance(self._backend, RemoteBackend):
            from theatrum.catalog.engine.ordering import order_flow

            return order_flow(self, flow, **given)
        return run_flow(self, flow, **given)

    def _fetched(self) -> list[RowData]:
        return [*self._backend.each(self.spec)]

    def __repr__(self) -> str:
        return self.sql()

    def _repr_html_(self) -> str:
        from theatrum.catalog.query import html

        return html.table(self)


def related(
    backend: Backend, of: str, make: Make[Handle], **fixed: Any
) -> Query[Handle]:
    """The rows of a resource whose columns have some values."""
    where = Q()
    object.__setattr__(
        where, "parts", tuple(Leaf(name, value) for name, value in fixed.items())
    )
    return Query(backend, Spec(of, (where,)), make)


def _as_it_is(_backend: Backend, row: RowData) -> RowData:
    return row


def _bin(facet: Facet, value: Any) -> Any:
    if not facet.edges or value is None:
        return value
    borders = ("", *(f"{edge:g}" for edge in facet.edges), "")
    low, high = borders[int(value)], borders[int(value) + 1]
    return f"{low}..{high}"
