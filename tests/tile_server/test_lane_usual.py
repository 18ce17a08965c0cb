"""Headers that the lane knows again: every answer is still the application's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tile_server.lane_client import (
    Conversation,
    ask,
    connect,
    request,
    without_time,
)
from tests.tile_server.test_lane import BASE, Both, serve_both
from tile_server import tokens
from tile_server.lane import Limits
from tile_server.service import TileSettings

BROWSER = ("Accept: image/*;q=0.8", "User-Agent: a browser", "Connection: keep-alive")


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    yield from serve_both(TileSettings(tokens.new_key(), BASE), Limits())


@pytest.fixture(scope="module")
def prefix(both: Both, made_slides: dict[str, Path]) -> str:
    """The address of a slide that is open, up to the tile."""
    target = both.target(both.server.seal(made_slides["ycbcr"]), "")
    assert ask(both.plain, request(f"{target}4/1/1")).status == 200
    return target


def talk_of(both: Both, port: int, asked: list[tuple[bytes, bool]]) -> list[object]:
    """The answers to requests on one connection, each sent when the last was read."""
    with Conversation(connect(port)) as talk:
        answers = []
        for raw, bare in asked:
            talk.send(raw)
            answers.append(without_time(talk.answer(bare=bare)))
        return answers


# A request's address below the slide, and how it is asked for.
ASKED = st.tuples(
    st.sampled_from(
        ["4/0/0", "4/1/1", "4/2/3", "4/15/10", "3/1/1", "2/0/0", "4/99/0", "4/1/1?a=b"]
    ),
    st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]),
    st.sampled_from(
        [BROWSER, BROWSER, (), ("If-None-Match: *",), ("Origin: http://a",)]
    ),
)


@given(asked=st.lists(ASKED, min_size=2, max_size=12))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_order_of_requests_is_answered_as_by_the_application(
    both: Both, prefix: str, asked: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    raw = [
        (request(prefix + rest, *lines, method=method), method == "HEAD")
        for rest, method, lines in asked
    ]
    assert talk_of(both, both.lane, raw) == talk_of(both, both.plain, raw)


@pytest.mark.parametrize(
    "first",
    [
        "\r\nGET TILE HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET TILE HTTP/1.1\r\nHost: a\r\n\r\nGET TILE HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["an empty line first", "two at once"],
)
def test_a_first_line_is_never_taken_for_a_header(
    both: Both, prefix: str, first: str
) -> None:
    tile = f"{prefix}4/1/1"
    raw = first.replace("TILE", tile).encode()
    with Conversation(connect(both.lane)) as talk:
        talk.send(raw)
        for _ in range(raw.count(b"Host")):
            assert talk.answer().status == 200
        # What followed the first line break before is no header behind a first line.
        talk.send(f"GET {tile} HTTP/1.1\r\n".encode() + raw.partition(b"\r\n")[2])
        assert talk.answer().status == (400 if raw.startswith(b"\r\n") else 200)


def test_a_request_in_pieces_is_whole_before_it_is_answered(
    both: Both, prefix: str
) -> None:
    whole = request(f"{prefix}4/1/1", *BROWSER)
    with Conversation(connect(both.lane)) as talk:
        talk.send(whole)
        wanted = without_time(talk.answer())
        for cut in range(1, len(whole) - 1, 7):
            talk.send(whole[:cut])
            talk.send(whole[cut:] + whole)
            assert without_time(talk.answer()) == wanted
            assert without_time(talk.answer()) == wanted


def test_a_known_request_that_asks_for_the_end_gets_it(both: Both, prefix: str) -> None:
    tile = f"{prefix}4/1/1"
    with Conversation(connect(both.lane)) as talk:
        talk.send(request(tile, *BROWSER))
        assert talk.answer().status == 200
        talk.send(request(tile, "Connection: close"))
        assert talk.answer().header("connection") == "close"
        assert talk.ended()
