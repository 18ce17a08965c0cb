"""Answers to requests for stored tiles, byte for byte what the Tornado route gives.

Everything that is not the plain case (no such slide open yet, no stored tile, an odd
address, a list of ETags) is answered by nobody here: the caller hands it over.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate

from tile_server import cross_origin
from tile_server.address import normal_base
from tile_server.derived import VARIANT
from tile_server.errors import TileServerError
from tile_server.handlers import FOR_EVER
from tile_server.ladder import Rung
from tile_server.lane.requests import Request
from tile_server.reading import Place, read_now
from tile_server.service import TileService
from tile_server.slides import OpenedSlide


class StoredTile:
    """A tile that is in its slide's file, and how to answer with it."""

    __slots__ = ("address", "etag", "place", "slide")

    def __init__(
        self,
        slide: OpenedSlide,
        address: tuple[Rung, int, int],
        place: Place,
        etag: bytes,
    ) -> None:
        self.slide, self.address, self.place, self.etag = slide, address, place, etag

    def read_cold(self) -> bytes | None:
        """The tile from the disk; may wait. Raises DamagedTile."""
        tile = self.slide.pyramid.cold_tile(*self.address)
        return None if tile is None else tile.body


class StoredTiles:
    """The lane's knowledge of addresses and headers."""

    def __init__(self, service: TileService) -> None:
        self._service = service
        base = re.escape(normal_base(service.settings.base).encode("ascii"))
        address = base + rb"s/([A-Za-z0-9_-]+)/(\d{1,9})/(\d{1,9})/(\d{1,9})"
        self._address = re.compile(address)
        self._line = re.compile(rb"GET " + address + rb" HTTP/1\.1")
        policy = service.settings.resource_policy
        self._headers = (
            "X-Content-Type-Options: nosniff\r\n"
            "Referrer-Policy: no-referrer\r\n"
            f"Cache-Control: {FOR_EVER}\r\n"
            f"Cross-Origin-Resource-Policy: {policy}\r\n"
        ).encode("ascii")
        self._date = b""
        self._date_second = 0

    def find(self, request: Request) -> StoredTile | None:
        """The stored tile that a request asks for; good until the next `await`."""
        if request.method not in (b"GET", b"HEAD"):
            return None
        return self._find(self._address.fullmatch(request.target))

    def find_by_line(self, line: bytes) -> StoredTile | None:
        """The stored tile that the first line of a GET asks for; else as `find`."""
        return self._find(self._line.fullmatch(line))

    def _find(self, address: re.Match[bytes] | None) -> StoredTile | None:
        if address is None:
            return None
        token, z, x, y = address.groups()
        t_x, t_y = int(x), int(y)
        try:
            capability = self._service.capability(token.decode("ascii"))
            slide = self._service.slides.ready(capability)
            if slide is None:
                return None
            pyramid = slide.pyramid
            rung = pyramid.ladder.tile_rung(int(z), t_x, t_y)
        except TileServerError:
            # The application meets the same error, and knows the words for it.
            return None
        place = pyramid.place(rung, t_x, t_y)
        if place is None:
            return None
        etag = f'"{slide.version}-{rung.k}-{t_x}-{t_y}-{VARIANT}"'
        return StoredTile(slide, (rung, t_x, t_y), place, etag.encode("ascii"))

    def answer_now(self, request: Request, tile: StoredTile) -> bytes | None:
        """The answer, where nothing has to be waited for."""
        if request.matches:
            # A list, a weak tag or a star is the application's business.
            same = request.matches == [tile.etag]
            return self._unchanged(request, tile) if same else None
        stream = read_now(tile.place)
        return None if stream is None else self.answer(request, tile, stream)

    def answer(self, request: Request, tile: StoredTile, stream: bytes) -> bytes:
        """The answer with the tile's bytes (or none of them, for HEAD)."""
        spent_s = time.perf_counter() - request.began
        self._service.tally.count("stored", spent_s, len(stream))
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nDate: %b\r\n%b%b"
            b"Etag: %b\r\nServer-Timing: stored\r\nServer-Timing: total;dur=%.3f\r\n"
            b"Content-Length: %d\r\n%b\r\n"
        ) % (
            self._now(),
            self._headers,
            self._cross_origin(request),
            tile.etag,
            spent_s * 1000,
            len(stream),
            _connection(request),
        )
        return head if request.method == b"HEAD" else head + stream

    def _unchanged(self, request: Request, tile: StoredTile) -> bytes:
        spent_s = time.perf_counter() - request.began
        self._service.tally.count("unchanged", spent_s, 0)
        return (
            b"HTTP/1.1 304 Not Modified\r\nDate: %b\r\n%b%bEtag: %b\r\n"
            b"Server-Timing: total;dur=%.3f\r\n%b\r\n"
        ) % (
            self._now(),
            self._headers,
            self._cross_origin(request),
            tile.etag,
            spent_s * 1000,
            _connection(request),
        )

    def _cross_origin(self, request: Request) -> bytes:
        origins = self._service.settings.cors_origins
        if not origins:
            return b""
        origin = None if request.origin is None else request.origin.decode("latin-1")
        lines = cross_origin.headers(origins, origin)
        return "".join(f"{name}: {text}\r\n" for name, text in lines).encode("latin-1")

    def _now(self) -> bytes:
        second = int(time.time())
        if second != self._date_second:
            self._date = formatdate(second, usegmt=True).encode("ascii")
            self._date_second = second
        return self._date


def _connection(request: Request) -> bytes:
    """The header that says whether the connection stays open, where it has to be said.

    HTTP/1.1 connections stay unless it is said; those of HTTP/1.0 end.
    """
    if request.version == "1.0":
        return b"" if request.close else b"Connection: Keep-Alive\r\n"
    return b"Connection: close\r\n" if request.close else b""
