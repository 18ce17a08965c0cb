"""One pixel, and regions in micrometres, over a real socket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tile_server.conftest import SPECS, Server
from tile_server.readers import open_slide


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_pixel_is_that_of_the_reader(
    server: Server, made_slides: dict[str, Path], name: str
) -> None:
    token = server.seal(made_slides[name])
    with open_slide(made_slides[name]) as reader:
        full, mpp = reader.levels[0], reader.facts.mpp_x
        for x, y in ((0, 0), (full.width - 1, full.height - 1), (17, 40)):
            told = server.get(token, f"pixel?x={x + 0.9}&y={y}").json()
            pixel = reader.read(0, x, y, (1, 1))[0, 0]
            assert [one["value"] for one in told["values"]] == pixel.tolist()
            assert told["color"] == "#{:02x}{:02x}{:02x}".format(*pixel)
            assert (told["x"], told["y"]) == (x, y)
            assert told["x_um"] == (None if mpp is None else (x + 0.5) * mpp)


def test_a_pixel_outside_the_slide_is_absent(
    server: Server, made_slides: dict[str, Path]
) -> None:
    token = server.seal(made_slides["ycbcr"])
    assert server.get(token, "pixel?x=-0.5&y=0").status_code == 404
    assert server.get(token, "pixel?x=0&y=1e9").status_code == 404
    assert server.get(token, "pixel?x=0").status_code == 400


def test_a_region_in_micrometres_is_that_in_pixels(
    server: Server, made_slides: dict[str, Path]
) -> None:
    path = made_slides["ycbcr"]
    token = server.seal(path)
    with open_slide(path) as reader:
        mpp_x, mpp_y = reader.facts.mpp_x, reader.facts.mpp_y
    assert mpp_x
    assert mpp_y
    pixels = server.get(token, "region?x=64&y=32&width=50&height=20")
    address = (
        f"region?unit=um&x={64 * mpp_x}&y={32 * mpp_y}"
        f"&width={50 * mpp_x}&height={20 * mpp_y}"
    )
    um = server.get(token, address)
    assert pixels.status_code == um.status_code == 200
    assert np.array_equal(
        np.frombuffer(um.content, np.uint8), np.frombuffer(pixels.content, np.uint8)
    )
    assert server.get(token, address.replace("um", "mm")).status_code == 400


def test_a_region_in_micrometres_needs_a_pixel_size(
    server: Server, made_slides: dict[str, Path]
) -> None:
    for path in made_slides.values():
        with open_slide(path) as reader:
            known = reader.facts.mpp_x is not None
        answer = server.get(
            server.seal(path), "region?unit=um&x=0&y=0&width=9&height=9"
        )
        assert answer.status_code == (200 if known else 400)
