"""docs/tiles/planes.md says what the service does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import stacks
from tests.tile_server.conftest import Server
from tile_server.readers import style
from tile_server.readers.chunks import CHUNK_BYTES, LONGEST_CHUNK
from tile_server.readers.imports import IMPORT_BYTES

TEXT = (Path(__file__).parents[2] / "docs" / "tiles" / "planes.md").read_text("utf-8")
STYLES = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def token(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("docs") / "cells.ome.tiff"
    return server.seal(stacks.write_ome_tiff(path, stacks.CONFOCAL))


@pytest.mark.parametrize("text", STYLES)
def test_every_style_in_the_documentation_is_shown(
    server: Server, token: str, text: str
) -> None:
    style.parse(text)
    answer = server.client.get(
        f"{server.settings.base}s/{token}/0/0/0", params={"style": text}
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("route", ["statistics", "histogram"])
def test_every_field_of_an_answer_is_documented(
    server: Server, token: str, route: str
) -> None:
    for field in server.get(token, route).json():
        assert f"`{field}`" in TEXT or f"{field}=" in TEXT


def test_the_view_is_documented(server: Server, token: str) -> None:
    view = server.get(token, "view.json").json()
    told = re.findall(r"`(\w+)`", TEXT.split("| `view.json` |")[1].split("\n")[0])
    assert {"channels", "z", "t", "dtype", "z_step_um", "t_step_s", "unit"} <= set(told)
    assert set(told) <= set(view) | set(view["channels"][0])


def test_the_bounds_are_the_documented_ones() -> None:
    assert f"at most {style.LONGEST_TEXT} characters" in TEXT
    assert f"1 to {style.MOST_CHANNELS}," in TEXT
    assert f"at most {style.MOST_PROJECTED})" in TEXT
    assert f"({CHUNK_BYTES // 2**20} MiB)" in TEXT
    assert f"may be {LONGEST_CHUNK // 2**20} MiB" in TEXT
    assert f"({IMPORT_BYTES // 2**30} GiB)" in TEXT
