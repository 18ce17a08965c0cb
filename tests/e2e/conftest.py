"""One hub with the demo for all end-to-end tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_process import RunningHub, running_hub


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """The demo hub."""
    home = tmp_path_factory.mktemp("hub") / "home"
    with running_hub(home) as running:
        yield running


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The folder of a browser that has never been here."""
    return tmp_path / "profile"
