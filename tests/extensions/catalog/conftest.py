"""Catalogues for the tests: one on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from theatrum.catalog.database import open_database

from hub.durable.database import Database
from tests import postgres
from tests.extensions.catalog import small_world


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


@pytest.fixture(params=["sqlite", "postgresql"])
def small(request: pytest.FixtureRequest, worlds: dict[str, Database]) -> Database:
    """The small world, once on each kind of database; tests only read it."""
    if request.param not in worlds:
        if request.param == "sqlite":
            folder = request.getfixturevalue("tmp_path_factory").mktemp("small")
            opened = open_database(folder)
        else:
            cluster = request.getfixturevalue("postgres_cluster")
            opened = open_database(cluster.new_database())
        small_world.build(opened)
        worlds[request.param] = opened
    return worlds[request.param]


@pytest.fixture(scope="session")
def worlds() -> Iterator[dict[str, Database]]:
    """The small worlds that have been made."""
    made: dict[str, Database] = {}
    yield made
    for opened in made.values():
        opened.close()
