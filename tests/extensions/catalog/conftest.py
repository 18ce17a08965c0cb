"""Catalogues for the tests: one on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from theatrum.catalog.connection import Catalog, connect
from theatrum.catalog.database import open_database
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.tables import Project, ProjectGroup

from hub.durable.database import Database
from tests import postgres
from tests.extensions.catalog import small_world
from tests.services.catalog.running import catalogue


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
    return _world(request, request.param, worlds)


def _world(
    request: pytest.FixtureRequest, kind: str, worlds: dict[str, Database]
) -> Database:
    if kind not in worlds:
        if kind == "sqlite":
            folder = request.getfixturevalue("tmp_path_factory").mktemp("small")
            opened = open_database(folder)
        else:
            cluster = request.getfixturevalue("postgres_cluster")
            opened = open_database(cluster.new_database())
        small_world.build(opened)
        worlds[kind] = opened
    return worlds[kind]


@dataclass(frozen=True)
class Seen:
    """The small world, in one of the ways in which a catalogue can be had."""

    database: Database | None
    folder: Path
    url: str = ""

    def by(self, user: str, projects: frozenset[str] | None) -> Catalog:
        """As somebody who may see these projects (over REST: the one who may)."""
        if self.database is not None:
            backend = LocalBackend(self.database, self.folder, user, projects)
            return Catalog(backend)
        return connect(self.url, token=user)


@pytest.fixture(params=["sqlite", "postgresql", "rest"])
def seen(request: pytest.FixtureRequest, tmp_path: Path) -> Seen:
    """The small world on each kind of database, and behind the service."""
    if request.param == "rest":
        url: str = request.getfixturevalue("small_site")
        return Seen(None, tmp_path, url)
    worlds = request.getfixturevalue("worlds")
    return Seen(_world(request, request.param, worlds), tmp_path)


@pytest.fixture(scope="session")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with the small world: erika maintains both projects,
    max looks at `mice`, eve sees none."""
    folder = tmp_path_factory.mktemp("site")
    people = {"erika": (), "max": (), "eve": ()}
    with catalogue(folder, people) as site:
        database = site.app.state.service.database
        small_world.build(database)
        with database.writing() as session:
            for project in session.query(Project):
                session.add(_role(project, "@erika", "maintainer"))
                if project.name == "mice":
                    session.add(_role(project, "@max", "viewer"))
        yield site.url


def _role(project: Project, group: str, role: str) -> ProjectGroup:
    return ProjectGroup(project_id=project.id, group=group, role=role)


@pytest.fixture(scope="session")
def worlds() -> Iterator[dict[str, Database]]:
    """The small worlds that have been made."""
    made: dict[str, Database] = {}
    yield made
    for opened in made.values():
        opened.close()
