"""The catalogue's database: SQLite in a home, or PostgreSQL by its address.

    database = open_database("/srv/theatrum")            # a home, or a study's folder
    database = open_database("postgresql+psycopg://catalog@host/theatrum")

Both come back with the newest schema. Text is compared without regard to case by
`lower` of the whole of Unicode on both: SQLite's own knows ASCII only.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from hub.durable.database import Database
from hub.home import Home
from theatrum.catalog.query import patterns, text

MIGRATIONS = Path(__file__).parent / "migrations"

LOWER = "theatrum_lower"
"""On SQLite: lower case of all letters, not of ASCII's alone."""


def open_database(where: str | os.PathLike[str] | Home, *, url: str = "") -> Database:
    """Open a catalogue, and bring its schema to the newest.

    Parameters
    ----------
    where
        An installation's home folder (made where missing), the `.sqlite` file of a
        catalogue, or the address of a database.
    url
        The database's address where it is not in the home.

    Raises
    ------
    hub.durable.database.BadDatabase
        For an address of another kind of database.
    """
    if isinstance(where, str) and "://" in where:
        return _prepared(Database(where, _beside(where), MIGRATIONS))
    if isinstance(where, Home):
        home = where
    elif Path(where).suffix in (".sqlite", ".db"):
        file = Path(where).absolute()
        return _prepared(Database(f"sqlite:///{file}", file.parent, MIGRATIONS))
    else:
        home = Home(Path(where).absolute())
    home.catalog.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _prepared(Database(url, home.catalog, MIGRATIONS))


def teach_case(engine: Engine) -> None:
    """Let a SQLite engine's connections fold case as PostgreSQL does, and look for
    patterns in bounded time; else nothing."""
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        # Of a value that is no text (JSON holds any) there is no lower case.
        connection.create_function(
            LOWER,
            1,
            lambda value: value.lower() if isinstance(value, str) else value,
            deterministic=True,
        )
        connection.create_function("regexp", 2, patterns.found, deterministic=True)


def _beside(url: str) -> Path:
    """The folder in which a process that migrates keeps its lock."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///")).absolute().parent
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"theatrum-{os.getuid()}"  # noqa: S108


def _prepared(database: Database) -> Database:
    teach_case(database.engine)
    # The migration opened connections before.
    database.engine.dispose()
    text.keep_words()
    return database
