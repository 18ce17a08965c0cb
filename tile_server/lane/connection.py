"""One client's connection: requests in, answers out, in the same order.

One request is answered at a time. Those that a client sends ahead wait, and while any
wait, or while the client does not read, nothing more is read from it: so a connection
holds at most what arrived in one piece. A request that must be refused is the last one.

A browser asks for all tiles of a view with the same headers. Headers that were parsed
once, and found plain, are known by their bytes from then on (`_Usual`): a request that
has them again, whole and alone, is told by its first line.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import NamedTuple, Protocol, cast

import httptools
from tornado import httputil, web

from tile_server.errors import TileServerError
from tile_server.lane.handover import Handover
from tile_server.lane.limits import Limits
from tile_server.lane.requests import (
    BAD,
    TOO_LARGE,
    TOO_LATE,
    TOO_MANY,
    Request,
    refusal,
)
from tile_server.lane.tiles import StoredTile, StoredTiles
from tile_server.service import TileService

log = logging.getLogger(__name__)

# Longer headers are parsed each time: every connection keeps one copy.
_LONGEST_USUAL = 4096


class _Usual(NamedTuple):
    """The last plain request: its bytes after the first line, and what they say."""

    rest: bytes
    request: Request


class Shared(Protocol):
    """What the connections of one lane share."""

    service: TileService
    tiles: StoredTiles
    application: web.Application
    limits: Limits
    draining: bool

    def opened(self, connection: Connection) -> bool:
        """False where there are too many already."""

    def closed(self, connection: Connection) -> None: ...

    def arrival_buffer(self) -> memoryview:
        """Where what arrives is put; only until it is taken out, in the same turn."""


class Connection(asyncio.BufferedProtocol):
    """A connection of the lane; made by its listener for each client."""

    def __init__(self, lane: Shared) -> None:
        self._lane = lane
        self._limits = lane.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._arrivals = lane.arrival_buffer()
        self._arriving: Request | None = None
        self._usual: _Usual | None = None
        self._complete: list[Request] = []  # by the piece that came last
        self._waiting: deque[Request] = deque()
        self._work: asyncio.Task[None] | Handover | None = None
        self._room: asyncio.Future[None] | None = None
        self._advancing = False
        self._last = False  # nothing more is read
        self._ended = False  # nothing more is answered
        self._peer_ended = False
        self._paused = False
        self._pieces_bytes = 0
        self._since = time.monotonic()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._lane.opened(self):
            self._refuse(TOO_MANY)

    # With `data_received` asyncio takes 256 KB of memory from the system for each piece
    # and gives it back: fifteen microseconds, more than all the rest of a tile.
    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._arrivals

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._arrivals[:nbytes])
        if self._usual is None or not self._answer_as_usual(self._usual, data):
            self._parse(data)

    def _answer_as_usual(self, usual: _Usual, data: bytes) -> bool:
        """Answer a request that differs from the last one in its tile only.

        False where it is something else, or cannot be answered at once.
        """
        began = time.perf_counter()
        line, _, rest = data.partition(b"\r\n")
        if rest != usual.rest or not self._is_free or self._lane.draining:
            return False
        tile = self._lane.tiles.find_by_line(line)
        if tile is None:
            return False
        usual.request.began = began
        answer = self._lane.tiles.answer_now(usual.request, tile)
        if answer is None:
            return False
        self._since = time.monotonic()
        self._transport.write(answer)
        return True

    def _parse(self, data: bytes) -> None:
        if self._last:
            return
        before, was_free, self._complete = self._arriving, self._is_free, []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing else is spoken here; `on_message_complete` saw the request
        except httptools.HttpParserError:
            self._refuse(BAD)
        arriving = self._arriving
        if arriving is None:
            self._usual = _usual(self._complete, data) if was_free else None
            return
        if arriving is not before:
            self._since, self._pieces_bytes = time.monotonic(), 0
        else:
            # The parser tells of a header when it is complete, and keeps it till then.
            self._pieces_bytes += len(data)
            if self._pieces_bytes > self._limits.head_bytes:
                arriving.refusal = TOO_LARGE
        if arriving.refusal:
            self._refuse(arriving.refusal)

    def eof_received(self) -> bool:
        self._last = self._peer_ended = True
        self._arriving = None
        if isinstance(self._work, Handover):
            # A browser that zooms on closes its connections: work is given up.
            return False
        # Half a connection is enough for the tiles that are due.
        return self._work is not None or bool(self._waiting) or self._is_full

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        self._since = time.monotonic()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        self._since = time.monotonic()
        self._advance()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._last = self._ended = True
        self._waiting.clear()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        work, self._work = self._work, None
        if isinstance(work, Handover):
            work.lost()
        elif work is not None:
            work.cancel()
        self._lane.closed(self)

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._arriving = Request(time.perf_counter())

    def on_url(self, part: bytes) -> None:
        if self._arriving is not None:
            self._arriving.target += part

    def on_header(self, name: bytes, text: bytes) -> None:
        if self._arriving is not None:
            self._arriving.headers.append((name, text))

    def on_headers_complete(self) -> None:
        request, parser = self._arriving, self._parser
        if request is not None:
            request.close = not parser.should_keep_alive() or parser.should_upgrade()
            request.complete(
                parser.get_method(), parser.get_http_version(), self._limits
            )

    def on_message_complete(self) -> None:
        request, self._arriving = self._arriving, None
        if request is None or self._last:
            return
        if request.refusal:
            self._refuse(request.refusal)
            return
        self._complete.append(request)
        self._last = request.close
        self._waiting.append(request)
        self._advance()

    # Called by the lane.

    def look_after(self, now: float) -> None:
        """End what has lasted too long; `now` is `time.monotonic()`."""
        spent_s, limits = now - self._since, self._limits
        if self._ended:
            unread = self._transport.get_write_buffer_size() > 0
            if spent_s > (limits.write_s if unread else limits.linger_s):
                self._transport.abort()
        elif self._is_full:
            if spent_s > limits.write_s:
                self._transport.abort()
        elif self._work is not None:
            if spent_s > limits.answer_s:
                self._transport.abort()
        elif self._arriving is not None:
            if spent_s > limits.head_s:
                self._refuse(TOO_LATE)
        elif spent_s > limits.idle_s:
            self._end()

    def drain(self) -> None:
        """End after the answers that are due."""
        self._last = True
        self._arriving = None
        if self._work is None and not self._waiting:
            self._end()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    # Called by a handover.

    def send(self, answer: bytes) -> None:
        if not self._ended:
            self._transport.write(answer)

    def sent(self) -> asyncio.Future[None]:
        if self._room is not None:
            return asyncio.ensure_future(_wait(self._room))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def answered(self, *, close: bool) -> None:
        """The request at the head of the connection has its whole answer."""
        self._work = None
        self._since = time.monotonic()
        if close:
            self._end()
        self._advance()

    @property
    def _is_full(self) -> bool:
        return self._room is not None

    @property
    def _is_free(self) -> bool:
        """True where nothing is due or half arrived, and more is taken."""
        return (
            self._work is None
            and self._arriving is None
            and not self._waiting
            and self._room is None
            and not self._last
        )

    def _advance(self) -> None:
        """Answer what waits, until something has to be waited for."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._waiting and not (self._work or self._is_full or self._ended):
                self._answer(self._waiting.popleft())
        finally:
            self._advancing = False
        if self._ended:
            return
        # One request under way and none behind it: go on reading, to see the client go.
        behind = bool(self._waiting) or self._is_full
        if behind != self._paused and not self._peer_ended:
            self._paused = behind
            if behind:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        due = behind or self._work is not None
        if not due and (self._peer_ended or (self._last and self._lane.draining)):
            self._end()

    def _answer(self, request: Request) -> None:
        self._since = time.monotonic()
        if request.refusal:
            self.send(refusal(request.refusal))
            self._end(lingering=True)
            return
        if self._lane.draining and not self._waiting:
            request.close = True
        tile = self._lane.tiles.find(request)
        if tile is None:
            self._hand_over(request)
            return
        answer = self._lane.tiles.answer_now(request, tile)
        if answer is not None:
            self.send(answer)
            if request.close:
                self._end()
        elif request.matches:
            self._hand_over(request)
        else:
            # Held from here, since the task begins a turn of the loop later.
            tile.slide.take()
            self._work = asyncio.ensure_future(self._from_disk(request, tile))
            self._work.add_done_callback(lambda _: tile.slide.let_go())

    async def _from_disk(self, request: Request, tile: StoredTile) -> None:
        service = self._lane.service
        try:
            stream = await service.from_disk(tile.slide, tile.read_cold)
        except (TileServerError, OSError) as error:
            log.info("a stored tile cannot be read: %s", type(error).__name__)
            stream = None
        if stream is None:
            # Damaged, or the service stops: the application has the words for it.
            self._work = None
            self._hand_over(request)
            return
        self.send(self._lane.tiles.answer(request, tile, stream))
        self.answered(close=request.close)

    def _hand_over(self, request: Request) -> None:
        if self._ended:
            return
        peer = self._transport.get_extra_info("peername") or ("",)
        handover = Handover(self, request, str(peer[0]))
        self._work = handover
        try:
            handover.begin(self._lane.application)
        except httputil.HTTPInputError:
            self._work = None
            self._waiting.clear()
            self.send(refusal(BAD))
            self._end(lingering=True)

    def _refuse(self, status: int) -> None:
        """Refuse what arrived, after the answers that are due."""
        self._arriving = None
        if self._last:
            return
        self._last = True
        self._waiting.append(Request(time.perf_counter(), refusal=status))
        self._advance()

    def _end(self, *, lingering: bool = False) -> None:
        """Send what is written, then close."""
        if self._ended:
            return
        self._last = self._ended = True
        self._since = time.monotonic()
        if lingering and self._transport.can_write_eof() and not self._peer_ended:
            # Closing with unread bytes resets the connection, and the client would
            # lose the answer: so it is half closed, and what still comes is dropped.
            self._transport.write_eof()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
        else:
            self._transport.close()


def _usual(complete: list[Request], data: bytes) -> _Usual | None:
    """What to know again, where one plain request was the whole of `data`."""
    if len(complete) != 1 or not complete[0].is_plain:
        return None
    line, _, rest = data.partition(b"\r\n")
    # Else lines of an odd beginning would be taken for headers.
    begins = line == b"GET %b HTTP/1.1" % complete[0].target
    return _Usual(rest, complete[0]) if begins and len(rest) <= _LONGEST_USUAL else None


async def _wait(room: asyncio.Future[None]) -> None:
    await asyncio.shield(room)
