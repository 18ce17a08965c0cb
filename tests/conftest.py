"""Fixtures that every test may use, and the line that says which data ran."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", action="store_true", help="run the fuzz tests as well")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave the fuzz tests out, unless they are asked for."""
    if config.getoption("--fuzz"):
        return
    left_out = [item for item in items if "fuzz" in item.keywords]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _shared_data() -> Path | None:
    """The folder of real test images, where this machine has one."""
    wanted = os.environ.get("THEATRUM_TEST_DATA", "../shared/data")
    folder = (ROOT / wanted).resolve()
    return folder if (folder / "wsi").is_dir() else None


def pytest_report_header() -> str:
    folder = _shared_data()
    if folder is None:
        return "test images: made in code only (THEATRUM_TEST_DATA names no folder)"
    return f"test images: made in code, and the real ones of {folder}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides and scans; tests that need it skip without it."""
    folder = _shared_data()
    if folder is None:
        pytest.skip("no real test images: set THEATRUM_TEST_DATA to their folder")
    return folder
