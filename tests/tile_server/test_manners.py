"""Conditions, parts, other origins: what HTTP/1.1 says of an answer holds here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tile_server.conftest import Server
from tests.tile_server.lane_client import ask, request
from tests.tile_server.test_icc import PROFILE, write_tiff
from tests.tile_server.test_lane import BASE, Both, same, serve_both
from tile_server import cross_origin, ranges, tokens
from tile_server.errors import OutsideTheBody
from tile_server.lane import Limits
from tile_server.service import TileSettings

# Answers that are wholes of their own, and so are given in parts too.
WHOLES = [
    "region?x=0&y=0&width=80&height=50",
    "region.png?x=0&y=0&width=80&height=50",
    "thumbnail",
    "associated/thumbnail",
    "icc",
    "zarr/zarr.json",
    "zarr/0/zarr.json",
    "zarr/0/0/0/0/0/0",
    "zarr/0/c/0/0/0/0/0",
    "zarr2/.zattrs",
    "zarr2/0/.zarray",
    "zarr2/0/0/0/0/0/0",
    "dzi/slide.dzi",
    "statistics",
    "histogram?bins=8",
    "pixel?x=3&y=4",
]
OTHERS = ["3/1/1", "2/0/0", "3/4/3", "3/1/1.png", "view.json"]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide with all that an address can name."""
    return write_tiff(tmp_path_factory.mktemp("manners") / "one.tiff", PROFILE)


@pytest.fixture
def token(server: Server, slide: Path, made_slides: dict[str, Path]) -> str:
    return server.seal(slide)


def of(rest: str, server: Server, token: str, made_slides: dict[str, Path]) -> str:
    """The token of a slide that has what `rest` names."""
    return server.seal(made_slides["ycbcr"]) if "associated" in rest else token


@pytest.mark.parametrize("rest", [*WHOLES, *OTHERS])
def test_what_a_visitor_has_is_not_sent_again(
    server: Server, token: str, made_slides: dict[str, Path], rest: str
) -> None:
    token = of(rest, server, token, made_slides)
    first = server.get(token, rest)
    assert first.status_code == 200, first.text
    etag = first.headers["etag"]
    assert etag.startswith('"')
    for tags in (etag, f"W/{etag}", f'"x", {etag}', f'W/"y",{etag}', "*"):
        again = server.get(token, rest, **{"If-None-Match": tags})
        assert again.status_code == 304, tags
        assert again.content == b""
        for name in ("etag", "cache-control", "vary", "last-modified"):
            assert again.headers.get(name) == first.headers.get(name)
    for tags in ('"x"', "nonsense", f'"{etag[1:-2]}"', ""):
        again = server.get(token, rest, **{"If-None-Match": tags})
        assert again.status_code == 200, tags
        assert again.content == first.content


@pytest.mark.parametrize("rest", [*WHOLES, *OTHERS])
def test_head_says_what_get_would(
    server: Server, token: str, made_slides: dict[str, Path], rest: str
) -> None:
    token = of(rest, server, token, made_slides)
    address = f"{server.settings.base}s/{token}/{rest}"
    head, got = server.client.head(address), server.client.get(address)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "vary", "accept-ranges"):
        assert head.headers.get(name) == got.headers.get(name), name


@pytest.mark.parametrize("rest", WHOLES)
def test_a_date_is_a_condition_where_there_is_one(
    server: Server, token: str, made_slides: dict[str, Path], rest: str
) -> None:
    token = of(rest, server, token, made_slides)
    first = server.get(token, rest)
    changed = parsedate_to_datetime(first.headers["last-modified"])
    before = format_datetime(changed - timedelta(seconds=1), usegmt=True)
    after = format_datetime(changed + timedelta(days=1), usegmt=True)
    for since, status in (
        (first.headers["last-modified"], 304),
        (after, 304),
        (before, 200),
        ("no date", 200),
    ):
        answer = server.get(token, rest, **{"If-Modified-Since": since})
        assert answer.status_code == status, since
    # A tag counts more than a date.
    both = {"If-Modified-Since": after, "If-None-Match": '"x"'}
    assert server.get(token, rest, **both).status_code == 200


def test_a_tile_has_no_date_and_no_parts(server: Server, token: str) -> None:
    for rest in ("3/1/1", "2/0/0", "3/4/3"):
        answer = server.get(token, rest, Range="bytes=0-9")
        assert answer.status_code == 200
        assert "last-modified" not in answer.headers
        assert "accept-ranges" not in answer.headers


@pytest.mark.parametrize("rest", WHOLES)
def test_a_part_is_that_part_of_the_whole(
    server: Server, token: str, made_slides: dict[str, Path], rest: str
) -> None:
    token = of(rest, server, token, made_slides)
    whole = server.get(token, rest)
    body, size = whole.content, len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    for wanted, part in (
        ("bytes=0-9", body[:10]),
        ("bytes=5-", body[5:]),
        ("bytes=-7", body[-7:]),
        (f"bytes=2-{size * 9}", body[2:]),
    ):
        answer = server.get(token, rest, Range=wanted)
        assert answer.status_code == 206, wanted
        assert answer.content == part
        start = body.index(part) if wanted.endswith("-9") else size - len(part)
        told = f"bytes {start}-{start + len(part) - 1}/{size}"
        assert answer.headers["content-range"] == told
        assert answer.headers["etag"] == whole.headers["etag"]
    past = server.get(token, rest, Range=f"bytes={size}-")
    assert past.status_code == 416
    assert past.headers["content-range"] == f"bytes */{size}"
    assert past.headers["content-type"] == "application/problem+json"


