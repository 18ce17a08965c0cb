"""`theatrum catalog ingest PATH... --project P`: images come in."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from theatrum.catalog.ingest.report import Report
    from theatrum.catalog.ingest.wishes import Progress

    from hub.durable.database import Database
    from hub.home import Home

DONE = 0
SOME_REFUSED = 1
WRONG_CALL = 2
INTERRUPTED = 130

RECEIVED = ".received"
"""Below the home's folder of images: what was sent here and is not taken in yet."""

errors = Console(stderr=True, highlight=False)
console = Console(highlight=False)

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The installation's folder.")
]
DeidentifyOption = Annotated[
    str,
    typer.Option(
        "--deidentify",
        metavar="PROFILE",
        help="De-identify DICOM on the way in: basic, autosegmentation, a file.",
    ),
]
InboxOption = Annotated[
    bool, typer.Option("--inbox", help="Let it wait in the inbox for a review.")
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
    deidentify: DeidentifyOption = "",
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="The secret of pseudonyms; else the home's."),
    ] = None,
    inbox: InboxOption = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where something is refused.")
    ] = False,
    modality: Annotated[
        str,
        typer.Option("--modality", help="Of all of it, such as MR; over what it says."),
    ] = "",
    subject: Annotated[
        str, typer.Option("--subject", help="The label of whose all of it is.")
    ] = "",
) -> None:
    """Take images into a project; what cannot be taken in is told with its reason.

    Ctrl-C keeps what is done. Run again, what is in the project already is known by its
    checksum.
    """
    from theatrum.catalog.errors import CatalogError
    from theatrum.catalog.ingest import Wishes, ingest

    _require_one_of(paths)
    wishes = Wishes(
        project,
        actor=_actor(),
        copy=copy,
        profile=deidentify,
        key_file=key_file,
        fields={
            name: value
            for name, value in (("modality", modality), ("subject__label", subject))
            if value
        },
        received_from="command line",
    )
    try:
        with connected(home) as (database, here), bar() as progress:
            if inbox:
                from theatrum.catalog.ingest.inbox import collect

                done = collect(database, here, paths, wishes, progress=progress)
            else:
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


@catalog_commands.command("watch")
def watch_command(
    folder: Annotated[Path, typer.Argument(help="What is put there is taken in.")],
    project: ProjectOption,
    home: HomeOption = None,
    deidentify: DeidentifyOption = "",
    inbox: InboxOption = False,
    settled: Annotated[
        float, typer.Option("--settled", help="Seconds that files must lie still.")
    ] = 10.0,
) -> None:
    """Take in what is put into a folder, until Ctrl-C."""
    import threading

    from theatrum.catalog.ingest import Wishes, ingest
    from theatrum.catalog.ingest.inbox import collect
    from theatrum.catalog.ingest.watch import Watched, watch

    wishes = Wishes(
        project, _actor(), copy=True, profile=deidentify, received_from="watched folder"
    )
    with connected(home) as (database, here):

        def take(paths: list[Path]) -> None:
            sources = sorted({str(_series_folder(path, folder)) for path in paths})
            run = collect if inbox else ingest
            done = run(database, here, sources, wishes)
            tell(done)
            if done.interrupted:
                raise KeyboardInterrupt

        ended = threading.Event()
        try:
            watch(Watched(folder.absolute(), settled), take, ended=ended)
        except KeyboardInterrupt:
            raise typer.Exit(DONE) from None


@catalog_commands.command("receive")
def receive_command(
    project: ProjectOption,
    port: Annotated[int, typer.Option("--port", help="To listen at.")] = 11112,
    host: Annotated[
        str, typer.Option("--host", help="By default only this machine can send.")
    ] = "127.0.0.1",
    title: Annotated[
        str, typer.Option("--title", help="Of this node, for the senders.")
    ] = "THEATRUM",
    sender: Annotated[
        list[str] | None,
        typer.Option("--sender", help="A title that may send; repeatable."),
    ] = None,
    home: HomeOption = None,
    deidentify: DeidentifyOption = "",
    inbox: InboxOption = False,
) -> None:
    """Take in what DICOM nodes send by C-STORE, until Ctrl-C.

    What was received and not yet taken in when it ended comes first the next time.
    """
    from theatrum.catalog.ingest import Wishes, ingest
    from theatrum.catalog.ingest.inbox import collect
    from theatrum.catalog.ingest.receiver import receiving

    with connected(home) as (database, here):
        staging = here.images / RECEIVED / _purpose(project, deidentify, inbox)
        try:
            with receiving(
                staging, port=port, host=host, title=title, senders=tuple(sender or ())
            ) as receiver:
                errors.print(f"Listening at {host}:{receiver.port} as {title}.")
                while True:
                    folder, from_whom = receiver.arrived.get()
                    wishes = Wishes(
                        project,
                        _actor(),
                        copy=True,
                        profile=deidentify,
                        received_from=f"C-STORE from {from_whom}",
                    )
                    run = collect if inbox else ingest
                    done = run(database, here, [str(folder)], wishes)
                    tell(done)
                    if done.interrupted:
                        raise KeyboardInterrupt
                    _cleared(folder, refused=bool(done.refused))
        except KeyboardInterrupt:
            raise typer.Exit(DONE) from None


