"""IIIF over a real socket: the public validator, and what it does not look at."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.tile_server.conftest import SPECS, Server
from tile_server import codecs
from tile_server.errors import BadRequest
from tile_server.protocols.iiif_request import QUALITIES, parse
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.regions import MOST_PIXELS, Box, read_region

PICTURE = "67352ccc-d1b0-11e1-89ae-279075081939"
VALIDATOR = Path(sys.executable).parent / "iiif-validate.py"


def image(server: Server, token: str, rest: str, version: int = 3) -> Image.Image:
    answer = ask(server, token, rest, version)
    assert answer[0] == 200, answer
    return Image.open(io.BytesIO(answer[1]))


def ask(
    server: Server, token: str, rest: str, version: int = 3
) -> tuple[int, bytes, dict[str, str]]:
    address = f"{server.settings.base}iiif/{version}/{token}{rest}"
    answer = server.client.get(address)
    return answer.status_code, answer.content, dict(answer.headers)


@pytest.fixture
def token(server: Server, made_slides: dict[str, Path]) -> str:
    return server.seal(made_slides["ycbcr"])


@pytest.fixture(scope="module")
def folder_port(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The port of `serve DIR` for a folder that holds the validator's picture."""
    if find_library("magic") is None:
        pytest.skip("NOT TESTED: the IIIF validator needs libmagic (Debian: libmagic1)")
    folder = tmp_path_factory.mktemp("iiif")
    shutil.copy(shared_data / "iiif" / f"{PICTURE}.png", folder)
    command = [sys.executable, "-m", "tile_server", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"THEATRUM_TILE_CORS": "*"},
    ) as process:
        assert process.stdout
        ready = next(line for line in process.stdout if line.startswith("ready"))
        yield ready.rstrip().rstrip("/").rpartition(":")[2]
        process.terminate()


def validate(port: str, version: str, level: str) -> tuple[int, str]:
    """The public validator's exit status, which counts failures, and what it says."""
    done = subprocess.run(
        [
            *(sys.executable, VALIDATOR, "-s", f"127.0.0.1:{port}"),
            *("-p", f"iiif/{version[0]}", "-i", PICTURE),
            *("--version", version, "--level", level),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"no_proxy": "127.0.0.1"},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["3.0", "2.0"])
def test_the_public_validator_passes_in_full(folder_port: str, version: str) -> None:
    failures, told = validate(folder_port, version, "2")
    assert failures == 0, told
    assert " 0 failures" in told


@pytest.mark.parametrize("version", ["3.0", "2.0"])
def test_what_is_beyond_level_2_passes_where_the_validator_can_look(
    folder_port: str, version: str
) -> None:
    _, told = validate(folder_port, version, "3")
    failed = set(re.findall(r"test (\w+) FAIL", told))
    # It looks at these by functions of Python 2; `test_every_format_is_what_it_says`
    # looks at them here.
    assert failed <= {"format_jp2", "format_pdf", "format_webp"}, told
    assert told.count(" PASS") > 35


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_region_has_the_readers_pixels(
    server: Server, made_slides: dict[str, Path], name: str
) -> None:
    token = server.seal(made_slides[name])
    with open_slide(made_slides[name]) as reader:
        pixels = reader.read(0, 33, 20, (70, 50))
        shown = np.asarray(image(server, token, "/33,20,70,50/max/0/default.png"))
        assert np.array_equal(shown, pixels)
        half = read_region(Pyramid(reader), Box(33, 20, 70, 50), (2, 2))
        shown = np.asarray(image(server, token, "/33,20,70,50/35,25/0/default.png"))
        assert np.array_equal(shown, half)


def test_a_tile_leaves_as_the_file_has_it(
    server: Server, made_slides: dict[str, Path], token: str
) -> None:
    with open_slide(made_slides["ycbcr"]) as reader:
        edge = reader.levels[0].tile_width
        stream = reader.encoded_tile(0, 1, 1)
    tile = f"/{edge},{edge},{edge},{edge}/{edge},{edge}/0/default.jpg"
    for version in (2, 3):
        assert ask(server, token, tile, version)[1] == stream


def test_every_tile_that_the_description_offers_is_the_maps(
    server: Server, made_slides: dict[str, Path]
) -> None:
    path = made_slides["deflate"]
    token = server.seal(path)
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        ladder = pyramid.ladder
        for rung in ladder.rungs:
            span = ladder.tile * rung.downsample
            x, y = rung.columns - 1, rung.rows - 1
            width = min(ladder.tile, rung.width - x * ladder.tile)
            height = min(ladder.tile, rung.height - y * ladder.tile)
            box = f"{x * span},{y * span},{span},{span}"
            shown = ask(server, token, f"/{box}/{width},{height}/0/default.jpg")[1]
            tile = pyramid.tile(rung, x, y).decode()[:height, :width]
            assert shown == codecs.encode_jpeg(tile)


def test_turning_and_mirroring_move_pixels_and_change_none(
    server: Server, token: str
) -> None:
    plain = np.asarray(image(server, token, "/0,0,60,40/max/0/default.png"))
    turned = {
        "90": np.rot90(plain, -1),
        "180": np.rot90(plain, 2),
        "270": np.rot90(plain, 1),
        "!0": plain[:, ::-1],
        "!90": np.rot90(plain[:, ::-1], -1),
        "360": plain,
    }
    for rotation, expected in turned.items():
        rest = f"/0,0,60,40/max/{rotation}/default.png"
        assert np.array_equal(np.asarray(image(server, token, rest)), expected)


