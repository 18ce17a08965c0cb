"""A service's database: SQLite in the home by default, PostgreSQL by address.

SQLite serves all processes of one machine; for workers on several machines the same
tables lie in PostgreSQL. Changes are made in `writing`, each one transaction that
either happens whole or not at all; `reading` takes no lock.

A SQLite transaction that read first and writes later fails at once if another wrote in
between, whatever the busy timeout says: so a writing one takes its lock when it begins.
"""

from __future__ import annotations

import fcntl
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry


class BadDatabase(Exception):
    """The address of the database is none that the services work with."""


class Database:
    """One database, shared by the threads of a process."""

    def __init__(self, url: str, folder: Path, migrations: Path) -> None:
        """`url` empty: SQLite in `folder`. Brings the schema to its newest.

        `migrations` is the service's Alembic folder; services share a PostgreSQL
        database, each with tables and a version table of its own.

        Raises
        ------
        BadDatabase
            Where `url` is neither SQLite's nor PostgreSQL's.
        """
        self.url = url or f"sqlite:///{folder / 'theatrum.sqlite'}"
        self.is_sqlite = self.url.startswith("sqlite:")
        if not self.is_sqlite and not self.url.startswith("postgres"):
            raise BadDatabase(
                "database_url takes sqlite:///FILE or "
                "postgresql+psycopg://USER@HOST/NAME."
            )
        if self.url.startswith(("postgresql://", "postgres://")):
            self.url = "postgresql+psycopg://" + self.url.partition("://")[2]
        self.engine = self._engine()
        self._reads = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite lets writers wait by sleeping, and forty threads starve each other for
        # seconds: here they queue up, and one of a process at a time asks for the lock.
        self._turn = threading.RLock() if self.is_sqlite else nullcontext()
        self._migrate(folder, migrations)

    @property
    def durable_url(self) -> str:
        """Where DBOS keeps its tables: beside ours, or in a schema of its own."""
        if not self.is_sqlite:
            return self.url
        return f"sqlite:///{Path(self.engine.url.database or '').parent}/dbos.sqlite"

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction; committed at the end, rolled back by an error."""
        with (
            self._turn,
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reading only, each statement by itself."""
        with Session(self._reads, expire_on_commit=False) as session:
            yield session

    def ping(self) -> None:
        """Raise what the driver raises where the database does not answer."""
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()

    def _engine(self) -> Engine:
        if not self.is_sqlite:
            return create_engine(
                self.url, pool_size=10, max_overflow=30, pool_pre_ping=True
            )
        engine = create_engine(
            self.url, pool_size=10, max_overflow=30, json_deserializer=_json
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
            # The driver begins transactions when it thinks fit: `begin` does it here.
            connection.isolation_level = None
            with closing(connection.cursor()) as cursor:
                cursor.execute("PRAGMA busy_timeout=30000")
                cursor.execute("PRAGMA journal_mode=WAL")
                cursor.execute("PRAGMA foreign_keys=ON")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            if connection.get_execution_options().get("isolation_level") != (
                "AUTOCOMMIT"
            ):
                connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    def _migrate(self, folder: Path, migrations: Path) -> None:
        """Bring the schema to its newest; one process does it at a time."""
        config = Config()
        config.set_main_option("script_location", str(migrations).replace("%", "%%"))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "theatrum.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with self.engine.begin() as connection:
                if not self.is_sqlite:
                    # A number that no other program on the server is likely to take.
                    name = f"theatrum {migrations.parent.name}"
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"),
                        {"key": zlib.crc32(name.encode())},
                    )
                config.attributes["connection"] = connection
                command.upgrade(config, "head")


# Any: JSON
def _json(text: str) -> Any:
    """A JSON column's value; what is no JSON (`NaN`, `Infinity`) is nothing.

    SQLite keeps any text, and Python writes these words where nobody forbids it;
    PostgreSQL refuses them itself.
    """
    return json.loads(text, parse_constant=lambda _word: None)