def _purpose(project: str, deidentify: str, inbox: bool) -> str:
    """Name what is received for one purpose, lest it is taken in for another."""
    told = json.dumps([project, deidentify, inbox]).encode()
    return hashlib.blake2b(told, digest_size=8).hexdigest()


def _cleared(folder: Path, *, refused: bool) -> None:
    """Remove a received folder, unless what was refused is nowhere else any more."""
    if not refused:
        shutil.rmtree(folder, ignore_errors=True)
        return
    aside = folder.parent / "refused"
    aside.mkdir(mode=0o700, exist_ok=True)
    kept = folder.rename(aside / folder.name)
    errors.print(f"What was sent lies in {kept}.", markup=False, soft_wrap=True)


inbox_commands = typer.Typer(
    help="Review what waits before it enters a project.", no_args_is_help=True
)
catalog_commands.add_typer(inbox_commands, name="inbox")
ItemArgument = Annotated[str, typer.Argument(metavar="ITEM", help="As `list` says.")]


@inbox_commands.command("list")
def list_inbox(
    project: Annotated[
        str | None, typer.Option("--project", help="Of this project only.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Show what waits, with what the rules say that it is."""
    from rich.table import Table
    from theatrum.catalog.ingest.inbox import waiting

    table = Table("item", "what", "files", "modality", "proposal", "findings")
    with connected(home) as (database, _):
        for one in waiting(database, frozenset({project}) if project else None):
            said = ", ".join(f"{name}={value}" for name, value in one.proposal.items())
            table.add_row(
                one.id,
                one.title,
                str(one.n_files),
                one.modality or one.format,
                said,
                "\n".join(one.findings),
            )
    console.print(table)


@inbox_commands.command("accept")
def accept_inbox(
    items: Annotated[list[str], typer.Argument(metavar="ITEM...")],
    home: HomeOption = None,
    deidentify: DeidentifyOption = "",
) -> None:
    """Take items into their project."""
    from theatrum.catalog.errors import CatalogError
    from theatrum.catalog.ingest import Wishes
    from theatrum.catalog.ingest.inbox import accept

    wishes = Wishes("", _actor(), profile=deidentify)
    refused = False
    with connected(home) as (database, here):
        for item in items:
            try:
                done = accept(database, here, item, actor=_actor(), wishes=wishes)
            except CatalogError as error:
                errors.print(str(error), markup=False)
                refused = True
                continue
            tell(done)
            refused = refused or bool(done.refused)
    raise typer.Exit(SOME_REFUSED if refused else DONE)


@inbox_commands.command("reject")
def reject_inbox(
    item: ItemArgument,
    reason: Annotated[str, typer.Option("--reason", help="For the record.")] = "",
    home: HomeOption = None,
) -> None:
    """Keep an item out, and remove its files."""
    from theatrum.catalog.errors import CatalogError
    from theatrum.catalog.ingest.inbox import reject

    with connected(home) as (database, _):
        try:
            reject(database, item, actor=_actor(), reason=reason)
        except CatalogError as error:
            errors.print(str(error), markup=False)
            raise typer.Exit(WRONG_CALL) from error


@inbox_commands.command("edit")
def edit_inbox(
    item: ItemArgument,
    fields: Annotated[
        list[str], typer.Argument(metavar="FIELD=VALUE...", help="sample__stain=HE")
    ],
    home: HomeOption = None,
) -> None:
    """Say what an item is, before it is taken in."""
    from theatrum.catalog.errors import CatalogError
    from theatrum.catalog.ingest.inbox import edit

    told = dict(one.partition("=")[::2] for one in fields)
    with connected(home) as (database, _):
        try:
            edit(database, item, told, actor=_actor())
        except CatalogError as error:
            errors.print(str(error), markup=False)
            raise typer.Exit(WRONG_CALL) from error


def _series_folder(path: Path, watched: Path) -> Path:
    """What is taken in together: the folder of a file, or a file of the top folder."""
    return path if path.parent == watched.absolute() else path.parent


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
    from theatrum.catalog.ingest import Step

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


def _require_one_of(paths: list[str]) -> None:
    """A call that names nothing that is there is a wrong one, not an empty ingest."""
    here = [one for one in paths if "://" in one or Path(one).expanduser().exists()]
    if here:
        return
    for one in paths:
        errors.print(
            f"There is no {one}: name a file, folder or address.",
            markup=False,
            soft_wrap=True,
        )
    raise typer.Exit(WRONG_CALL)


def tell(done: Report) -> None:
    """What came of it, in a few lines."""
    for warning in done.warnings:
        errors.print(warning, markup=False, soft_wrap=True)
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
