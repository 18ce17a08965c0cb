"""The service over a real socket: what it gives, what it refuses, in which words."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openslide
import pytest

from tests import slides
from tests.tile_server.conftest import Server, decoded, serve
from tile_server import tokens
from tile_server.address import tiles_url
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.service import TileSettings
from tile_server.tokens import Capability
from tile_server.view import describe


def problem(response: httpx.Response, status: int, name: str) -> dict[str, object]:
    """Check that an answer is a problem document of this kind, and give it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    told: dict[str, object] = json.loads(response.content)
    assert told["status"] == status
    assert str(told["type"]).endswith(f":{name}")
    assert told["title"]
    return told


@pytest.fixture
def token(server: Server, made_slides: dict[str, Path]) -> str:
    return server.seal(made_slides["ycbcr"])


def test_every_tile_of_every_slide_is_served(
    server: Server, made_slides: dict[str, Path]
) -> None:
    for path in made_slides.values():
        token = server.seal(path)
        with open_slide(path) as reader:
            ladder = Pyramid(reader).ladder
            for rung in ladder.rungs[1:]:
                for x in range(rung.columns):
                    answer = server.get(token, f"{ladder.z(rung)}/{x}/{rung.rows - 1}")
                    assert answer.status_code == 200
                    assert decoded(answer.content).shape[:2] == (ladder.tile,) * 2


def test_the_template_of_the_address_leads_to_the_tile(
    server: Server, token: str
) -> None:
    template = tiles_url(server.settings.base, token)
    answer = server.client.get(template.format(z=4, x=1, y=1))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["server-timing"].startswith("stored, total;dur=")


def test_a_tile_may_be_kept_by_the_visitors_browser_and_no_other(
    server: Server, token: str
) -> None:
    for tile in ("4/1/1", "3/0/0", "4/15/10"):
        headers = server.get(token, tile).headers
        assert headers["cache-control"] == "private, max-age=31536000, immutable"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "total;dur=" in headers["server-timing"]
        assert "server" not in headers


def test_a_tile_that_the_browser_has_is_not_sent_again(
    server: Server, token: str
) -> None:
    first = server.get(token, "3/0/0")
    etag = first.headers["etag"]
    assert etag.startswith('"')
    again = server.get(token, "3/0/0", **{"If-None-Match": etag})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == etag
    assert "server-timing" in again.headers
    assert server.get(token, "3/1/0").headers["etag"] != etag
    assert server.get(token, "3/0/0", **{"If-None-Match": '"x"'}).status_code == 200


def test_head_gives_the_headers_of_get(server: Server, token: str) -> None:
    for rest in ("4/1/1", "2/0/0", "view.json", "thumbnail"):
        address = f"{server.settings.base}s/{token}/{rest}"
        head, got = server.client.head(address), server.client.get(address)
        assert head.status_code == 200
        assert head.content == b""
        for name in ("content-length", "content-type", "etag"):
            assert head.headers.get(name) == got.headers.get(name)


def test_a_tampered_token_is_refused(server: Server, token: str) -> None:
    middle = len(token) // 2
    other = "A" if token[middle] != "A" else "B"
    changed = token[:middle] + other + token[middle + 1 :]
    problem(server.get(changed, "4/1/1"), 403, "bad-token")
    problem(server.get("nonsense", "view.json"), 403, "bad-token")


def test_an_expired_token_is_refused_even_when_it_was_good(
    server: Server, made_slides: dict[str, Path]
) -> None:
    past = server.seal(made_slides["ycbcr"], expires=int(time.time()) - 1)
    problem(server.get(past, "4/1/1"), 403, "expired-token")
    soon = int(time.time()) + 2
    short = server.seal(made_slides["ycbcr"], expires=soon)
    assert server.get(short, "4/1/1").status_code == 200
    deadline = time.monotonic() + 10
    while server.get(short, "4/1/1").status_code == 200:
        assert time.monotonic() < deadline
    problem(server.get(short, "4/1/1"), 403, "expired-token")
    assert time.time() >= soon


@pytest.fixture
def watchful() -> Iterator[Server]:
    """A service that looks every file up each time."""
    yield from serve(TileSettings(tokens.new_key(), look_again_s=0))


def test_a_missing_file_is_gone(watchful: Server, tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "short_lived.svs", slides.YCBCR)
    opened, unopened = watchful.seal(path), watchful.seal(path, label=True)
    assert watchful.get(opened, "4/1/1").status_code == 200
    path.unlink()
    told = problem(watchful.get(opened, "4/1/1"), 410, "slide-missing")
    assert str(tmp_path) not in json.dumps(told)
    problem(watchful.get(unopened, "view.json"), 410, "slide-missing")


