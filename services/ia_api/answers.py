"""How every answer of the web server looks: version headers, errors as documents.

Both headers stand on every answer, errors and unknown addresses included: they are put
on where the answer leaves, outside of all routing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ia_api.errors import (
    STATUS,
    Busy,
    Conflict,
    Gone,
    Transient,
)
from services.ia_api.transitions import Lost
from services.ia_api.versions import Version

log = logging.getLogger("theatrum.ia_api")

API_VERSION = "X-Sectra-ApiVersion"
SOFTWARE_VERSION = "X-Sectra-SoftwareVersion"

# What the person in the viewer can do about it, where the class says more than 502.
TABLE: Mapping[type[Exception], tuple[int, str]] = {
    **STATUS,
    Transient: (503, "Try again: the pathology server was not to be reached."),
    Conflict: (409, "Load the result anew: somebody else changed it."),
    Lost: (409, "Look again: the job has changed meanwhile."),
    Gone: (410, "The slide or the result is no longer there."),
}


def problem(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem document (RFC 9457) that also has the `error` of Sectra's examples."""
    return JSONResponse(
        {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": detail,
            "error": detail or title,
        },
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        "application/problem+json",
    )


def install(app: FastAPI) -> None:
    """Answer errors as problem documents."""
    for kind, (status, title) in TABLE.items():
        app.add_exception_handler(kind, _answering(status, title))

    for broken in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(broken, _database_is_away)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, err: HTTPException) -> JSONResponse:
        return problem(
            err.status_code,
            HTTPStatus(err.status_code).phrase,
            str(err.detail),
            err.headers,
        )

    @app.exception_handler(RequestValidationError)
    async def bad_request(
        _request: Request, _err: RequestValidationError
    ) -> JSONResponse:
        return problem(400, "Change the request.", "a part of the address is wrong")


async def _database_is_away(_request: Request, err: Exception) -> JSONResponse:
    log.error("the database does not answer", extra={"code": type(err).__name__})
    wait_s = str(round(Busy.retry_after_s))
    return problem(
        503,
        "Come again after the seconds that Retry-After names.",
        "the database of the service does not answer",
        {"Retry-After": wait_s},
    )


def _answering(
    status: int, title: str
) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def answer(_request: Request, err: Exception) -> JSONResponse:
        headers = {}
        if isinstance(err, Busy):
            headers["Retry-After"] = str(round(err.retry_after_s))
        return problem(status, title, str(err), headers)

    return answer


class VersionHeaders:
    """Puts both version headers on whatever leaves; an error becomes a plain 500."""

    def __init__(self, app: ASGIApp, default: Version, software_version: str) -> None:
        self._app = app
        self._default = str(default)
        self._software = software_version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                version = scope.get("state", {}).get("api_version", self._default)
                headers[API_VERSION] = str(version)
                headers[SOFTWARE_VERSION] = self._software
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception:
            # The boundary of the process: told without what the error says.
            log.exception("a request failed")
            if begun:
                raise
            answer = problem(500, "Tell the administrator.", "internal error")
            await answer(scope, receive, with_headers)
