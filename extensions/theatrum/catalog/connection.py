"""Catalogues and how one is connected to: a folder, a database, a service."""

from __future__ import annotations

import functools
import getpass
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.home import Home
from theatrum.catalog.backend import Backend
from theatrum.catalog.errors import NotConnected, near
from theatrum.catalog.query.fields import RESOURCES
from theatrum.catalog.query.lazy import Query
from theatrum.catalog.query.spec import Spec
from theatrum.catalog.rows import Row, maker

if TYPE_CHECKING:
    import xarray

    from theatrum.catalog.exchange.importing import Imported
    from theatrum.catalog.image import CatalogImage
    from theatrum.catalog.ingest import Report

HOME = "THEATRUM_HOME"


class Catalog:
    """A catalogue as one user sees it: a query for each resource, and more below."""

    images: Query[CatalogImage]
    projects: Query[Row]

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    # Any: images have handles of their own
    def __getattr__(self, name: str) -> Any:
        if name in RESOURCES:
            return self.query(Spec(name))
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"a catalogue has no {name!r}.{near(name, RESOURCES)}")

    def query(self, spec: Spec) -> Query[Any]:
        """The query that asks a question."""
        return Query(self.backend, spec, maker(spec.of))

    def save(
        self,
        array: xarray.DataArray,
        name: str,
        *,
        project: str,
        inputs: Sequence[CatalogImage] = (),
        **more: Any,
    ) -> CatalogImage:
        """Keep an array as a new image, with the run that made it.

        `more`: `kind`, `node`, `params` of the run, `title`, and `fields` for columns
        of the image.
        """
        from theatrum.catalog.image import CatalogImage

        kept = {
            "name": name,
            "project": project,
            "inputs": [one.id for one in inputs],
            **more,
        }
        return CatalogImage(self.backend, self.backend.keep(array, kept))

    # Questions that are kept

    def keep_query(
        self, query: Query[Any], slug: str, *, project: str, **fields: Any
    ) -> Row:
        """Keep a query under a short name, for all of a project.

        `fields`: `title`, `description`, `public`, and `parameters` by name with their
        `title` and `default`, where the query compares with `Parameter(name)`.
        """
        said = {"slug": slug, "project": project, "spec": query.to_json(), **fields}
        return Row(
            self.backend, self.backend.create("saved_queries", said), "saved_queries"
        )

    def saved(self, slug: str, /, *, project: str = "", **values: Any) -> Query[Any]:
        """The query that was kept under a name, with values for its parameters."""
        from theatrum.catalog.query.spec import spec_from_json

        found = self.saved_queries.filter(slug=slug)
        row = (found.filter(project=project) if project else found).one()
        defaults = {
            name: said["default"]
            for name, said in row.parameters.items()
            if isinstance(said, Mapping) and "default" in said
        }
        return self.query(spec_from_json(row.spec).filled(defaults | values))

    # What happened

    def changes(self, after: int = 0, **conditions: Any) -> Iterator[Row]:
        """What was written since a number of the feed, in order; see `seq` of each."""
        query = self.events.filter(seq__gt=after, **conditions).order_by("seq")
        yield from query

    def freeze(
        self, query: Query[CatalogImage], name: str, version: str, *, project: str
    ) -> Row:
        """Keep for ever what a query of images finds now: ids and checksums."""
        from theatrum.catalog import freezing

        return freezing.freeze(self, query, (name, version), project)

    # What leaves, and comes back

    def export(
        self,
        query: Query[CatalogImage],
        path: str | os.PathLike[str],
        what: str = "bundle",
        **options: Any,
    ) -> Path:
        """Write what a query of images finds as a zip, or as a folder.

        A service makes it, and it is fetched, from where an earlier try stopped.
        `what`: bundle, originals, bids, slices; `options` choose slices. See
        `theatrum.catalog.exchange`.
        """
        from theatrum.catalog.exchange.exporting import export

        return export(self.backend, query.spec, Path(path), what, options)

    def import_bundle(
        self, path: str | os.PathLike[str], project: str | None = None
    ) -> Imported:
        """Take a bundle in; `project` for all of it, else those that it names."""
        from theatrum.catalog.exchange.importing import import_bundle

        return import_bundle(self.backend, Path(path), project)

    def ingest(
        self,
        *sources: str | os.PathLike[str],
        project: str,
        copy: bool = False,
        deidentify: str = "",
        **fields: Any,
    ) -> Report:
        """Take images in: files, folders, archives, addresses.

        The report tells what was taken, was known, or was refused and why. `fields`
        hold for all of it, such as `experiment__name="Pilot"`. To a service files are
        sent, from where an earlier try stopped, and always kept there as by `copy`.
        """
        from theatrum.catalog.ingest import Wishes, ingest
        from theatrum.catalog.local import LocalBackend

        if not isinstance(self.backend, LocalBackend):
            from theatrum.catalog.following import followed
            from theatrum.catalog.ingest.sending import send
            from theatrum.catalog.remote import RemoteBackend

            assert isinstance(self.backend, RemoteBackend)  # noqa: S101  (no third)
            with followed("items") as tell:
                return send(
                    self.backend,
                    [os.fspath(one) for one in sources],
                    project=project,
                    deidentify=deidentify,
                    fields=fields,
                    progress=tell,
                )
        wishes = Wishes(
            project, self.backend.user, copy=copy, profile=deidentify, fields=fields
        )
        return ingest(
            self.backend.database,
            Home(self.backend.files),
            [os.fspath(one) for one in sources],
            wishes,
        )

    def close(self) -> None:
        """Give back what is held."""
        self.backend.close()

    def __dir__(self) -> Iterable[str]:
        return sorted({*super().__dir__(), *RESOURCES})

    def __repr__(self) -> str:
        return f"<catalog of {self.backend.user}: {', '.join(RESOURCES)}>"


