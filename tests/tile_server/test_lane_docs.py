"""The document on the fast lane says what there is."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from tile_server import __main__ as commands
from tile_server.lane import Limits
from tile_server.service import TileSettings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "tiles" / "lane.md").read_text()
SOURCE = Path(commands.__file__).read_text()


@pytest.mark.parametrize(
    "name",
    [
        "THEATRUM_TILE_LANE_PORT",
        "THEATRUM_TILE_METRICS_PORT",
        "THEATRUM_TILE_WORKERS",
        "THEATRUM_TILE_CORS",
        "--lane-port",
        "--metrics-port",
        "--workers",
        "--cors",
    ],
)
def test_every_option_is_in_the_commands_and_in_the_document(name: str) -> None:
    assert name in SOURCE
    assert name in TEXT


def test_the_limits_are_those_of_the_document() -> None:
    limits = Limits()
    assert f"{limits.head_bytes // 1024} KB, {limits.headers} headers" in TEXT
    for name in ("head_s", "idle_s", "write_s", "answer_s"):
        assert f"| {getattr(limits, name):.0f} s |" in TEXT
    assert f"| {limits.connections} |" in TEXT


def test_the_settings_have_the_values_of_the_document() -> None:
    defaults = {field.name: field.default for field in fields(TileSettings)}
    assert f"`most_waiting` | {defaults['most_waiting']} |" in TEXT
    assert f"`answer_s` | {defaults['answer_s']:.0f} |" in TEXT
    assert f"`most_open` | {defaults['most_open']} |" in TEXT
