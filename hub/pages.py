"""What every page of a service has in common: its headers, and how it is served."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request, Response

# Nothing from another origin, no inline script, no frame of ours in others' pages.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def install_headers(app: FastAPI) -> None:
    """Give every answer the headers that all services share."""

    @app.middleware("http")
    async def headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began = perf_counter()
        answer = await call_next(request)
        answer.headers.setdefault("Cache-Control", "no-store")
        answer.headers["Content-Security-Policy"] = CONTENT_POLICY
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        spent_ms = (perf_counter() - began) * 1000
        answer.headers["Server-Timing"] = f"total;dur={spent_ms:.2f}"
        return answer


def serve(app: FastAPI) -> None:
    """Run a hub-managed service at the address that the hub gave it."""
    address = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    # httpx says every address at level info, and an address may hold a token.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        host=address.hostname or "127.0.0.1",
        port=address.port or 0,
        # An access log would hold the codes of the sign-in flow.
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
        proxy_headers=False,
    )
    # The hub stops its services by SIGINT; that is no fault to write a trace of.
    with suppress(KeyboardInterrupt):
        asyncio.run(uvicorn.Server(config).serve())
