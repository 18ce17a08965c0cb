"""Regions as the file's own numbers: whole numbers and floats as they lie there."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import slides, stacks
from tests.tile_server.conftest import Server

PLACE = "x=41&y=23&width=90&height=60"
SPECS = {
    "uint16": stacks.StackSpec(channels=3, depths=3, times=2, levels=2),
    "float32": stacks.FLOATS,
    "int8": replace(stacks.SIGNED, width=150),
}


def numbers(server: Server, token: str, rest: str) -> npt.NDArray[Any]:
    answer = server.get(token, f"region?{rest}")
    assert answer.status_code == 200, answer.text
    found: npt.NDArray[Any] = np.load(io.BytesIO(answer.content), allow_pickle=False)
    return found


@pytest.mark.parametrize("name", SPECS)
def test_a_region_has_the_numbers_and_the_type_of_the_file(
    server: Server, tmp_path: Path, name: str
) -> None:
    spec = SPECS[name]
    token = server.seal(stacks.write_ome_tiff(tmp_path / "a.ome.tiff", spec))
    truth = stacks.numbers(spec)[:, :, :, 23:83, 41:131]
    seen = numbers(server, token, f"{PLACE}&numbers=1")
    assert seen.dtype == truth.dtype
    assert np.array_equal(seen, truth[0, :, spec.depths // 2])
    last = f"z={spec.depths - 1}&t={spec.times - 1}&channel={spec.channels - 1}"
    seen = numbers(server, token, f"{PLACE}&numbers=1&{last}")
    assert np.array_equal(seen, truth[-1, -1:, -1])


def test_a_stored_level_is_untouched(server: Server, tmp_path: Path) -> None:
    spec = SPECS["uint16"]
    token = server.seal(stacks.write_ome_tiff(tmp_path / "a.ome.tiff", spec))
    stored = stacks.pyramid(stacks.numbers(spec), 2)[1][0, :, 1]
    box = "x=40&y=24&width=160&height=80&numbers=1"
    seen = numbers(server, token, f"{box}&level=1")
    assert np.array_equal(seen, stored[:, 12:52, 20:100])


def test_a_scale_that_is_not_stored_is_the_mean(server: Server, tmp_path: Path) -> None:
    spec = stacks.StackSpec(channels=3)
    token = server.seal(stacks.write_ome_tiff(tmp_path / "a.ome.tiff", spec))
    # Pixels are 0.25 by 0.5 micrometres: at 1.0 four by two are one.
    full = stacks.numbers(spec)[0, :, 0, 24:104, 40:200]
    wanted = full.reshape(3, 40, 2, 40, 4).mean(axis=(2, 4))
    box = "x=40&y=24&width=160&height=80&numbers=1"
    seen = numbers(server, token, f"{box}&mpp=1.0")
    assert seen.dtype == np.uint16
    assert np.abs(seen - wanted).max() <= 0.5


def test_a_slide_in_colour_gives_red_green_and_blue(
    server: Server, made_slides: dict[str, Path]
) -> None:
    token = server.seal(made_slides["deflate"])
    seen = numbers(server, token, f"{PLACE}&numbers=1")
    wanted = slides.picture(1000, 700)[23:83, 41:131].transpose(2, 0, 1)
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, wanted)


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ("numbers=2", 400),
        ("numbers=1&format=png", 400),
        ("numbers=1&channel=9", 400),
        ("numbers=1&z=99", 400),
        ("numbers=1&width=9000&height=9000", 413),
    ],
)
def test_what_cannot_be_given_is_refused(
    server: Server, tmp_path: Path, rest: str, status: int
) -> None:
    path = stacks.write_ome_tiff(tmp_path / "a.ome.tiff", SPECS["uint16"])
    place = "x=0&y=0" if "width" in rest else PLACE
    answer = server.get(server.seal(path), f"region?{place}&{rest}")
    assert answer.status_code == status
    assert answer.json()["detail"]
