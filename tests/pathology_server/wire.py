"""HTTP/1.1 on a real socket, with the right to misbehave.

A web framework takes care that a response is well formed; this server must be able to
announce one length and send another, to stop in the middle, and to reset a connection.
So it writes its bytes itself. One thread runs one event loop; an application (a plain
function from request to reply) is called on it, or in a pool of threads where the reply
may take long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType

import httptools

from .faults import DropAfter, Fault, Reset, Stall, Truncate, WrongLength

MOST_BODY_BYTES = 64 << 20
LARGE_BODY_BYTES = 32 << 10
"""From here on a body is judged in the pool, so that other requests are not held up."""


@dataclass(frozen=True)
class Request:
    """A request as it came; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def raw_query(self) -> str:
        return self.target.partition("?")[2]


@dataclass
class Reply:
    """An answer.

    Attributes
    ----------
    body
        Bytes; or a function that makes them, called in the pool; or chunks.
    length
        Of a body in chunks; without it, it is sent with chunked transfer coding.
    delay_s
        Waited before the reply is sent.
    fault
        What goes wrong while it is sent.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], bytes] | Iterable[bytes] = b""
    length: int | None = None
    delay_s: float = 0.0
    fault: Fault | None = None


Application = Callable[[Request], Reply]
Before = Callable[[Request], float]


class Wire:
    """A listening server in its own thread; `with Wire(...) as wire: wire.port`.

    `before` answers how many seconds a request waits before the application sees it;
    `cut`, by its target, after how many bytes of its body the connection is reset.
    """

    def __init__(
        self,
        application: Application,
        *,
        before: Before = lambda _request: 0.0,
        cut: Callable[[str], int | None] = lambda _target: None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._application = application
        self._before = before
        self._cut = cut
        self._host, self.port = host, port
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="pathology-server")
        self._thread = threading.Thread(
            target=self._run, name="pathology-server", daemon=True
        )
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._failure: OSError | None = None

    def __enter__(self) -> Wire:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failure = error
            self._ready.set()
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._connection, self._host, self.port, backlog=1024, ssl=self._tls
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        left = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._conversation(reader, writer)
        writer.close()

    async def _conversation(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        collected = _Collector()
        parser = httptools.HttpRequestParser(collected)
        collected.parser = parser
        while received := await reader.read(1 << 16):
            try:
                parser.feed_data(received)
            except httptools.HttpParserError:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                return
            most = self._cut(collected.target)
            if most is not None and collected.length > most:
                _reset(writer)
                return
            while collected.whole:
                request = collected.whole.pop(0)
                if not await self._answer(request, reader, writer):
                    return
                if not parser.should_keep_alive():
                    return

    async def _answer(
        self,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; False where the connection is of no more use."""
        await asyncio.sleep(self._before(request))
        if len(request.body) > LARGE_BODY_BYTES:
            reply = await self._loop.run_in_executor(
                self._pool, self._application, request
            )
        else:
            reply = self._application(request)
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if isinstance(reply.fault, Reset | DropAfter):
            _reset(writer)
            return False
        body = reply.body
        if callable(body):
            body = await self._loop.run_in_executor(self._pool, body)
        return await self._send(request, reply, body, reader, writer)

    async def _send(
        self,
        request: Request,
        reply: Reply,
        body: bytes | Iterable[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        chunks = iter([body]) if isinstance(body, bytes) else iter(body)
        length = len(body) if isinstance(body, bytes) else reply.length
        fault = reply.fault
        if isinstance(fault, WrongLength):
            if length is None:
                length = len(b"".join(chunks := list(chunks)))
                chunks = iter(chunks)
            length += fault.by_bytes
        writer.write(_head(reply, length))
        if request.method == "HEAD" or reply.status in {204, 304}:
            await writer.drain()
            return True
        limit = _limit(fault)
        sent = 0
        while (chunk := await self._next(chunks, body)) is not None:
            if limit is not None:
                chunk = chunk[: limit - sent]
            sent += len(chunk)
            if chunk:
                framed = b"%x\r\n%b\r\n" % (len(chunk), chunk)
                writer.write(chunk if length is not None else framed)

                await writer.drain()
            if limit is not None and sent >= limit:
                break
        if isinstance(fault, Stall):
            # Until the client goes away, or the server stops and cancels this.
            while await reader.read(1 << 16):
                pass
            return False
        if isinstance(fault, Truncate | WrongLength):
            return False
        if length is None:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _next(
        self, chunks: Iterator[bytes], body: bytes | Iterable[bytes]
    ) -> bytes | None:
        if isinstance(body, bytes):
            return next(chunks, None)
        # Chunks may come from a disk.
        return await self._loop.run_in_executor(self._pool, next, chunks, None)


class _Collector:
    """Gathers what the parser says into whole requests."""

    def __init__(self) -> None:
        self.whole: list[Request] = []
        self._parts: list[bytes] = []
        self._target = b""
        self._headers: dict[str, str] = {}
        self.length = 0
        self.parser: httptools.HttpRequestParser | None = None

    @property
    def target(self) -> str:
        """Of the request that comes."""
        return self._target.decode("latin-1")

    def on_message_begin(self) -> None:
        self._parts, self._target, self._headers, self.length = [], b"", {}, 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self.length += len(part)
        if self.length > MOST_BODY_BYTES:
            raise ValueError("the body is too large")
        self._parts.append(part)

    def on_message_complete(self) -> None:
        assert self.parser is not None
        method = self.parser.get_method().decode("latin-1")
        body = b"".join(self._parts)
        self.whole.append(Request(method, self.target, self._headers, body))


def _head(reply: Reply, length: int | None) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Status"
    headers = dict(reply.headers)
    if reply.status not in {204, 304}:
        if length is None:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(length)
    lines = [f"HTTP/1.1 {reply.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _limit(fault: Fault | None) -> int | None:
    if isinstance(fault, Truncate):
        return fault.at_bytes
    if isinstance(fault, Stall):
        return fault.after_bytes
    return None


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an orderly end: nothing lingers."""
    held = writer.get_extra_info("socket")
    if held is not None:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
