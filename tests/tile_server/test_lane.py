"""The fast lane: the same answers as the application, byte for byte, and its limits."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import slides
from tests.tile_server.conftest import Server, serve
from tests.tile_server.lane_client import (
    Conversation,
    ask,
    connect,
    request,
    without_time,
)
from tile_server import running, tokens
from tile_server.lane import Limits
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.service import TileSettings

BASE = "/hub-prefix/services/tiles/"
QUICK = Limits(head_bytes=2000, head_s=0.5, idle_s=1.0, write_s=0.5, linger_s=0.5)


@dataclass(frozen=True)
class Both:
    """One service at two ports: the application's, and the lane's."""

    server: Server
    plain: int
    lane: int

    def target(self, token: str, rest: str) -> str:
        return f"{self.server.settings.base}s/{token}/{rest}"


def serve_both(chosen: TileSettings, limits: Limits) -> Iterator[Both]:
    lane = running.listen(0)
    besides = running.Besides(lane=lane, limits=limits)
    for server in serve(chosen, besides=besides):
        plain = server.client.base_url.port
        assert plain is not None
        yield Both(server, plain, lane[0].getsockname()[1])


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    yield from serve_both(TileSettings(tokens.new_key(), BASE), Limits())


@pytest.fixture(scope="module")
def quick() -> Iterator[Both]:
    """With limits that a test can wait for."""
    yield from serve_both(TileSettings(tokens.new_key(), BASE), QUICK)


@pytest.fixture
def tile(both: Both, made_slides: dict[str, Path]) -> str:
    """The address of a stored tile whose slide is open."""
    target = both.target(both.server.seal(made_slides["ycbcr"]), "4/1/1")
    assert ask(both.plain, request(target)).status == 200
    return target


def same(both: Both, raw: bytes, *, bare: bool = False) -> int:
    """Check that both ports give the same bytes; gives the status."""
    wanted = ask(both.plain, raw, bare=bare)
    seen = ask(both.lane, raw, bare=bare)
    assert without_time(seen) == without_time(wanted)
    return seen.status


def test_every_tile_of_every_slide_is_the_applications_byte_for_byte(
    both: Both, made_slides: dict[str, Path]
) -> None:
    for path in made_slides.values():
        token = both.server.seal(path)
        with open_slide(path) as reader:
            ladder = Pyramid(reader).ladder
        for rung in ladder.rungs:
            columns = {0, rung.columns // 2, rung.columns - 1}
            rows = {0, rung.rows // 2, rung.rows - 1, rung.rows}
            for x in columns:
                for y in rows:
                    raw = request(both.target(token, f"{ladder.z(rung)}/{x}/{y}"))
                    assert same(both, raw) == (404 if y == rung.rows else 200)


@pytest.mark.parametrize(
    "rest",
    [
        "view.json",
        "thumbnail?size=64",
        "region?x=0&y=0&width=80&height=50&format=png",
        "region?x=0&y=0",
        "associated/macro",
        "4/1/1?a=b",
        "4/1/1/",
        "04/01/1",
        "99/0/0",
        "4/1/99999",
        "4/-1/0",
        "4/1/1.jpg",
        "%34/1/1",
        "nothing",
    ],
)
def test_every_other_address_is_answered_as_by_the_application(
    both: Both, made_slides: dict[str, Path], rest: str
) -> None:
    token = both.server.seal(made_slides["ycbcr"])
    same(both, request(both.target(token, rest)))
    same(both, request(both.target(token[:-2], rest)))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Connection: close",),
        ("Connection: Keep-Alive",),
        ("Content-Length: 0",),
        ("If-None-Match: ETAG",),
        ("If-None-Match: W/ETAG",),
        ('If-None-Match: "x", ETAG',),
        ("If-None-Match: *",),
        ('If-None-Match: "x"',),
        ("Origin: http://elsewhere.example",),
        ("X-Odd: \xe9", "Cookie: a=b; c=d"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("rest", ["4/1/1", "2/0/0", "4/15/10"])
def test_every_kind_of_request_is_answered_as_by_the_application(
    both: Both,
    made_slides: dict[str, Path],
    lines: tuple[str, ...],
    method: str,
    rest: str,
) -> None:
    target = both.target(both.server.seal(made_slides["ycbcr"]), rest)
    etag = ask(both.plain, request(target)).header("etag")
    assert etag is not None
    given = [line.replace("ETAG", etag) for line in lines]
    same(both, request(target, *given, method=method), bare=method == "HEAD")


@pytest.mark.parametrize("lines", [(), ("Connection: keep-alive",)])
def test_http_1_0_is_answered_as_by_the_application(
    both: Both, tile: str, lines: tuple[str, ...]
) -> None:
    assert same(both, request(tile, *lines, version="1.0")) == 200


def test_pages_of_named_origins_may_read(made_slides: dict[str, Path]) -> None:
    here, elsewhere = "https://here.example", "https://elsewhere.example"
    for origins in ((here,), ("*",)):
        chosen = TileSettings(tokens.new_key(), cors_origins=origins)
        for both in serve_both(chosen, Limits()):
            target = both.target(both.server.seal(made_slides["ycbcr"]), "4/1/1")
            ask(both.plain, request(target))
            for origin in (here, elsewhere):
                raw = request(target, f"Origin: {origin}")
                assert same(both, raw) == 200
                answer = ask(both.lane, raw)
                allowed = answer.header("access-control-allow-origin")
                if origins == ("*",):
                    assert allowed == "*"
                else:
                    assert allowed == (here if origin == here else None)
                    assert answer.header("vary") == "Origin"


def test_a_missing_and_a_damaged_tile_are_the_applications(
    both: Both, tmp_path: Path
) -> None:
    path = slides.write_slide(tmp_path / "damaged.svs", slides.YCBCR)
    slides.damage_tile(path, 0, 0)
    damaged = both.target(both.server.seal(path), "4/0/0")
    # The first request opens the slide; from then on the lane knows it.
    assert [same(both, request(damaged)) for _ in range(2)] == [422, 422]


def test_a_replaced_slide_is_gone_at_once(tmp_path: Path) -> None:
    chosen = TileSettings(tokens.new_key(), look_again_s=0)
    for both in serve_both(chosen, Limits()):
        path = slides.write_slide(tmp_path / "short_lived.svs", slides.YCBCR)
        target = both.target(both.server.seal(path), "4/1/1")
        assert [same(both, request(target)) for _ in range(2)] == [200, 200]
        os.utime(path, ns=(1, 1))
        assert same(both, request(target)) == 410
        path.unlink()
        assert same(both, request(target)) == 410


def test_a_tile_that_is_not_in_memory_is_read_from_the_disk(
    both: Both, made_slides: dict[str, Path]
) -> None:
    path = made_slides["single"]
    target = both.target(both.server.seal(path), "5/3/3")
    wanted = ask(both.plain, request(target))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert without_time(ask(both.lane, request(target))) == without_time(wanted)


def test_requests_sent_ahead_are_answered_in_their_order(
    both: Both, made_slides: dict[str, Path]
) -> None:
    token = both.server.seal(made_slides["ycbcr"])
    chance = random.Random(3)  # noqa: S311
    # Stored, made, edge, absent: some take a thread, some nothing.
    rests = [
        chance.choice(["4/1/1", "4/2/1", "3/0/0", "2/0/0", "4/15/10", "9/9/9"])
        for _ in range(200)
    ]
    targets = [both.target(token, rest) for rest in rests]
    wanted = {one: ask(both.plain, request(one)) for one in set(targets)}
    with Conversation(connect(both.lane)) as talk:
        sender = threading.Thread(
            target=talk.send, args=(b"".join(map(request, targets)),)
        )
        sender.start()
        for target in targets:
            assert without_time(talk.answer()) == without_time(wanted[target])
        sender.join()


def test_a_request_in_single_bytes_is_a_request(both: Both, tile: str) -> None:
    with Conversation(connect(both.lane)) as talk:
        for byte in request(tile):
            talk.send(bytes([byte]))
        assert talk.answer().status == 200


def test_an_offer_to_speak_something_else_is_not_taken_up(
    both: Both, tile: str
) -> None:
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A")
    with Conversation(connect(both.lane)) as talk:
        talk.send(request(tile, *lines))
        answer = talk.answer()
        assert answer.status == 200
        assert answer.header("connection") == "close"
        assert talk.ended()


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\n"
        b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nContent-Length: +0, %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: %d\r\n\r\n"
        b"0\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nX: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nX: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nX: 1\r\n Content-Length: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\nContent-Length: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nX: \0%d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: a\r\nHost: b\r\nX: %d\r\n\r\n",
        b"GET %b HTTP/1.1\r\nX: %d\r\n\r\n",
        b"GET %b HTTP/2.0\r\nHost: a\r\nX: %d\r\n\r\n",
        b"GET %b HTTP/1.1 \r\nHost: a\r\nX: %d\r\n\r\n",
        b"CONNECT %b HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n",
    ],
)
def test_what_follows_an_ambiguous_request_is_never_answered(
    both: Both, tile: str, head: bytes
) -> None:
    with Conversation(connect(both.lane)) as talk:
        talk.send(head % (tile.encode(), len(SMUGGLED)) + SMUGGLED)
        answer = talk.answer()
        assert answer.status in (400, 405, 413), answer
        assert answer.header("connection") == "close"
        assert talk.ended()


@pytest.mark.parametrize(
    "line",
    ["Cookie: " + "a" * 3000, "\r\n".join(f"A{n}: b" for n in range(200))],
    ids=["long", "many"],
)
def test_a_head_that_is_too_long_is_refused(quick: Both, line: str) -> None:
    with Conversation(connect(quick.lane)) as talk:
        talk.send(request("/", line))
        assert talk.answer().status == 431
        assert talk.ended()


def test_a_header_without_end_is_refused(quick: Both) -> None:
    with Conversation(connect(quick.lane)) as talk:
        talk.send(b"GET / HTTP/1.1\r\nCookie: ")
        with pytest.raises((ConnectionError, EOFError, TimeoutError)):  # noqa: PT012
            while True:
                talk.connection.settimeout(0.01)
                try:
                    assert talk.answer().status == 431
                    raise EOFError
                except TimeoutError:
                    talk.connection.settimeout(5)
                    talk.send(b"a" * 500)


def test_a_request_that_takes_too_long_is_refused(quick: Both) -> None:
    with Conversation(connect(quick.lane)) as talk:
        talk.send(b"GET / HTTP/1.1\r\nHos")
        assert talk.answer().status == 408
        assert talk.ended()


def test_a_connection_without_a_request_ends(quick: Both) -> None:
    with Conversation(connect(quick.lane)) as talk:
        assert talk.ended()
    with Conversation(connect(quick.lane)) as talk:
        talk.send(request(quick.target("x", "0/0/0")))
        assert talk.answer().status == 403
        assert talk.ended()


def test_a_client_that_does_not_read_is_cut_off(
    quick: Both, made_slides: dict[str, Path]
) -> None:
    target = quick.target(quick.server.seal(made_slides["ycbcr"]), "4/1/1")
    assert ask(quick.lane, request(target)).status == 200
    with connect(quick.lane) as connection:
        connection.settimeout(20)
        block = request(target) * 1000
        with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012
            while True:
                connection.sendall(block)
    # And nobody else has to wait for it.
    assert ask(quick.lane, request(target)).status == 200


def test_too_many_connections_are_told_to_come_again(
    made_slides: dict[str, Path],
) -> None:
    limits = replace(Limits(), connections=2)
    for both in serve_both(TileSettings(tokens.new_key()), limits):
        target = both.target(both.server.seal(made_slides["ycbcr"]), "4/1/1")
        first, second = (Conversation(connect(both.lane)) for _ in range(2))
        with first, second:
            for talk in (first, second):
                talk.send(request(target))
                assert talk.answer().status == 200
            with Conversation(connect(both.lane)) as third:
                answer = third.answer()
                assert answer.status == 503
                assert answer.header("retry-after") == "1"
                assert third.ended()
        deadline = time.monotonic() + 10
        while ask(both.lane, request(target)).status == 503:
            assert time.monotonic() < deadline


def test_a_client_that_half_closes_still_gets_its_tiles(both: Both, tile: str) -> None:
    with Conversation(connect(both.lane)) as talk:
        talk.send(request(tile) * 3)
        talk.connection.shutdown(socket.SHUT_WR)
        assert [talk.answer().status for _ in range(3)] == [200] * 3
        assert talk.ended()


def test_stopping_ends_idle_connections_at_once(
    made_slides: dict[str, Path],
) -> None:
    serving = serve_both(TileSettings(tokens.new_key()), Limits())
    both = next(serving)
    target = both.target(both.server.seal(made_slides["ycbcr"]), "4/1/1")
    with Conversation(connect(both.lane)) as talk:
        talk.send(request(target))
        assert talk.answer().status == 200
        began = time.monotonic()
        assert next(serving, None) is None
        assert time.monotonic() - began < 2.0
        assert talk.ended()


PIECES = st.sampled_from(
    [
        b"GET", b"HEAD", b"POST", b"PRI", b" ", b"\t", b"/", b"*", b"TILE",
        b" HTTP/1.1",
        b" HTTP/1.0", b" HTTP/9.9", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"Host: a",
        b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Connection: close",
        b"If-None-Match: *", b":", b"\0", b"\xff", b"Upgrade: x", b"0\r\n\r\n", b"%",
        b"GET TILE HTTP/1.1\r\nHost: a\r\n\r\n", b"A" * 3000,
    ]
)  # fmt: skip


def feed(both: Both, target: str, raw: bytes) -> None:
    """Send anything and its end: the answers are answers, and then comes the end."""
    with Conversation(connect(both.lane)) as talk:
        talk.send(raw.replace(b"TILE", target.encode()))
        talk.connection.shutdown(socket.SHUT_WR)
        whole = b""
        try:
            while part := talk.connection.recv(2**16):
                whole += part
        except ConnectionError:
            return
        assert not whole or whole.startswith(b"HTTP/1.1 "), whole[:100]
        assert b"HTTP/1.1 500" not in whole


@given(raw=st.one_of(st.binary(max_size=300), st.lists(PIECES).map(b"".join)))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_sent_is_answered_or_refused(
    both: Both, tile: str, raw: bytes
) -> None:
    feed(both, tile, raw)


@pytest.mark.fuzz
@given(raw=st.one_of(st.binary(max_size=300), st.lists(PIECES).map(b"".join)))
@settings(
    max_examples=20_000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_sent_is_answered_or_refused_in_many_cases(
    both: Both, tile: str, raw: bytes
) -> None:
    feed(both, tile, raw)
