"""The web application: the API, the live feed, health, and the pages where they are.

    {prefix}health            whether it works, without sign-in, telling nothing
    {prefix}api/series...     lists, details, actions (api_series)
    {prefix}api/uploads...    zip files that people upload (api_uploads)
    {prefix}api/...           templates, rules, nodes, settings, audit (api_setup)

Who asks is told by `app.state.sign_in`: the hub's, or the local one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from hub import pages, problems
from hub.signin import HubUnreachableError, NotSignedInError
from services.dicom_client import api_series, api_setup, api_uploads
from services.dicom_client import pages as own_pages
from services.dicom_client.errors import STATUS
from services.dicom_client.feed import Feed
from services.dicom_client.measurements import Measurements
from services.dicom_client.opening import Service
from services.dicom_client.rules import BadRule
from services.dicom_client.settings import BadSettings
from services.dicom_client.templates import BadTemplate
from services.dicom_client.transitions import Lost
from services.dicom_client.uploads import Uploads

TABLE: dict[type[Exception], tuple[int, str]] = {
    **STATUS,
    BadTemplate: (422, "Change the template as the detail says."),
    BadRule: (422, "Change the rule as the detail says."),
    BadSettings: (422, "Change the setting as the detail says."),
    Lost: (409, "Look at the series again: it changed meanwhile."),
    NotSignedInError: (401, "Sign in, or send a token."),
    HubUnreachableError: (503, "Try again: the hub does not answer."),
}


def make_app(service: Service, prefix: str) -> FastAPI:
    """The service's application; `prefix` begins and ends with a slash."""
    uploads, measurements = Uploads(service), Measurements(service)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        yield
        uploads.close()
        measurements.close()

    app = FastAPI(
        title="Theatrum DICOM client",
        lifespan=life,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    feed = Feed(service, uploads)
    app.state.service = service
    app.state.feed = feed
    app.state.uploads = uploads
    app.state.measurements = measurements
    app.state.prefix = prefix
    app.state.ready = lambda: _trouble(service)
    problems.install(app, TABLE)
    pages.install_headers(app)
    app.include_router(api_series.routes(service, feed), prefix=f"{prefix}api")
    app.include_router(api_uploads.routes(uploads), prefix=f"{prefix}api")
    app.include_router(api_setup.routes(service), prefix=f"{prefix}api")

    own_pages.install(app, service, prefix, TABLE)

    @app.get(f"{prefix}health")
    def health() -> JSONResponse:
        """Whether the service works; no figure and no name."""
        trouble = _trouble(service)
        return JSONResponse(
            {"status": "unhealthy" if trouble else "healthy"}, 503 if trouble else 200
        )

    return app


def _trouble(service: Service) -> str | None:
    try:
        service.database.ping()
    except Exception as err:
        # Whatever a driver raises: the question is only whether it works.
        return f"the database does not answer ({type(err).__name__})"
    return None
