"""A lane's request answered by the Tornado application.

The application writes to what it takes for one of Tornado's own connections; `Handover`
is that, over a lane's connection. There are no request bodies here, so nothing of
Tornado's reading side is needed.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import Protocol

from tornado import httputil, web

from tile_server.lane.requests import Request


class Outlet(Protocol):
    """The connection as a handover needs it."""

    def send(self, answer: bytes) -> None: ...

    def sent(self) -> Future[None]:
        """Done when the client has read enough for more to be sent."""

    def answered(self, *, close: bool) -> None:
        """The answer is complete."""


class _Context:
    """What Tornado asks of a connection besides."""

    def __init__(self, remote_ip: str) -> None:
        self.remote_ip, self.protocol = remote_ip, "http"


class Handover(httputil.HTTPConnection):
    """One request at the application, and its answer on the way back."""

    def __init__(self, outlet: Outlet, request: Request, remote_ip: str) -> None:
        self.context = _Context(remote_ip)
        self._outlet = outlet
        self._request = request
        self._on_close: Callable[[], object] | None = None
        self._chunked = False
        self._missing: int | None = None
        self._open = True

    def begin(self, application: web.Application) -> None:
        """Let the application work; raises HTTPInputError for an impossible request."""
        request = self._request
        headers = httputil.HTTPHeaders()
        for name, text in request.headers:
            # The parser leaves the white space after a value, which is no part of it.
            headers.add(name.decode("latin-1"), text.decode("latin-1").strip(" \t"))
        start = httputil.RequestStartLine(
            request.method.decode("latin-1"),
            request.target.decode("latin-1"),
            f"HTTP/{request.version}",
        )
        application(
            httputil.HTTPServerRequest(
                headers=headers, connection=self, start_line=start
            )
        )

    def lost(self) -> None:
        """The client has gone."""
        self._open = False
        if self._on_close is not None:
            self._on_close()

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        self._on_close = callback

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Future[None]:
        status, reason = int(start_line[1]), start_line[2]
        bare = self._request.method == b"HEAD" or status in (204, 304)
        length = headers.get("Content-Length")
        self._missing = int(length) if length is not None and not bare else None
        self._chunked = length is None and not bare and self._request.version != "1.0"
        if length is None and not bare and not self._chunked:
            self._request.close = True  # HTTP/1.0: the end of the body is the end
        if self._request.close and self._request.version != "1.0":
            headers["Connection"] = "close"
        elif not self._request.close and self._request.version == "1.0":
            headers["Connection"] = "Keep-Alive"
        if self._chunked:
            headers["Transfer-Encoding"] = "chunked"
        lines = [f"HTTP/1.1 {status} {reason}"]
        lines += [f"{name}: {text}" for name, text in headers.get_all()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header with a line break in it")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return self._send(head + self._part(chunk or b""))

    def write(self, chunk: bytes) -> Future[None]:
        return self._send(self._part(chunk))

    def finish(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._chunked:
            self._outlet.send(b"0\r\n\r\n")
        # A body shorter than was promised: only the end of the connection can say so.
        self._outlet.answered(close=self._request.close or bool(self._missing))

    def close(self) -> None:
        """Cut the answer off: only that tells that it is not whole."""
        if self._open:
            self._open = False
            self._outlet.answered(close=True)

    def _part(self, chunk: bytes) -> bytes:
        if self._missing is not None:
            self._missing -= len(chunk)
            if self._missing < 0:
                raise httputil.HTTPOutputError("more was written than was promised")
        if self._chunked and chunk:
            return b"%x\r\n%b\r\n" % (len(chunk), chunk)
        return chunk

    def _send(self, part: bytes) -> Future[None]:
        if self._open and part:
            self._outlet.send(part)
        return self._outlet.sent()