def test_a_replaced_file_is_gone(watchful: Server, tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "changing.svs", slides.YCBCR)
    before = watchful.seal(path)
    assert watchful.get(before, "4/1/1").status_code == 200
    other = slides.write_slide(tmp_path / "other.svs", slides.RGB_ODD)
    os.replace(other, path)  # noqa: PTH105 - the atomic replacement that is meant
    problem(watchful.get(before, "4/1/1"), 410, "slide-replaced")
    assert watchful.get(watchful.seal(path), "4/1/1").status_code == 200


@pytest.mark.parametrize(
    "rest", ["4/16/0", "4/0/11", "5/0/0", "99/0/0", "0/1/0", "999999999/0/0"]
)
def test_a_tile_outside_the_grid_is_not_there(
    server: Server, token: str, rest: str
) -> None:
    problem(server.get(token, rest), 404, "outside-the-grid")


@pytest.mark.parametrize("rest", ["", "4/-1/0", "4/a/b", "9999999999999/0/0", "x"])
def test_an_unknown_address_is_a_problem_too(
    server: Server, token: str, rest: str
) -> None:
    problem(server.get(token, rest), 404, "not-found")


def test_only_reading_is_allowed(server: Server, token: str) -> None:
    for address in ("health", f"s/{token}/4/1/1", "nowhere"):
        answer = server.client.post(server.settings.base + address)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_the_view_is_what_describe_says(
    server: Server, made_slides: dict[str, Path], token: str
) -> None:
    answer = server.get(token, "view.json")
    assert answer.headers["cache-control"] == "private, no-cache"
    view = answer.json()
    with open_slide(made_slides["ycbcr"]) as reader:
        assert view.items() >= describe(reader).items()
    assert view["expires"].endswith("+00:00")
    assert [level["downsample"] for level in view["levels"]] == [1, 2, 4, 8, 16]
    assert [level["z"] for level in view["levels"]] == [4, 3, 2, 1, 0]
    assert [level["stored"] for level in view["levels"]] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_the_label_is_withheld_as_if_it_were_not_there(
    server: Server, made_slides: dict[str, Path]
) -> None:
    path = made_slides["ycbcr"]
    student, keeper = server.seal(path), server.seal(path, label=True)
    assert server.get(student, "view.json").json()["associated"] == ["thumbnail"]
    for name in ("label", "macro"):
        refused = server.get(student, f"associated/{name}")
        absent = server.get(student, "associated/nobody")
        assert problem(refused, 404, "outside-the-grid") == json.loads(absent.content)
    assert server.get(student, "associated/thumbnail").status_code == 200
    assert server.get(keeper, "view.json").json()["associated"] == [
        "label", "macro", "thumbnail",
    ]  # fmt: skip
    label = decoded(server.get(keeper, "associated/label").content).astype(int)
    assert np.abs(label - slides.LABEL_COLOUR).max() < 8


def test_a_region_holds_openslides_pixels(
    server: Server, made_slides: dict[str, Path], token: str
) -> None:
    place = "x=101&y=57&width=333&height=222"
    answer = server.get(token, f"region?{place}&level=0&format=npy")
    assert answer.headers["content-type"] == "application/octet-stream"
    seen = np.load(io.BytesIO(answer.content))
    truth = openslide.OpenSlide(str(made_slides["ycbcr"]))
    wanted = truth.read_region((101, 57), 0, (333, 222)).convert("RGB")
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, np.asarray(wanted))
    png = server.get(token, f"region?{place}&format=png")
    assert png.headers["content-type"] == "image/png"
    assert np.array_equal(decoded(png.content), seen)
    jpg = server.get(token, f"region?{place}&format=jpg")
    assert np.abs(decoded(jpg.content).astype(int) - seen).mean() < 8
    micrometres = server.get(token, f"region?{place}&mpp=0.5")
    assert np.array_equal(np.load(io.BytesIO(micrometres.content)), seen)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("y=0&width=9&height=9", "x is missing"),
        ("x=0&y=0&width=0&height=9", "more than 0"),
        ("x=0&y=0&width=9&height=-9", "more than 0"),
        ("x=nan&y=0&width=9&height=9", "out of range"),
        ("x=a&y=0&width=9&height=9", "must be a number"),
        ("x=0&y=0&width=9&height=9&level=1&mpp=1", "not both"),
        ("x=0&y=0&width=9&height=9&level=77", "from 0 to 4"),
        ("x=0&y=0&width=9&height=9&level=0.5", "whole number"),
        ("x=0&y=0&width=9&height=9&mpp=0", "more than 0"),
        ("x=0&y=0&width=9&height=9&format=gif", "jpg, jpeg, png, webp, npy"),
    ],
)
def test_a_wrong_region_is_told_what_is_wrong(
    server: Server, token: str, query: str, word: str
) -> None:
    told = problem(server.get(token, f"region?{query}"), 400, "bad-request")
    assert word in str(told["detail"])


