"""Fixtures that every test may use, and the line that says which data ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BEGAN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", action="store_true", help="run the fuzz tests as well")
    parser.addoption(
        "--long-until",
        type=float,
        metavar="MINUTES",
        help="skip tests marked long that would begin later than this",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put the long tests last, and leave the fuzz tests out unless asked for."""
    if config.getoption("--long-until") is not None:
        items.sort(key=lambda item: "long" in item.keywords)
    if config.getoption("--fuzz"):
        return
    left_out = [item for item in items if "fuzz" in item.keywords]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a long test, by name, once the time for such is over."""
    minutes = item.config.getoption("--long-until")
    if minutes is None or "long" not in item.keywords:
        return
    if time.monotonic() - BEGAN > minutes * 60:
        pytest.skip(f"a long test, and {minutes:g} minutes are over")


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
