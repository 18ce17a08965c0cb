"""`theatrum catalog export`, `import`, `example-queries`: images leave and return."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from theatrum.catalog.errors import CatalogError

from services.catalog.ingest_command import (
    WRONG_CALL,
    HomeOption,
    ProjectOption,
    connected,
    console,
    errors,
)

if TYPE_CHECKING:
    from theatrum.catalog.connection import Catalog


def export_command(
    target: Annotated[Path, typer.Argument(help="A new .zip file, or a new folder.")],
    project: ProjectOption,
    home: HomeOption = None,
    what: Annotated[
        str, typer.Option("--what", help="bundle, originals, bids or slices.")
    ] = "bundle",
) -> None:
    """Write all images of a project, with all that belongs to them."""
    with _opened(home) as catalog:
        catalog.projects.get(name=project)
        query = catalog.images.filter(project=project)
        catalog.export(query, target, what)
        console.print(f"{query.count()} images in {target}", markup=False)


def import_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle: a zip or a folder.")],
    project: ProjectOption,
    home: HomeOption = None,
) -> None:
    """Take a bundle in; twice is once."""
    with _opened(home) as catalog:
        done = catalog.import_bundle(bundle, project)
    new, known = sum(done.new.values()), sum(done.known.values())
    images = done.new.get("image", 0)
    console.print(f"{images} new images; {new} rows written, {known} known already")
    for name in done.missing:
        errors.print(f"{name}: the bundle does not hold its file", markup=False)


def example_queries_command(project: ProjectOption, home: HomeOption = None) -> None:
    """Keep six saved queries: healthy and with a tumour, in three planes."""
    from theatrum.catalog.exchange.examples import keep_examples

    with _opened(home) as catalog:
        kept = keep_examples(catalog, project)
    for row in kept:
        console.print(f"{row.slug}: {row.title}", markup=False)
    if not kept:
        console.print("the project has them already")


@contextmanager
def _opened(home: Path | None) -> Iterator[Catalog]:
    """The home's catalogue, for whoever keeps it; refusals end the command."""
    from theatrum.catalog.connection import Catalog
    from theatrum.catalog.local import LocalBackend

    with connected(home) as (database, here):
        try:
            yield Catalog(LocalBackend(database, here.images, getpass.getuser()))
        except CatalogError as err:
            errors.print(str(err), markup=False, soft_wrap=True)
            raise typer.Exit(WRONG_CALL) from err
