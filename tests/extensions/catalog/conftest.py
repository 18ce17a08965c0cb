"""Catalogues for the tests: one on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from theatrum.catalog.database import open_database

from hub.durable.database import Database
from tests import postgres


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL for all tests of the session."""
    reason = postgres.missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres.cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty catalogue, once on each kind of database."""
    if request.param == "sqlite":
        opened = open_database(tmp_path / "home")
    else:
        cluster = request.getfixturevalue("postgres_cluster")
        opened = open_database(cluster.new_database())
    yield opened
    opened.close()
