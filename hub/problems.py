"""Errors as problem details (RFC 9457) for the FastAPI services.

A service has one table from its error classes to HTTP status; what is raised
anywhere below a route becomes a document with `title` (what to do) and `detail`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


def problem(status: int, title: str, detail: str = "") -> JSONResponse:
    """A problem document as an answer; never kept by a cache."""
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status,
        {"Cache-Control": "no-store"},
        MEDIA_TYPE,
    )


def install(app: FastAPI, table: Mapping[type[Exception], tuple[int, str]]) -> None:
    """Answer the errors of `table` (class to status and title) as problems."""

    for error, (status, title) in table.items():

        async def answer(
            _request: Request, err: Exception, status: int = status, title: str = title
        ) -> JSONResponse:
            return problem(status, title, str(err))

        app.add_exception_handler(error, answer)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, err: HTTPException) -> JSONResponse:
        return problem(err.status_code, HTTPStatus(err.status_code).phrase, err.detail)

    @app.exception_handler(RequestValidationError)
    async def bad_request(
        _request: Request, err: RequestValidationError
    ) -> JSONResponse:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in err.errors()
        )
        return problem(422, "Change the request as the detail says.", faults)
