"""docs/tiles/http.md says what the service does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from tile_server import answers, formats, tokens
from tile_server.service import TileService, TileSettings

DOCS = Path(__file__).parents[2] / "docs" / "tiles"
TEXT = (DOCS / "http.md").read_text("utf-8")


@pytest.mark.parametrize("ending", sorted(formats.ENDINGS))
def test_every_ending_is_documented(ending: str) -> None:
    assert f"`.{ending}`" in TEXT


@pytest.mark.parametrize("rule", [answers.FOR_EVER, answers.ASK_AGAIN, "no-store"])
def test_every_rule_of_keeping_is_documented(rule: str) -> None:
    assert f"`{rule}`" in TEXT


def test_the_figures_are_those_of_the_service() -> None:
    defaults = {field.name: field.default for field in fields(TileSettings)}
    assert f"`answer_s` ({defaults['answer_s']:.0f} s)" in TEXT
    assert "65 500" in TEXT
    assert "16 383" in TEXT


def test_every_metric_is_documented() -> None:
    source = (Path(answers.__file__).parent / "metrics.py").read_text()
    text = (DOCS / "lane.md").read_text()
    names = [part.split('"')[0] for part in source.split('"theatrum_tiles_')[1:]]
    names.remove("{name}")  # the levels, below
    assert len(names) >= 4
    for name in names:
        assert f"theatrum_tiles_{name}" in text
    service = TileService(TileSettings(tokens.new_key(), probe=None))
    levels = service.levels()
    service.stop()
    for name in levels:
        assert f"_{name}`" in text
