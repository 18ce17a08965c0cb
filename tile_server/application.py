"""The Tornado application: the routes of one tile service, and its log lines."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from tornado import web
from tornado.routing import URLSpec

from tile_server.address import normal_base
from tile_server.handlers import (
    Handler,
    HealthHandler,
    MetricsHandler,
    NotFound,
    ReadyHandler,
    routes,
)
from tile_server.plane_handlers import plane_routes
from tile_server.protocols import protocol_routes
from tile_server.service import TileService

log = logging.getLogger(__name__)


def make_application(
    service: TileService, more_routes: Sequence[URLSpec] = ()
) -> web.Application:
    """The application of `service`, which the caller stops."""
    base = normal_base(service.settings.base)
    return web.Application(
        [*more_routes, *routes(base), *plane_routes(base), *protocol_routes(base)],
        default_handler_class=NotFound,
        log_function=_log_request,
        service=service,
    )


def watching_application(service: TileService) -> web.Application:
    """What is for those who run `service`: metrics, liveness and readiness.

    It tells how much the service is used, so it has a listener of its own.
    """
    return web.Application(
        [
            web.url("/metrics", MetricsHandler),
            web.url("/live", HealthHandler),
            web.url("/ready", ReadyHandler),
        ],
        default_handler_class=NotFound,
        log_function=_log_request,
        service=service,
    )


def _log_request(handler: web.RequestHandler) -> None:
    """Count the request; one line of it at debug level, or where it failed.

    An address holds a token, so none is shown.
    """
    if isinstance(handler, Handler):
        status, spent_s = handler.get_status(), handler.request.request_time()
        if status >= 400:
            handler.service.tally.problem(status)
        else:
            handler.service.tally.count(handler.kind, spent_s, handler.sent_bytes)
    if not log.isEnabledFor(logging.DEBUG) and handler.get_status() != 500:
        return
    token = handler.path_args[0] if handler.path_args else ""
    who = hashlib.blake2b(token.encode(), digest_size=4).hexdigest() if token else "-"
    level = logging.ERROR if handler.get_status() == 500 else logging.DEBUG
    log.log(
        level,
        "%s %s token %s: %d in %.1f ms",
        handler.request.method,
        type(handler).__name__,
        who,
        handler.get_status(),
        1000 * handler.request.request_time(),
    )
