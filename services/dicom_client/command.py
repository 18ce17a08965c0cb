"""`theatrum dicom-client`: the web server and the workers, with a hub or without."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hub import system_accounts
from hub.home import Home
from hub.settings import Settings, SettingsError, load
from services.dicom_client.errors import DicomClientError

if TYPE_CHECKING:
    from services.dicom_client.settings import ServiceSettings

dicom_client = typer.Typer(
    help="Segment DICOM series: de-identify, send, fetch, give back, deliver.",
    no_args_is_help=True,
)

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The installation's folder.")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="postgresql+psycopg://USER@HOST/NAME; by default SQLite in the home.",
    ),
]
MetricsOption = Annotated[
    int | None,
    typer.Option("--metrics-port", help="Port of live, ready and metrics; 0: none."),
]


@dicom_client.command("serve")
def serve(
    home: HomeOption = None,
    port: Annotated[int, typer.Option(help="The port of pages and API.")] = 8104,
    scp_port: Annotated[
        int | None, typer.Option(help="The port to receive images on by C-STORE.")
    ] = None,
    bind: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    database: DatabaseOption = None,
    metrics_port: MetricsOption = None,
) -> None:
    """Serve the pages and receive images; `theatrum dicom-client worker` does the work.

    Without a hub, the page is opened with the password in the home's
    `dicom_client/access-token`.
    """
    from services.dicom_client.serving import serve as run

    settings, chosen = _chosen(home, metrics_port=metrics_port)
    if scp_port is not None:
        scp = chosen.scp.model_copy(update={"port": scp_port})
        chosen = chosen.model_copy(update={"scp": scp})
    url = database or settings.database_url
    _guarded(lambda: run(settings.home, chosen, database_url=url, bind=bind, port=port))


@dicom_client.command("worker")
def worker(
    home: HomeOption = None,
    database: DatabaseOption = None,
    metrics_port: MetricsOption = None,
) -> None:
    """Watch folders and work on series until told to stop; any number of these."""
    from services.dicom_client.worker import work

    settings, chosen = _chosen(home)
    url = database or settings.database_url
    ports = None if metrics_port is None else [metrics_port] if metrics_port else []
    _guarded(lambda: work(settings.home, chosen, database_url=url, metrics_ports=ports))


def _chosen(home: Path | None, **given: object) -> tuple[Settings, ServiceSettings]:
    """The installation's settings and the service's, with what was given here."""
    from services.dicom_client.settings import read

    environment = dict(os.environ)
    if home is not None:
        environment["THEATRUM_HOME"] = str(home.expanduser().absolute())
    os.umask(0o077)
    try:
        settings = load(environment)
        chosen = read(settings.dicom_client, **given)
    except (SettingsError, DicomClientError) as err:
        _refuse(str(err))
    Home(settings.home).prepare()
    if settings.mode == "accounts" and os.geteuid() == 0:
        system_accounts.become(system_accounts.SERVICES)
    return settings, chosen


def _guarded(run: Callable[[], None]) -> None:
    from hub.durable.database import BadDatabase

    try:
        run()
    except (DicomClientError, BadDatabase) as err:
        _refuse(str(err))


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
