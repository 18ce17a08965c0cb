"""The database of the services: SQLite in WAL mode, brought to its newest schema."""

from __future__ import annotations

import fcntl
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry


def open_engine(file: Path) -> Engine:
    """An engine on a SQLite file; several processes may use the file at once."""
    engine = create_engine(f"sqlite:///{file}")

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA foreign_keys=ON")
            # Writers wait for one another instead of failing.
            cursor.execute("PRAGMA busy_timeout=10000")

    return engine


def migrate(engine: Engine, migrations: Path, lock: Path) -> None:
    """Bring the schema to the newest of `migrations`; one process does it at a time.

    The lock is a file lock: it is free again when its holder dies.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    with lock.open("w") as held, engine.begin() as connection:
        fcntl.flock(held, fcntl.LOCK_EX)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
