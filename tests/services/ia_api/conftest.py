"""Sites for the tests of the service: one shared by a file, or one of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .running_site import Site, running_site


@pytest.fixture(scope="module")
def ia_api_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with one worker; a file's tests share it, each with its own slides."""
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def idle_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site without a worker: nothing but the web server calls back."""
    with running_site(tmp_path_factory.mktemp("idle"), workers=0) as site:
        yield site


@pytest.fixture
def site_folder(tmp_path: Path) -> Path:
    """Where a test makes a site of its own, with its own settings."""
    return tmp_path