def test_an_odd_angle_keeps_the_corners(server: Server, token: str) -> None:
    width, height = image(server, token, "/0,0,60,40/max/45/default.png").size
    assert abs(width - 100 / 2**0.5) <= 2
    assert abs(height - 100 / 2**0.5) <= 2


@pytest.mark.parametrize(
    ("form", "media_type"),
    [
        ("jpg", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
        ("tif", "image/tiff"),
        ("gif", "image/gif"),
        ("jp2", "image/jp2"),
        ("pdf", "application/pdf"),
    ],
)
def test_every_format_is_what_it_says(
    server: Server, token: str, form: str, media_type: str
) -> None:
    for quality in QUALITIES:
        rest = f"/0,0,50,40/max/0/{quality}.{form}"
        status, body, headers = ask(server, token, rest)
        assert status == 200
        assert headers["content-type"] == media_type
        if form != "pdf":
            assert Image.open(io.BytesIO(body)).size == (50, 40)


@pytest.mark.parametrize(
    "rest",
    [
        "/full/max/0/default.bmp",
        "/full/max/0/rosy.jpg",
        "/full/max/361/default.jpg",
        "/full/max/-1/default.jpg",
        "/full/0,/0/default.jpg",
        "/full/99999,/0/default.jpg",
        "/full/^99999,99999/0/default.jpg",
        "/full/full/0/default.jpg",
        "/9999999,0,5,5/max/0/default.jpg",
        "/0,0,0,5/max/0/default.jpg",
        "/pct:0,0,0,0/max/0/default.jpg",
        "/0,0,5/max/0/default.jpg",
        "/0,0,٣,5/max/0/default.jpg",
    ],
)
def test_what_the_api_does_not_have_is_refused(
    server: Server, token: str, rest: str
) -> None:
    assert ask(server, token, rest)[0] == 400


def test_an_unknown_identifier_is_absent(server: Server, token: str) -> None:
    for identifier in ("nobody", token[:-2], "..%2Fetc"):
        assert ask(server, identifier, "/info.json")[0] == 404


@pytest.mark.parametrize("version", [2, 3])
def test_pages_of_any_origin_may_read_and_find_the_one_address(
    server: Server, token: str, version: int
) -> None:
    status, _, headers = ask(
        server, token, "/pct:0,0,50,50/9,/!90.0/color.png", version
    )
    assert status == 200
    assert headers["access-control-allow-origin"] == "*"
    link = headers["link"].partition(">")[0].removeprefix("<")
    assert "/!90/default.png" in link
    again = server.client.get(link)
    assert again.status_code == 200
    assert again.headers["etag"] == headers["etag"]
    assert again.headers["link"] == headers["link"]


def test_a_name_that_can_be_guessed_is_not_for_pages_of_other_origins(
    made_slides: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(made_slides["ycbcr"], tmp_path / "guess.tiff")
    command = [sys.executable, "-m", "tile_server", "serve", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        ready = next(line for line in process.stdout if line.startswith("ready"))
        with httpx.Client(
            base_url=ready.split()[1], trust_env=False, timeout=30
        ) as client:
            page = {"Origin": "http://elsewhere.example"}
            for rest in ("info.json", "full/max/0/rosy.jpg", "full/9,/0/default.png"):
                answer = client.get(f"iiif/3/guess/{rest}", headers=page)
                assert answer.status_code in (200, 400)
                assert "access-control-allow-origin" not in answer.headers
                assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            other = {"Host": "elsewhere.example"}
            assert (
                client.get("iiif/3/guess/info.json", headers=other).status_code == 404
            )
        process.terminate()


@given(
    st.sampled_from([2, 3]),
    st.tuples(st.integers(1, 200_000), st.integers(1, 200_000)),
    st.tuples(*[st.text("0123456789,.:!^pctfulmaxsqre", max_size=20)] * 3),
    st.sampled_from(QUALITIES),
)
def test_any_text_is_a_picture_within_the_limits_or_refused(
    version: int, slide: tuple[int, int], parts: tuple[str, str, str], quality: str
) -> None:
    try:
        picture = parse(version, slide, (*parts, quality))
    except BadRequest:
        return
    box = picture.box
    assert 0 <= box.x < box.x + box.width <= slide[0]
    assert 0 <= box.y < box.y + box.height <= slide[1]
    assert 1 <= picture.size[0] * picture.size[1] <= MOST_PIXELS


@given(
    st.sampled_from([2, 3]),
    st.tuples(st.integers(1, 9_000), st.integers(1, 9_000)),
    st.sampled_from(["full", "square", "10,20,300,400", "pct:10,10,50.5,33.3"]),
    st.sampled_from(
        ["max", "pct:50", "^pct:150", "200,", ",77", "!99,99", "^!500,600"]
    ),
    st.sampled_from(["0", "90", "!180", "22.50"]),
)
def test_the_canonical_address_is_its_own(
    version: int, slide: tuple[int, int], region: str, size: str, rotation: str
) -> None:
    try:
        first = parse(version, slide, (region, size, rotation, "color"))
    except BadRequest:
        return
    address = first.canonical(version, "png")
    parts = address.removesuffix(".png").split("/")
    again = parse(version, slide, (parts[0], parts[1], parts[2], parts[3]))
    assert again == first
