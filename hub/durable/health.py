"""Live, ready and metrics of a process, on a port of their own.

/live      200 while the process answers at all
/ready     200 where it can work; else 503 with the reason
/metrics   for Prometheus
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

log = logging.getLogger("theatrum.durable")

Ready = Callable[[], str | None]
"""Why a process cannot work now; None where it can."""


@contextmanager
def serving(
    bind: str, ports: Sequence[int], ready: Ready, figures: Collector
) -> Iterator[None]:
    """Answer on the first free one of `ports` meanwhile; without any, not at all."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    server = _bound(bind, ports, _handler(ready, registry))
    if server is None:
        yield
        return
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="health")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def ports_of(first: int, *, worker: bool) -> Sequence[int]:
    """The web server's port, or those after it, of which each worker takes one."""
    if not first:
        return ()
    return range(first + 1, first + 65) if worker else (first,)


def _bound(
    bind: str, ports: Sequence[int], handler: type[BaseHTTPRequestHandler]
) -> ThreadingHTTPServer | None:
    for port in ports:
        try:
            server = ThreadingHTTPServer((bind, port), handler)
        except OSError as err:
            if err.errno != errno.EADDRINUSE or port == ports[-1]:
                raise
            continue
        log.info("health and metrics are on port %d", port)
        return server
    return None


def _handler(ready: Ready, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = self._answer()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def _answer(self) -> tuple[int, str, bytes]:
            if self.path == "/live":
                return 200, "text/plain", b"live\n"
            if self.path == "/ready":
                reason = ready()
                if reason is None:
                    return 200, "text/plain", b"ready\n"
                return 503, "text/plain", f"{reason}\n".encode()
            if self.path == "/metrics":
                return 200, "text/plain; version=0.0.4", generate_latest(registry)
            return 404, "text/plain", b"live, ready and metrics are here\n"

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler
