"""The command line: `theatrum`, one group of commands for each part.

Each command imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from theatrum.deidentify.command import deidentify

from hub import system_accounts
from hub.home import Home
from hub.settings import Settings, SettingsError, load
from services.catalog import exchange_command
from services.catalog.ingest_command import catalog_commands
from services.dicom_client.command import dicom_client
from services.ia_api.command import ia_api

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = typer.Typer(
    help="Theatrum: images for teaching and research.", no_args_is_help=True
)
images = typer.Typer(help="Register images.", no_args_is_help=True)
collections = typer.Typer(help="Say who may see images.", no_args_is_help=True)
app.add_typer(images, name="images")
app.add_typer(collections, name="collections")
catalog_commands.command("export")(exchange_command.export_command)
catalog_commands.command("import")(exchange_command.import_command)
catalog_commands.command("example-queries")(exchange_command.example_queries_command)
app.add_typer(catalog_commands, name="catalog")
app.add_typer(ia_api, name="ia-api")
app.add_typer(dicom_client, name="dicom-client")
app.command("deidentify")(deidentify)

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The installation's folder.")
]


def settings_for(home: Path | None) -> Settings:
    """The settings of an installation; ends the command where they are wrong."""
    environment = dict(os.environ)
    if home is not None:
        environment["THEATRUM_HOME"] = str(home.expanduser().absolute())
    try:
        return load(environment)
    except SettingsError as err:
        errors.print(str(err), markup=False)
        raise typer.Exit(2) from err


def catalogue(home: Path | None) -> Engine:
    """The catalogue's database, worked on as the account that serves it.

    What that account cannot read, the tile service could not serve either.
    """
    from services.catalog.store import open_store

    settings = settings_for(home)
    here = Home(settings.home)
    os.umask(0o077)
    here.prepare()
    if settings.mode == "accounts" and os.geteuid() == 0:
        system_accounts.become(system_accounts.SERVICES)
    return open_store(here)


@images.command("add")
def add_images(
    paths: Annotated[list[Path], typer.Argument(help="Slides, or folders of them.")],
    collection: Annotated[str, typer.Option(help="Where they are to belong.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="A hub group that may see the collection; repeatable."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Register slides; what cannot be read is reported and left out."""
    from services.catalog.register import register

    code = register(catalogue(home), paths, collection, group or [], console, errors)
    raise typer.Exit(code)


@images.command("fetch-demo")
def fetch_demo(
    collection: Annotated[str, typer.Option(help="Where it is to belong.")] = "demo",
    group: Annotated[
        list[str] | None, typer.Option(help="A hub group that may see it.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Download OpenSlide's freely licensed CMU-1 slide and register it."""
    from services.catalog.fetch_demo import FetchError, fetch
    from services.catalog.register import register

    engine = catalogue(home)
    target = Home(settings_for(home).home).images / "CMU-1.svs"
    try:
        fetch(target, console)
    except FetchError as err:
        errors.print(str(err), markup=False)
        raise typer.Exit(1) from err
    code = register(engine, [target], collection, group or [], console, errors)
    raise typer.Exit(code)


@collections.command("list")
def list_collections(home: HomeOption = None) -> None:
    """Show the collections, how many images they hold, and who may see them."""
    from rich.table import Table
    from sqlalchemy import select
    from sqlalchemy.orm import Session
    from theatrum.catalog.tables import Project

    table = Table("collection", "images", "groups that may see it")
    with Session(catalogue(home)) as session:
        for one in session.scalars(select(Project).order_by(Project.name)):
            groups = ", ".join(sorted(entry.group for entry in one.groups))
            table.add_row(one.name, str(len(one.images)), groups or "nobody yet")
    console.print(table)


@collections.command("grant")
def grant(
    collection: str,
    groups: Annotated[list[str], typer.Argument(help="Hub groups.")],
    home: HomeOption = None,
) -> None:
    """Let hub groups see a collection, from now on and without a restart."""
    from sqlalchemy.orm import Session

    from services.catalog.errors import BadNameError
    from services.catalog.store import ensure_collection

    try:
        with Session(catalogue(home)) as session:
            ensure_collection(session, collection, groups)
    except BadNameError as err:
        errors.print(str(err), markup=False)
        raise typer.Exit(2) from err


@collections.command("revoke")
def revoke(
    collection: str,
    groups: Annotated[list[str], typer.Argument(help="Hub groups.")],
    home: HomeOption = None,
) -> None:
    """Take the right from hub groups; tile addresses in use end with their day."""
    from sqlalchemy.orm import Session

    from services.catalog.errors import BadNameError
    from services.catalog.store import close_collection

    try:
        with Session(catalogue(home)) as session:
            close_collection(session, collection, groups)
    except BadNameError as err:
        errors.print(str(err), markup=False)
        raise typer.Exit(2) from err
