"""A catalogue on a database that this process opens itself: no server at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import CompileError, DBAPIError, StatementError

from hub.durable.database import Database
from theatrum.catalog import writing
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadQuery
from theatrum.catalog.lineage import trace
from theatrum.catalog.query.facets import Facet, facet_query
from theatrum.catalog.query.spec import Spec
from theatrum.catalog.query.sql import Compiler, Projects, Rows
from theatrum.catalog.saving import keep, opened, planes, thumbnail

if TYPE_CHECKING:
    import xarray

    from theatrum.catalog.formats.scene import Scene


AT_ONCE = 500
"""Rows that a loop fetches at a time."""


@dataclass(frozen=True)
class LocalBackend:
    """A database, as one user sees it."""

    database: Database = field(repr=False)
    files: Path
    """Where arrays that are made here are kept: a folder `derived` is made in it."""
    user: str
    """The human for whom it is asked and recorded."""
    projects: Projects = None
    """What may be seen; None for all."""
    writable: Projects = None
    """What may be written to; None for all that may be seen."""
    on_behalf_of: str | None = None
    """The service's account, where one works for the user."""
    scenes: Callable[[str, int], Scene] | None = field(default=None, repr=False)
    """Opens the image at a path; None to open it in this process."""

    @property
    def compiler(self) -> Compiler:
        """What turns questions into this database's SQL."""
        return Compiler(self.database.engine.dialect.name, self.projects)

    # Questions

    def rows(self, spec: Spec) -> list[RowData]:
        """See `Backend`."""
        return [dict(row) for row in self._asked(self.compiler.rows(spec))]

    def each(self, spec: Spec) -> Iterator[RowData]:
        """See `Backend`; held open while one looks, so that it is one answer."""
        query = self.compiler.rows(spec)
        with self._refusing(), self._streaming() as connection:
            for row in connection.execute(query).mappings():
                yield dict(row)

    def count(self, spec: Spec) -> int:
        """See `Backend`."""
        (row,) = self._asked(self.compiler.count(spec))
        (number,) = row.values()
        return int(number)

    # Any: a facet's value is whatever its column holds
    def facets(
        self, spec: Spec, facets: Sequence[Facet]
    ) -> dict[str, list[tuple[Any, int]]]:
        """See `Backend`."""
        return {
            facet.field: [
                (row["value"], row["count"])
                for row in self._asked(facet_query(self.compiler, spec, facet))
            ]
            for facet in facets
        }

    def sql(self, spec: Spec) -> str:
        """See `Backend`."""
        query = self.compiler.rows(spec)
        dialect = self.database.engine.dialect
        try:
            written = query.compile(
                dialect=dialect, compile_kwargs={"literal_binds": True}
            )
        except CompileError:  # a list of PostgreSQL's has no literal form
            plain = query.compile(dialect=dialect)
            return f"{plain}\n-- {plain.params}"
        return str(written)

    def _asked(self, query: Rows) -> Sequence[Mapping[str, Any]]:
        with self._refusing(), self.database.reading() as session:
            found = session.connection().execute(query).mappings().all()
        return [dict(row) for row in found]

    @contextmanager
    def _streaming(self) -> Iterator[Connection]:
        """A connection that fetches a few rows at a time.

        PostgreSQL does so within a transaction only, which on SQLite would keep
        writers waiting.
        """
        if self.database.is_sqlite:
            with self.database.reading() as session:
                yield session.connection(execution_options={"yield_per": AT_ONCE})
            return
        with self.database.engine.connect() as connection:
            yield connection.execution_options(yield_per=AT_ONCE)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn what the database minds about a question into a BadQuery."""
        try:
            yield
        except (DBAPIError, StatementError) as err:
            if _is_about_the_question(err):
                raise BadQuery(f"the database refuses a value: {err.orig}") from err
            raise

    # Writing

    def create(self, resource: str, values: Mapping[str, Any]) -> RowData:
        """See `Backend`."""
        return writing.create(self, resource, values)

    def change(self, resource: str, key: str, values: Mapping[str, Any]) -> RowData:
        """See `Backend`."""
        return writing.change(self, resource, key, values)

    def remove(self, resource: str, key: str) -> None:
        """See `Backend`."""
        writing.remove(self, resource, key)

    # Images

    def lineage(self, kind: str, key: str) -> dict[str, Any]:
        """See `Backend`."""
        return trace(self, kind, key).to_json()

    def array(self, image: RowData, level: int) -> xarray.DataArray:
        """See `Backend`."""
        return opened(image, level, self.scenes)

    def thumbnail(self, image: RowData, size: int) -> bytes:
        """See `Backend`."""
        return thumbnail(self, image, size)

    def keep(self, array: xarray.DataArray, kept: Mapping[str, Any]) -> RowData:
        """See `Backend`."""
        return keep(self, array, kept)

    def planes(self, image: RowData) -> list[RowData]:
        """See `Backend`."""
        return planes(self, image)

    def close(self) -> None:
        """See `Backend`."""
        self.database.close()


def _is_about_the_question(err: DBAPIError | StatementError) -> bool:
    """Whether the database minds a value: a bad pattern, a number out of range."""
    # PostgreSQL: class 22 is data, 2201B a regular expression
    state = getattr(err.orig, "sqlstate", None) or ""
    return state.startswith("22") or isinstance(err.orig, OverflowError)
