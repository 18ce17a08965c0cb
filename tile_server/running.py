"""Running a tile service until it is told to stop.

Stopping is quick and clean: connections are closed, work in progress is given up, kept
folders are removed, and the process ends well within two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Sequence

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.routing import URLSpec

from tile_server.application import make_application
from tile_server.probing import Prober
from tile_server.service import TileService, TileSettings

_CLOSE_S = 1.0
# Requests have no body worth reading.
_MOST_BODY_BYTES = 2**16

Stop = Callable[[], None]


def listen(port: int, host: str = "127.0.0.1") -> list[socket.socket]:
    """Listen on `port`, 0 for any; raises OSError if it is taken."""
    return bind_sockets(port, host, family=socket.AF_INET)


def run(
    settings: TileSettings,
    sockets: Sequence[socket.socket],
    *,
    routes: Sequence[URLSpec] = (),
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    started: Callable[[Stop], None] = lambda _: None,
    prober: Prober | None = None,
) -> None:
    """Serve on `sockets` until one of `signals` arrives or `Stop` is called.

    `started` is called once requests are answered; the `Stop` that it gets may be
    called from any thread. `prober` is one to share; without it the service has its
    own.
    """
    asyncio.run(_run(settings, sockets, routes, signals, started, prober))


async def _run(
    settings: TileSettings,
    sockets: Sequence[socket.socket],
    routes: Sequence[URLSpec],
    signals: Sequence[signal.Signals],
    started: Callable[[Stop], None],
    prober: Prober | None,
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for one in signals:
        loop.add_signal_handler(one, ended.set)

    def stop() -> None:
        loop.call_soon_threadsafe(ended.set)

    service = TileService(settings, prober=prober)
    server = HTTPServer(
        make_application(service, routes), max_body_size=_MOST_BODY_BYTES
    )
    server.add_sockets(sockets)
    try:
        started(stop)
        await ended.wait()
    finally:
        server.stop()
        service.stop()
        # A client that does not read its answer does not keep the process alive.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), _CLOSE_S)
