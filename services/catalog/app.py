"""The catalogue over HTTP: what there is, the way to its pixels, and its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from theatrum.catalog.database import open_database

from hub import pages, problems
from hub.home import Home
from hub.settings import Settings
from hub.signin import SignIn
from services.catalog import inbox as handed_in
from services.catalog import store
from services.catalog.api import (
    about,
    bodies,
    bundles,
    documents,
    engine,
    exports,
    images,
    inbox,
    keeping,
    leases,
    live,
    me,
    pixels,
    projects,
    queries,
    rows,
    runs,
    search,
    tables,
    uploads,
    versions,
    work,
)
from services.catalog.api.here import Service
from services.catalog.errors import STATUS, TooManyRequestsError
from services.catalog.export_jobs import Exports
from services.catalog.pages import batches, flows, front, image, reference, rules, run
from services.catalog.pages import inbox as inbox_pages
from tile_server.tokens import decode_key


def make_app(settings: Settings, tile_key: str) -> FastAPI:
    """The catalogue's application; `tile_key` is base64url text."""
    home = Home(settings.home)
    service = Service(
        database=open_database(home, url=settings.database_url),
        settings=settings,
        tile_key=decode_key(tile_key),
        prober=store.open_prober(home),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with (
            service.prober,
            service.apart,
            handed_in.watched(service.database.engine, home, service.prober),
        ):
            app.state.exports.start()
            yield
            app.state.exports.stop()
        service.database.close()

    app = FastAPI(
        title="Theatrum catalogue",
        version="1",
        openapi_url=f"{service.api}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=documents.PROBLEMS,
    )
    app.state.service = service
    app.state.feed = live.Feed(service.database)
    app.state.exports = Exports(
        service.database, home.cache / "exports", service.apart.scene
    )
    pages.install_headers(app)
    problems.install(app, STATUS)
    _tell_when_to_try_again(app)
    documents.tell_of_tags(app)
    SignIn().install(app)
    api = APIRouter(
        prefix=service.api, dependencies=[Depends(bodies.only_finite_numbers)]
    )
    for router in (
        exports.router,
        queries.router,
        images.router,
        keeping.router,
        pixels.router,
        projects.router,
        search.router,
        me.router,
        live.router,
        work.router,
        runs.router,
        leases.router,
        versions.router,
        tables.router,
        engine.router,
        about.router,
        bundles.router,
        uploads.router,
        inbox.router,
        rows.router(),
    ):
        api.include_router(router)
    app.include_router(api)
    for router in (
        front.router,
        image.router,
        inbox_pages.router,
        rules.router,
        batches.router,
        flows.router,
        run.router,
        reference.router,
    ):
        app.include_router(router, prefix=service.prefix.rstrip("/"))
    return app


def _tell_when_to_try_again(app: FastAPI) -> None:
    status, title = STATUS[TooManyRequestsError]

    @app.exception_handler(TooManyRequestsError)
    async def later(_request: Request, err: TooManyRequestsError) -> Response:
        answer = problems.problem(status, title, str(err))
        answer.headers["Retry-After"] = str(max(1, round(err.after_s)))
        return answer
