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
from dataclasses import dataclass, field

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.routing import URLSpec

from tile_server.application import make_application, watching_application
from tile_server.lane import Lane, Limits
from tile_server.probing import Prober
from tile_server.service import TileService, TileSettings

_CLOSE_S = 1.0
# Requests have no body worth reading.
_MOST_BODY_BYTES = 2**16

# By then all work has been given up; what is left are clients that do not read.
_DRAIN_S = 0.3


@dataclass(frozen=True)
class Besides:
    """What else a service listens on.

    Attributes
    ----------
    lane, limits
        Sockets of the fast lane, and its limits.
    metrics
        Sockets of the page for whoever watches the service; on loopback only.
    parent
        A pipe that ends with the process whose worker this is.
    """

    lane: Sequence[socket.socket] = ()
    limits: Limits = field(default_factory=Limits)
    metrics: Sequence[socket.socket] = ()
    parent: int | None = None


Stop = Callable[[], None]


def listen(
    port: int, host: str = "127.0.0.1", *, shared: bool = False
) -> list[socket.socket]:
    """Listen on `port`, 0 for any; raises OSError if it is taken.

    A `shared` port may be listened on again by processes of the same account; the
    system spreads the clients among them.
    """
    return bind_sockets(
        port, host, family=socket.AF_INET, backlog=1024, reuse_port=shared
    )


def run(
    settings: TileSettings,
    sockets: Sequence[socket.socket],
    *,
    routes: Sequence[URLSpec] = (),
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    started: Callable[[Stop], None] = lambda _: None,
    prober: Prober | None = None,
    besides: Besides | None = None,
) -> None:
    """Serve on `sockets` until one of `signals` arrives or `Stop` is called.

    `started` is called once requests are answered; the `Stop` that it gets may be
    called from any thread. `besides` are further listeners. `prober` is one to share;
    without it the service has its own.
    """
    asyncio.run(_run(settings, sockets, routes, signals, started, prober, besides))


async def _run(
    settings: TileSettings,
    sockets: Sequence[socket.socket],
    routes: Sequence[URLSpec],
    signals: Sequence[signal.Signals],
    started: Callable[[Stop], None],
    prober: Prober | None,
    besides: Besides | None,
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for one in signals:
        loop.add_signal_handler(one, ended.set)

    def stop() -> None:
        loop.call_soon_threadsafe(ended.set)

    service = TileService(settings, prober=prober)
    application = make_application(service, routes)
    server = HTTPServer(application, max_body_size=_MOST_BODY_BYTES)
    server.add_sockets(sockets)
    besides = besides or Besides()
    lane = Lane(service, application, besides.limits)
    watched = HTTPServer(watching_application(service))
    try:
        await lane.start(besides.lane)
        watched.add_sockets(besides.metrics)
        if besides.parent is not None:
            # Its other end is the parent's: it ends when the parent does.
            loop.add_reader(besides.parent, ended.set)
        started(stop)
        await ended.wait()
    finally:
        if besides.parent is not None:
            loop.remove_reader(besides.parent)
        server.stop()
        watched.stop()
        lane.close()
        service.stop()
        # A client that does not read its answer does not keep the process alive.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await server.close_all_connections()
                await watched.close_all_connections()
        await lane.wait_closed(_DRAIN_S)