def connect(
    where: str | os.PathLike[str] | None = None,
    *,
    user: str = "",
    token: str | None = None,
    projects: Iterable[str] | None = None,
    files: str | os.PathLike[str] | None = None,
) -> Catalog:
    """Open a catalogue.

    Parameters
    ----------
    where
        A folder (an installation's home, or any: it becomes a catalogue), a `.sqlite`
        file, the address of a database, or of a catalogue's service. None: the hub's
        inside it, elsewhere that of `THEATRUM_HOME`.
    user
        For whom runs are recorded; by default the account's name. A service knows by
        the token.
    token
        A hub token, for a service.
    projects
        Only these are seen; None for all.
    files
        Where new arrays are kept, with a database that lies in no folder.

    Raises
    ------
    NotConnected
        Where none is named and none is known.
    """
    if where is None:
        return _here()
    if isinstance(where, str) and where.startswith(("http://", "https://")):
        from theatrum.catalog.remote import RemoteBackend

        return Catalog(RemoteBackend(where.rstrip("/"), token))
    from theatrum.catalog.database import open_database
    from theatrum.catalog.local import LocalBackend

    seen = None if projects is None else frozenset(projects)
    return Catalog(
        LocalBackend(
            database=open_database(where),
            files=Path(files).absolute() if files else _files(where),
            user=user or getpass.getuser(),
            projects=seen,
            writable=seen,
        )
    )


def current() -> Catalog:
    """The catalogue that `from theatrum import catalog` speaks of."""
    from theatrum.session import current_session

    session = current_session()
    if session.catalog_url is not None:
        return _service(session.catalog_url, session.token)
    home = os.environ.get(HOME, "")
    if not home:
        raise NotConnected(
            "No catalogue is known here: set THEATRUM_HOME to the folder of one, or "
            "use catalog.connect(FOLDER_OR_ADDRESS)."
        )
    return _folder(home)


def _here() -> Catalog:
    return current()


# A process has one connection to each.
@functools.lru_cache(maxsize=8)
def _service(url: str, token: str | None) -> Catalog:
    return connect(url, token=token)


@functools.lru_cache(maxsize=8)
def _folder(home: str) -> Catalog:
    return connect(home)


def _files(where: str | os.PathLike[str]) -> Path:
    """The folder in which a catalogue keeps, under `derived`, what is made in it."""
    text = os.fspath(where)
    if "://" in text:
        return Path(os.environ.get(HOME) or Path.cwd()).absolute()
    if Path(text).suffix in (".sqlite", ".db"):
        return Path(text).absolute().parent
    return Path(text).absolute()