def test_a_part_of_another_state_is_never_given(server: Server, token: str) -> None:
    rest = "zarr/0/0/0/0/0/0"
    whole = server.get(token, rest)
    etag, date = whole.headers["etag"], whole.headers["last-modified"]
    for condition, status in (
        (etag, 206),
        (date, 206),
        ('"x"', 200),
        (f"W/{etag}", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("nonsense", 200),
    ):
        answer = server.get(
            token, rest, **{"Range": "bytes=0-3", "If-Range": condition}
        )
        assert answer.status_code == status, condition
    # What is not changed is not sent, and a part of it neither.
    unchanged = {"Range": "bytes=0-3", "If-None-Match": etag}
    assert server.get(token, rest, **unchanged).status_code == 304
    address = f"{server.settings.base}s/{token}/{rest}"
    head = server.client.head(address, headers={"Range": "bytes=0-3"})
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,3-4", "lines=0-1", "bytes=5-2", "bytes=-", "bytes=a-b", "x"]
)
def test_what_is_no_single_range_gets_the_whole(wanted: str) -> None:
    assert ranges.part(wanted, 10) is None


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30))
def test_any_range_is_a_slice_of_the_whole(first: int, last: int, length: int) -> None:
    body = bytes(range(length))
    try:
        part = ranges.part(f"bytes={first}-{last}", length)
    except OutsideTheBody:
        assert first >= length
        return
    if part is None:
        assert last < first
        return
    assert body[part.start : part.stop] == body[first : last + 1]
    assert len(part) >= 1


@given(st.text(max_size=60))
def test_any_text_is_a_range_or_the_whole(text: str) -> None:
    try:
        part = ranges.part(text, 7)
    except OutsideTheBody:
        return
    assert part is None or 0 <= part.start < part.stop <= 7


def preflight(server: Server, address: str, origin: str) -> httpx.Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "if-none-match, range",
    }
    return server.client.options(address, headers=asked)


@pytest.fixture(scope="module", params=["https://a.example", "*"])
def open_to(request: pytest.FixtureRequest) -> Iterator[Both]:
    """A service whose answers may be read by pages of an origin, or of all."""
    settings = TileSettings(tokens.new_key(), BASE, cors_origins=(request.param,))
    yield from serve_both(settings, Limits())


@pytest.mark.parametrize("rest", ["3/1/1", "view.json", "region", "zarr/zarr.json"])
def test_a_page_elsewhere_is_told_what_it_may_send(
    open_to: Both, slide: Path, rest: str
) -> None:
    server = open_to.server
    address = open_to.target(server.seal(slide), rest)
    answer = preflight(server, address, "https://a.example")
    assert answer.status_code == 204
    listed = "*" not in server.settings.cors_origins
    allowed = "https://a.example" if listed else "*"
    assert answer.headers["access-control-allow-origin"] == allowed
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    sent = answer.headers["access-control-allow-headers"].lower()
    assert "if-none-match" in sent
    assert "range" in sent
    assert int(answer.headers["access-control-max-age"]) > 0
    assert ("vary" in answer.headers) == listed
    assert "access-control-allow-credentials" not in answer.headers
    stranger = preflight(server, address, "https://b.example")
    assert stranger.status_code == 204
    assert ("access-control-allow-methods" in stranger.headers) != listed


@pytest.mark.parametrize("rest", ["3/1/1", "3/4/3", "2/0/0.webp", "view.json", "icc"])
@pytest.mark.parametrize("origin", ["https://a.example", "https://b.example", None])
def test_both_ports_say_the_same_to_other_origins(
    open_to: Both, slide: Path, rest: str, origin: str | None
) -> None:
    target = open_to.target(open_to.server.seal(slide), rest)
    lines = [] if origin is None else [f"Origin: {origin}"]
    asked = "Access-Control-Request-Method: GET"
    for _ in range(2):
        same(open_to, request(target, *lines))
        same(open_to, request(target, *lines, method="HEAD"), bare=True)
    assert same(open_to, request(target, *lines, asked, method="OPTIONS")) == 204
    answer = ask(open_to.lane, request(target, *lines))
    told = answer.head.decode().lower()
    listed = "*" not in open_to.server.settings.cors_origins
    assert ("origin" in (answer.header("Vary") or "").lower()) == listed
    may = not listed or origin == "https://a.example"
    assert ("access-control-allow-origin" in told) == may
    assert ("access-control-expose-headers" in told) == may


def test_without_settings_no_other_origin_may_read(server: Server, token: str) -> None:
    address = f"{server.settings.base}s/{token}/3/1/1"
    for answer in (
        preflight(server, address, "https://a.example"),
        server.client.get(address, headers={"Origin": "https://a.example"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-")]
        assert "Origin" not in answer.headers.get("vary", "")


@pytest.mark.parametrize(
    "text",
    ["viewer.example", "https://a.example/", "ftp://a.example", "https://", "**"],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        cross_origin.parse_origins(f"https://good.example:8443 {text}")
