"""A home with an empty catalogue, and a way to take images in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from theatrum.catalog.database import open_database
from theatrum.catalog.ingest import Report, Wishes, Workers, ingest

from hub.durable.database import Database
from hub.home import Home

TakeIn = Callable[..., Report]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    here = Home(tmp_path / "home")
    here.prepare()
    return here


@pytest.fixture
def catalogue(home: Home) -> Iterator[Database]:
    opened = open_database(home)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """The processes that look at files, for all tests: they take a second to start."""
    with Workers(Home(tmp_path_factory.mktemp("workers"))) as started:
        yield started


@pytest.fixture
def take_in(catalogue: Database, home: Home, workers: Workers) -> TakeIn:
    """Take in sources, by Ann, into the project `study`."""

    def run(*sources: Path | str, **wishes: object) -> Report:
        asked = Wishes("study", "ann", **wishes)  # type: ignore[arg-type]
        listed = [str(one) for one in sources]
        return ingest(catalogue, home, listed, asked, workers=workers)

    return run
