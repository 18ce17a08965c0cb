"""`theatrum ia-api`: the web server and the workers, with a hub or without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from hub import system_accounts
from hub.durable.database import BadDatabase
from hub.home import Home
from hub.settings import Settings, SettingsError, load
from services.ia_api.errors import IaApiError
from services.ia_api.settings import ServiceSettings

ia_api = typer.Typer(
    help="Serve nodes as apps of Sectra's pathology server.", no_args_is_help=True
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


@ia_api.command("serve")
def serve(
    port: Annotated[int, typer.Option(help="The port to listen on.")],
    public_url: Annotated[
        str | None,
        typer.Option(help="The address by which the pathology server reaches us."),
    ] = None,
    allow_callback: Annotated[
        list[str] | None,
        typer.Option(help="Origin of a pathology server to call back; repeatable."),
    ] = None,
    home: HomeOption = None,
    bind: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    database: DatabaseOption = None,
    metrics_port: MetricsOption = None,
) -> None:
    """Answer the pathology server; the work is done by `theatrum ia-api worker`."""
    from services.ia_api.serving import serve as run

    settings, chosen = _chosen(
        home,
        public_url=public_url,
        allow_callback=tuple(allow_callback) if allow_callback else None,
        metrics_port=metrics_port,
    )
    if not chosen.public_url:
        _refuse("Give --public-url, or public_url under [ia_api] in theatrum.toml.")
    if not chosen.allow_callback:
        _refuse(
            "Give --allow-callback with the pathology server's origin, such as "
            "https://sps.example.org: nobody could be called back otherwise."
        )
    try:
        run(
            settings.home,
            chosen,
            database_url=database or settings.database_url,
            bind=bind,
            port=port,
        )
    except (IaApiError, BadDatabase) as err:
        _refuse(str(err))


@ia_api.command("worker")
def worker(
    home: HomeOption = None,
    database: DatabaseOption = None,
    metrics_port: MetricsOption = None,
) -> None:
    """Work on jobs until told to stop; as many of these as there is work for."""
    from hub.durable import health
    from services.ia_api.worker import work

    settings, chosen = _chosen(home)
    ports = (
        health.ports_of(chosen.metrics_port, worker=True)
        if metrics_port is None
        else health.ports_of(metrics_port, worker=False)
    )
    try:
        work(
            settings.home,
            chosen,
            database_url=database or settings.database_url,
            metrics_ports=ports,
        )
    except (IaApiError, BadDatabase) as err:
        _refuse(str(err))


def _chosen(home: Path | None, **given: object) -> tuple[Settings, ServiceSettings]:
    """The installation's settings and the service's, with what was given here."""
    from services.ia_api.settings import read

    environment = dict(os.environ)
    if home is not None:
        environment["THEATRUM_HOME"] = str(home.expanduser().absolute())
    os.umask(0o077)
    try:
        settings = load(environment)
        chosen = read(settings.ia_api, **given)
    except (SettingsError, IaApiError) as err:
        _refuse(str(err))
    here = Home(settings.home)
    here.prepare()
    if settings.mode == "accounts" and os.geteuid() == 0:
        system_accounts.become(system_accounts.SERVICES)
    return settings, chosen


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
