"""The lane's listener: its connections, their limits in time, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence

from tornado import web

from tile_server.lane.connection import Connection
from tile_server.lane.limits import Limits
from tile_server.lane.tiles import StoredTiles
from tile_server.service import TileService

_LOOK_S = 0.5
_ARRIVAL_BYTES = 64 * 2**10


class Lane:
    """A running lane; started and stopped once, on the service's event loop."""

    def __init__(
        self,
        service: TileService,
        application: web.Application,
        limits: Limits | None = None,
    ) -> None:
        """Answer for `service`, and by `application` whatever is not a stored tile."""
        self.service = service
        self.application = application
        self.limits = limits or Limits()
        self.tiles = StoredTiles(service)
        self.draining = False
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._look: asyncio.TimerHandle | None = None
        self._arrivals = memoryview(bytearray(_ARRIVAL_BYTES))

    def __len__(self) -> int:
        return len(self._connections)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Take clients from listening `sockets`, which become the lane's."""
        loop = asyncio.get_running_loop()
        for one in sockets:
            server = await loop.create_server(
                lambda: Connection(self), sock=one, backlog=1024
            )
            self._servers.append(server)
        self._look_after()

    def close(self) -> None:
        """Take no more clients; let each connection end after its due answers."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.drain()

    async def wait_closed(self, limit_s: float) -> None:
        """Wait for the connections' end, and cut off those that take longer."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), limit_s)
        for connection in list(self._connections):
            connection.abort()
        if self._look is not None:
            self._look.cancel()

    def opened(self, connection: Connection) -> bool:
        """Count a connection; False where there are too many."""
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) <= self.limits.connections

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def arrival_buffer(self) -> memoryview:
        """Where a connection's arrivals are put, until it takes them in the same turn.

        A loop that waits for sockets reads one after another, so all can share it; one
        that has reads under way for many (Windows) gives each connection its own.
        """
        if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
            return self._arrivals
        return memoryview(bytearray(_ARRIVAL_BYTES // 16))

    def _look_after(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            connection.look_after(now)
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(_LOOK_S, self._look_after)
