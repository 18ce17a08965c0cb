"""Deep Zoom over a real socket, and the pixels that it gives."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.tile_server.conftest import SPECS, Server, decoded
from tile_server.protocols.deep_zoom import deepest
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide


def test_the_description_tells_the_slides_own_grid(
    server: Server, made_slides: dict[str, Path]
) -> None:
    path = made_slides["ycbcr"]
    answer = server.get(server.seal(path), "dzi/slide.dzi")
    assert answer.headers["content-type"] == "application/xml"
    image = ElementTree.fromstring(answer.text)  # noqa: S314 - our own answer
    with open_slide(path) as reader:
        full = reader.levels[0]
        size = {"Width": str(full.width), "Height": str(full.height)}
        assert image.attrib["TileSize"] == str(full.tile_width)
    assert image.attrib["Overlap"] == "0"
    assert image[0].attrib == size


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_level_is_the_pyramids_picture_cut_at_its_edges(
    server: Server, made_slides: dict[str, Path], name: str
) -> None:
    token = server.seal(made_slides[name])
    with open_slide(made_slides[name]) as reader:
        pyramid = Pyramid(reader)
        ladder = pyramid.ladder
        for rung in ladder.rungs:
            last = rung.columns - 1, rung.rows - 1
            for x, y in {(0, 0), last}:
                answer = server.get(
                    token,
                    f"dzi/slide_files/{deepest(ladder) - rung.k}/{x}_{y}.jpg",
                )
                assert answer.status_code == 200
                shown = decoded(answer.content)
                width = min(ladder.tile, rung.width - x * ladder.tile)
                height = min(ladder.tile, rung.height - y * ladder.tile)
                assert shown.shape == (height, width, 3)
                tile = decoded(pyramid.tile(rung, x, y).body)
                # Two decoders of JPEG differ by a rounding.
                difference = shown.astype(int) - tile[:height, :width]
                assert np.abs(difference).max() <= 4


def test_levels_below_the_ladder_end_at_one_pixel(
    server: Server, made_slides: dict[str, Path]
) -> None:
    path = made_slides["rgb_odd"]
    token = server.seal(path)
    with open_slide(path) as reader:
        ladder = Pyramid(reader).ladder
    full = ladder.rungs[0]
    for level in range(deepest(ladder) - ladder.n):
        k = deepest(ladder) - level
        shown = decoded(server.get(token, f"dzi/slide_files/{level}/0_0.jpg").content)
        assert shown.shape == (-(-full.height >> k), -(-full.width >> k), 3)


def test_a_stored_tile_leaves_as_the_file_has_it(
    server: Server, made_slides: dict[str, Path]
) -> None:
    path = made_slides["ycbcr"]
    token = server.seal(path)
    with open_slide(path) as reader:
        stream = reader.encoded_tile(0, 1, 1)
        level = deepest(Pyramid(reader).ladder)
    answer = server.get(token, f"dzi/slide_files/{level}/1_1.jpg")
    assert answer.content == stream
    assert answer.headers["cache-control"].endswith("immutable")


@pytest.mark.parametrize("rest", ["99/0_0.jpg", "0/1_0.jpg", "5/99_0.jpeg"])
def test_what_the_grid_does_not_have_is_absent(
    server: Server, made_slides: dict[str, Path], rest: str
) -> None:
    token = server.seal(made_slides["ycbcr"])
    assert server.get(token, f"dzi/slide_files/{rest}").status_code == 404
