"""Pictures leave in the form that fits: by the address's ending, else by Accept."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import slides, stacks
from tests.tile_server.conftest import Server, decoded
from tile_server import negotiation
from tile_server.codecs import decode_jpeg
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide

BROWSER = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
# Of the slide `ycbcr`: in the file, made of others, and at the edge.
STORED, COMPOSED, EDGE = "4/1/1", "3/1/1", "4/15/10"
STACK = stacks.StackSpec(width=300, height=200, channels=2, depths=3, levels=2)


@pytest.fixture
def token(server: Server, made_slides: dict[str, Path]) -> str:
    return server.seal(made_slides["ycbcr"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    return stacks.write_ome_tiff(folder / "stack.ome.tiff", STACK)


def media_type(answer: httpx.Response) -> str:
    """What an answer says that it is, and is."""
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    assert image.get_format_mimetype() == answer.headers["content-type"]
    return answer.headers["content-type"]


def varies(answer: httpx.Response) -> bool:
    return "Accept" in answer.headers.get("vary", "")


@pytest.mark.parametrize("accept", ["*/*", "image/png", "image/webp", BROWSER])
def test_a_stored_tile_is_the_files_jpeg_whatever_is_accepted(
    server: Server, token: str, accept: str
) -> None:
    answer = server.get(token, STORED, Accept=accept)
    assert media_type(answer) == "image/jpeg"
    assert answer.headers["server-timing"].startswith("stored")
    assert not varies(answer)


@pytest.mark.parametrize(
    ("place", "accept", "wanted"),
    [
        (COMPOSED, "*/*", "image/jpeg"),
        (COMPOSED, BROWSER, "image/jpeg"),
        (COMPOSED, "image/webp", "image/webp"),
        (COMPOSED, "image/png,image/jpeg;q=0.5", "image/png"),
        (COMPOSED, "text/html", "image/jpeg"),
        (EDGE, "*/*", "image/png"),
        (EDGE, BROWSER, "image/webp"),
        (EDGE, "image/jpeg", "image/jpeg"),
        ("thumbnail", "*/*", "image/jpeg"),
        ("thumbnail", "image/webp,*/*;q=0.1", "image/webp"),
        ("region?x=0&y=0&width=90&height=60", "image/png", "image/png"),
        # Nothing is lost on the way to a region unless that is asked for.
        ("region?x=0&y=0&width=90&height=60", BROWSER, "image/png"),
        ("associated/thumbnail", "image/png", "image/png"),
    ],
)
def test_what_is_made_has_the_form_that_is_accepted(
    server: Server, token: str, place: str, accept: str, wanted: str
) -> None:
    answer = server.get(token, place, Accept=accept)
    assert media_type(answer) == wanted
    assert varies(answer)
    again = server.get(
        token, place, **{"Accept": accept, "If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == 304
    assert varies(again)


@pytest.mark.parametrize(
    "place", [STORED, COMPOSED, EDGE, "thumbnail", "associated/thumbnail"]
)
@pytest.mark.parametrize(
    ("ending", "wanted"),
    [
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
    ],
)
def test_an_ending_says_the_form_whatever_is_accepted(
    server: Server, token: str, place: str, ending: str, wanted: str
) -> None:
    seen = {
        server.get(token, f"{place}.{ending}", Accept=accept).content
        for accept in ("*/*", "image/png", BROWSER)
    }
    assert len(seen) == 1
    answer = server.get(token, f"{place}.{ending}")
    assert media_type(answer) == wanted
    assert not varies(answer)
    assert "immutable" in answer.headers["cache-control"]


def test_two_forms_of_a_tile_never_share_an_etag(server: Server, token: str) -> None:
    for place in (STORED, COMPOSED, EDGE):
        etags: dict[str, bytes] = {}
        for ending in ("", ".png", ".webp", ".jpg"):
            answer = server.get(token, place + ending)
            known = etags.setdefault(answer.headers["etag"], answer.content)
            assert known == answer.content
        assert len(etags) >= 3


def test_png_and_webp_of_a_stored_tile_hold_the_files_pixels(
    server: Server, token: str, made_slides: dict[str, Path]
) -> None:
    with open_slide(made_slides["ycbcr"]) as reader:
        stream = reader.encoded_tile(0, 1, 1)
    assert stream is not None
    wanted = decode_jpeg(stream)
    for ending in ("png", "webp"):
        seen = decoded(server.get(token, f"{STORED}.{ending}").content)
        assert np.array_equal(seen, wanted)


def test_a_composed_tile_as_png_lost_nothing_to_a_jpeg(
    server: Server, token: str, made_slides: dict[str, Path]
) -> None:
    with open_slide(made_slides["ycbcr"]) as reader:
        pyramid = Pyramid(reader)
        wanted = pyramid.pixels(pyramid.ladder.tile_rung(3, 1, 1), 1, 1)
    seen = decoded(server.get(token, f"{COMPOSED}.png").content)
    assert np.array_equal(seen, wanted)


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_past_the_picture_a_tile_with_transparency_is_transparent(
    server: Server, token: str, ending: str
) -> None:
    body = server.get(token, f"{EDGE}.{ending}").content
    seen = np.asarray(Image.open(io.BytesIO(body)).convert("RGBA"))
    width, height = 1000 - 15 * 64, 700 - 10 * 64
    assert (seen[:height, :width, 3] == 255).all()
    assert not seen[height:, :, 3].any()
    assert not seen[:, width:, 3].any()
    inside = decoded(server.get(token, EDGE).content)[:height, :width]
    assert np.array_equal(seen[:height, :width, :3], inside)


def test_16_bits_are_the_numbers_of_the_file(server: Server, stack: Path) -> None:
    token, truth = server.seal(stack), stacks.numbers(STACK)
    whole = truth[0, 1, 2]
    region = "region.png?bits=16&channel=1&z=2&x=20&y=30&width=150&height=90"
    answer = server.get(token, region)
    assert answer.headers["content-type"] == "image/png"
    seen = imagecodecs.png_decode(answer.content)
    assert seen.dtype == np.uint16
    assert np.array_equal(seen, whole[30:120, 20:170])
    as_array = np.load(
        io.BytesIO(server.get(token, region.replace(".png", ".npy")).content)
    )
    assert np.array_equal(as_array, seen)

    view = server.get(token, "view.json").json()
    full = view["levels"][0]
    tile = server.get(token, f"{full['z']}/0/0.png?bits=16&channel=1&z=2")
    edge = full["tile_width"]
    padded = np.zeros((edge, edge), np.uint16)
    padded[: whole.shape[0], : whole.shape[1]] = whole[:edge, :edge]
    assert np.array_equal(imagecodecs.png_decode(tile.content), padded)

    small = server.get(token, "thumbnail.png?bits=16&channel=1&z=2&size=150")
    seen = imagecodecs.png_decode(small.content)
    assert seen.dtype == np.uint16
    assert seen.shape == (100, 150)
    means = whole.reshape(100, 2, 150, 2).mean(axis=(1, 3))
    assert np.array_equal(seen, np.rint(means))


def test_16_bits_of_a_picture_in_colour_are_all_three(
    server: Server, tmp_path: Path
) -> None:
    truth = slides.picture(200, 150).astype(np.uint16) * 200
    path = tmp_path / "deep.tiff"
    tifffile.imwrite(path, truth, photometric="rgb", tile=(64, 64), metadata=None)
    answer = server.get(
        server.seal(path), "region.png?bits=16&x=10&y=20&width=100&height=90"
    )
    seen = imagecodecs.png_decode(answer.content)
    assert np.array_equal(seen, truth[20:110, 10:110])


@pytest.mark.parametrize(
    "rest",
    [
        "region.jpg?bits=16&x=0&y=0&width=9&height=9",
        "region.png?bits=12&x=0&y=0&width=9&height=9",
        "region.png?bits=16&channel=9&x=0&y=0&width=9&height=9",
        "0/0/0.webp?bits=16",
        "thumbnail.jpg?bits=16",
    ],
)
def test_16_bits_where_there_are_none_are_a_bad_request(
    server: Server, stack: Path, rest: str
) -> None:
    answer = server.get(server.seal(stack), rest)
    assert answer.status_code == 400
    assert answer.json()["type"].endswith(":bad-request")


def test_numbers_that_no_png_holds_are_a_bad_request(
    server: Server, tmp_path: Path
) -> None:
    spec = replace(STACK, dtype="float32", channels=1)
    path = stacks.write_ome_tiff(tmp_path / "floats.ome.tiff", spec)
    answer = server.get(server.seal(path), "0/0/0.png?bits=16")
    assert answer.status_code == 400
    assert "zarr" in answer.json()["detail"]


def test_a_picture_longer_than_its_format_allows_is_a_bad_request(
    server: Server, made_slides: dict[str, Path]
) -> None:
    token = server.seal(made_slides["ycbcr"])
    long = "x=0&y=0&width=70000&height=1"
    for form, status in (("jpg", 400), ("webp", 400), ("png", 200), ("npy", 200)):
        assert server.get(token, f"region.{form}?{long}").status_code == status


@pytest.fixture(scope="module")
def offers() -> list[str]:
    return ["image/jpeg", "image/webp", "image/png"]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, "image/jpeg"),
        ("", "image/jpeg"),
        ("*/*", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/webp", "image/webp"),
        ("IMAGE/WebP ; q=1.0", "image/webp"),
        ("image/webp;q=0", "image/jpeg"),
        ("image/png;q=0.9, image/jpeg;q=0.8", "image/png"),
        ("image/jpeg;q=0, */*", "image/png"),
        ("image/png;q=nonsense", "image/png"),
        ("text/html", "image/jpeg"),
    ],
)
def test_the_most_specific_range_of_accept_counts(
    offers: list[str], accept: str | None, wanted: str
) -> None:
    assert negotiation.choose(accept, offers) == wanted


@given(st.text(max_size=200))
def test_any_accept_is_answered_with_an_offer(accept: str) -> None:
    offers = ["image/webp", "image/png"]
    assert negotiation.choose(accept, offers) in offers
