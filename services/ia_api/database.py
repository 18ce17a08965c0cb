"""The service's tables in the installation's database."""

from __future__ import annotations

from pathlib import Path

from hub.durable.database import Database

_MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str, folder: Path) -> Database:
    """`url` empty: SQLite in `folder`. Brings the schema to its newest.

    Raises BadDatabase for an address that is neither SQLite's nor PostgreSQL's.
    """
    return Database(url, folder, _MIGRATIONS)
