"""What both processes, web server and worker, open at their start."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

from hub.durable.sealing import Sealer
from hub.home import Home
from services.ia_api.apps import registered
from services.ia_api.database import open_database
from services.ia_api.handlers import Service
from services.ia_api.servers import Patience, Servers
from services.ia_api.settings import ServiceSettings
from services.ia_api.store import Store


def folder_of(home: Path) -> Path:
    """Where the service keeps its database and key."""
    return Home(home).ia_api


def phi_of(home: Path) -> Path:
    """Where jobs keep slides while they run."""
    return Home(home).phi / "ia_api"


def open_service(
    home: Path,
    settings: ServiceSettings,
    *,
    database_url: str = "",
    patience: Patience | None = None,
    listed: bool = True,
) -> Service:
    """Open the database and all that hangs on it; BadSettings says what is wrong.

    `listed`: callbacks are checked against `allow_callback`.
    """
    folder = folder_of(home)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    apps = registered(settings, home)
    database = open_database(database_url, folder)
    store = Store(database, Sealer(folder / "token.key"), settings)
    most = settings.callback_read_s
    given = patience or Patience(read_s=most)
    chosen = replace(given, read_s=min(given.read_s, most))
    servers = Servers(settings, chosen, listed=listed)
    return Service(settings, home, apps, store, servers)


def settled() -> None:
    """All is set up: keep it out of the collections of garbage from here on.

    A full one takes 0.1 s, for which a person waits; or, where it falls into a
    transaction of a worker, everybody who waits for SQLite's lock.
    """
    gc.collect()
    gc.freeze()