def test_a_region_of_too_many_pixels_is_refused(server: Server, token: str) -> None:
    answer = server.get(token, "region?x=0&y=0&width=99999&height=99999")
    told = problem(answer, 413, "region-too-large")
    assert "coarser" in str(told["detail"])


def test_a_thumbnail_has_the_size_that_was_asked_for(
    server: Server, token: str
) -> None:
    assert decoded(server.get(token, "thumbnail").content).shape == (179, 256, 3)
    small = server.get(token, "thumbnail?size=100")
    assert decoded(small.content).shape == (70, 100, 3)
    for size in ("0", "2049", "many", "1.5"):
        problem(server.get(token, f"thumbnail?size={size}"), 400, "bad-request")


def test_a_damaged_tile_does_not_stop_the_others(
    server: Server, tmp_path: Path
) -> None:
    path = slides.write_slide(tmp_path / "hurt.svs", slides.YCBCR)
    slides.damage_tile(path, page=0, number=16 * 2 + 2)
    slides.damage_tile(path, page=0, number=16 * 11 - 1)
    token = server.seal(path)
    for tile in ("4/2/2", "4/15/10"):
        problem(server.get(token, tile), 422, "damaged-tile")
    for tile in ("4/3/2", "4/2/3", "3/1/1", "0/0/0"):
        assert server.get(token, tile).status_code == 200
    problem(server.get(token, "4/2/2"), 422, "damaged-tile")


def test_an_unreadable_slide_is_said_to_be(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "odd.svs"
    path.write_bytes(b"no slide")
    told = problem(server.get(server.seal(path), "view.json"), 422, "unreadable-slide")
    assert str(tmp_path) not in json.dumps(told)


def test_eight_visitors_get_equal_tiles(
    server: Server, made_slides: dict[str, Path]
) -> None:
    for name in ("single", "deflate"):
        token = server.seal(made_slides[name])
        address = tiles_url(server.settings.base, token).format(z=0, x=0, y=0)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(server.client.get, [address] * 24))
        assert len({answer.content for answer in answers}) == 1


def test_more_slides_than_may_stay_open_are_all_served(
    made_slides: dict[str, Path],
) -> None:
    for small in serve(TileSettings(tokens.new_key(), most_open=1)):
        addresses = [
            tiles_url("/", small.seal(path)).format(z=0, x=0, y=0)
            for path in made_slides.values()
        ]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(small.client.get, addresses * 6))
        assert {answer.status_code for answer in answers} == {200}
        for number, address in enumerate(addresses):
            bodies = {a.content for a in answers[number :: len(addresses)]}
            assert len(bodies) == 1, address


def test_the_log_shows_neither_token_nor_path(
    made_slides: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        for quiet in serve(TileSettings(tokens.new_key())):
            token = quiet.seal(made_slides["ycbcr"])
            quiet.get(token, "4/1/1")
            quiet.get(token, "99/1/1")
            quiet.get("wrong-token", "4/1/1")
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("tile_server")]
    assert any("TileHandler" in line for line in ours)
    for line in ours:
        assert token not in line
        assert "wrong-token" not in line
        assert "ycbcr" not in line


def test_an_unexpected_error_is_logged_without_the_token(
    made_slides: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr("tile_server.handlers.small_picture", fail)
    for service in serve(TileSettings(tokens.new_key())):
        token = service.seal(made_slides["ycbcr"])
        problem(service.get(token, "thumbnail"), 500, "internal-server-error")
    assert "nobody expected this" in caplog.text
    assert token not in caplog.text


def test_visitors_who_go_leave_no_error_behind(
    server: Server, made_slides: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    token = server.seal(made_slides["single"], expires=2**33 + 1)
    template = tiles_url(server.settings.base, token)
    place = server.client.base_url.host, server.client.base_url.port
    for z in (0, 1, 2, 3):
        for x in range(2):
            address = template.format(z=z, x=x, y=0)
            with socket.create_connection(place) as visitor:
                request = f"GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                visitor.sendall(request.encode())
    answer = server.client.get(template.format(z=0, x=0, y=0))
    assert answer.status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_health_is_ok(server: Server) -> None:
    assert server.client.get(server.settings.base + "health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "base", ["/", "/services/tiles/", "/user/x/named", "/user/a.b+c/"]
)
def test_the_service_answers_under_any_base(
    made_slides: dict[str, Path], base: str
) -> None:
    for other in serve(TileSettings(tokens.new_key(), base)):
        token = other.seal(made_slides["ycbcr"])
        address = tiles_url(base, token).format(z=4, x=0, y=0)
        assert other.client.get(address).status_code == 200


def test_a_capability_of_another_service_is_refused(
    server: Server, made_slides: dict[str, Path]
) -> None:
    capability = Capability(str(made_slides["ycbcr"]), "0" * 16, True, 2**33)
    foreign = tokens.seal(tokens.new_key(), capability)
    problem(server.get(foreign, "view.json"), 403, "bad-token")
