"""`theatrum catalog ingest PATH... --project P`: images come in."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from theatrum.catalog.ingest.pipeline import Progress
    from theatrum.catalog.ingest.report import Report

    from hub.durable.database import Database
    from hub.home import Home

DONE = 0
SOME_REFUSED = 1
WRONG_CALL = 2
INTERRUPTED = 130

errors = Console(stderr=True, highlight=False)
console = Console(highlight=False)

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The installation's folder.")
]
ProjectOption = Annotated[str, typer.Option("--project", help="Where it belongs.")]


catalog_commands = typer.Typer(
    help="Take images into the catalogue.", no_args_is_help=True
)


@catalog_commands.command("ingest")
def ingest_command(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Files, folders, archives, manifests, or addresses (s3://, https://, "
            "dicomweb+https://).",
        ),
    ],
    project: ProjectOption,
    home: HomeOption = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write what was taken and refused here (JSON)."),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Keep the originals in the home, too.")
    ] = False,
    deidentify: Annotated[
        str,
        typer.Option(
            "--deidentify",
            metavar="PROFILE",
            help="De-identify DICOM on the way in: basic, autosegmentation, a file.",
        ),
    ] = "",
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="The secret of pseudonyms; else the home's."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where something is refused.")
    ] = False,
) -> None:
    """Take images into a project; what cannot be taken in is told with its reason.

    Ctrl-C keeps what is done. Run again, what is in the project already is known by its
    checksum.
    """
    from theatrum.catalog.errors import CatalogError
    from theatrum.catalog.ingest.pipeline import Wishes, ingest

    wishes = Wishes(
        project,
        actor=_actor(),
        copy=copy,
        profile=deidentify,
        key_file=key_file,
        received_from="command line",
    )
    try:
        with connected(home) as (database, here), bar() as progress:
            done = ingest(database, here, paths, wishes, progress=progress)
    except CatalogError as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(WRONG_CALL) from error
    if report is not None:
        done.write(report)
    tell(done)
    if done.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(SOME_REFUSED if strict and done.refused else DONE)


@contextmanager
def connected(home: Path | None) -> Iterator[tuple[Database, Home]]:
    """The catalogue of a home, as the account that serves it."""
    from theatrum.catalog.database import open_database

    from hub import system_accounts
    from hub.home import Home
    from hub.settings import SettingsError, load

    environment = dict(os.environ)
    if home is not None:
        environment["THEATRUM_HOME"] = str(home.expanduser().absolute())
    try:
        settings = load(environment)
    except SettingsError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(WRONG_CALL) from error
    here = Home(settings.home)
    os.umask(0o077)
    here.prepare()
    if settings.mode == "accounts" and os.geteuid() == 0:
        # What that account cannot read, the tile service could not serve either.
        system_accounts.become(system_accounts.SERVICES)
    database = open_database(here)
    try:
        yield database, here
    finally:
        database.close()


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on standard error; names of files are shown to nobody else."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from theatrum.catalog.ingest.pipeline import Step

    titles = {"fetch": "Fetching", "sort": "Sorting", "take": "Taking in"}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as shown:
        tasks = {
            name: shown.add_task(title, total=None, visible=False)
            for name, title in titles.items()
        }

        def show(step: Step) -> None:
            shown.update(
                tasks[step.phase],
                completed=step.done,
                total=step.total or None,
                visible=True,
            )

        yield show


def tell(done: Report) -> None:
    """What came of it, in a few lines."""
    for entry in done.entries:
        if entry.status == "refused":
            files = entry.files[0]
            more = f" and {len(entry.files) - 1} more" if len(entry.files) > 1 else ""
            errors.print(
                f"left out {files}{more}: {entry.reason}", markup=False, soft_wrap=True
            )
        else:
            for name in entry.images:
                console.print(
                    f'{entry.files[0]}: images["{name}"]', markup=False, soft_wrap=True
                )
            for warning in entry.warnings:
                errors.print(f"  {warning}", markup=False, soft_wrap=True)
    counts = done.counts
    line = f"{counts['taken']} taken in, {counts['known']} known already, "
    if counts["waiting"]:
        line += f"{counts['waiting']} waiting in the inbox, "
    line += f"{counts['refused']} left out"
    if done.interrupted:
        line += "; interrupted: run it again for the rest"
    errors.print(line + ".", markup=False)


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
