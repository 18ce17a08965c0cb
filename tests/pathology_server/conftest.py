"""A server with the whole case, a client of it, and the shared protocol files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import PathologyServer, case_scenario
from .client import Client


@pytest.fixture(scope="session")
def shared_api(shared_data: Path) -> Path:
    """The folder of the shared protocol files; tests that need it skip without it."""
    folder = shared_data.parent / "ia_api"
    if not folder.is_dir():
        pytest.skip(f"no shared protocol files: {folder.name} is not beside the images")
    return folder


@pytest.fixture
def server() -> Iterator[PathologyServer]:
    with PathologyServer(case_scenario()) as server:
        yield server


@pytest.fixture
def client(server: PathologyServer) -> Iterator[Client]:
    with Client(server) as client:
        yield client
