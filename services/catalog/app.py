"""The catalogue over HTTP: what there is, and the way to its pixels.

`POST .../view` is the one door to a slide: it checks the right once and answers with
the geometry and a tile address that is a capability: sealed, expiring, the same all
day, so that the tile service needs no database and the browser's cache helps.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from theatrum.catalog.tables import Image, Result

from hub import pages, problems
from hub.home import Home
from hub.settings import Settings
from hub.signin import Asker, SignIn, Visitor
from services.catalog import cases, inbox, store, thumbnails
from services.catalog.errors import STATUS
from tile_server.address import tiles_url
from tile_server.probing import Prober
from tile_server.tokens import Capability, decode_key, expiry, seal

_HERE = Path(__file__).parent
_templates = Jinja2Templates(directory=_HERE / "templates")


@dataclass(frozen=True)
class Service:
    """What the routes share: one value, made at the start."""

    engine: Engine
    settings: Settings
    tile_key: bytes
    prober: Prober

    @property
    def prefix(self) -> str:
        return f"{self.settings.base_url}services/catalog/"

    @property
    def tiles_base(self) -> str:
        return f"{self.settings.base_url}services/tiles/"

    @property
    def cases(self) -> Path:
        return Home(self.settings.home).images / "cases"

    @property
    def cache(self) -> Path:
        return Home(self.settings.home).cache / "thumbnails"


def make_app(settings: Settings, tile_key: str) -> FastAPI:
    """The catalogue's application; `tile_key` is base64url text."""
    service = Service(
        engine=store.open_store(Home(settings.home)),
        settings=settings,
        tile_key=decode_key(tile_key),
        prober=store.open_prober(Home(settings.home)),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with (
            service.prober,
            inbox.watched(service.engine, Home(settings.home), service.prober),
        ):
            yield

    app = FastAPI(
        title="Theatrum catalogue",
        version="1",
        openapi_url=f"{service.prefix}api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    pages.install_headers(app)
    problems.install(app, STATUS)
    SignIn().install(app)
    app.mount(f"{service.prefix}static", StaticFiles(directory=_HERE / "static"))
    app.include_router(api, prefix=f"{service.prefix}api/v1/images")
    app.include_router(front, prefix=service.prefix.rstrip("/"))
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]


def _session(service: Here) -> Iterator[Session]:
    with Session(service.engine) as session:
        yield session


Database = Annotated[Session, Depends(_session)]

api = APIRouter()
front = APIRouter(include_in_schema=False)


@api.get("")
def list_images(
    service: Here,
    database: Database,
    asker: Asker,
    collection: Annotated[str | None, Query(max_length=64)] = None,
    name: Annotated[str | None, Query(max_length=128)] = None,
) -> dict[str, list[dict[str, Any]]]:
    """The images that the asker may see."""
    found = store.visible(database, asker, collection=collection)
    chosen = [image for image in found if name is None or image.name == name]
    return {"images": [_summary(service, image) for image in chosen]}


@api.post("/cases", status_code=201)
async def add_case(
    request: Request,
    service: Here,
    database: Database,
    asker: Asker,
    collection: Annotated[str, Query(max_length=64)],
    name: Annotated[str, Query(max_length=48)],
    shared: bool = False,
) -> dict[str, Any]:
    """Add a de-identified case, a zip, to a collection of a course that one teaches."""
    target = await run_in_threadpool(cases.collection_for, database, asker, collection)
    service.cases.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=service.cases, prefix=".coming-") as folder:
        package = Path(folder, "case.zip")
        await cases.received(request.stream(), package)
        image = await run_in_threadpool(
            cases.add_case,
            database,
            target,
            package,
            cases.Wanted(collection, name, shared),
            cases=service.cases,
            prober=service.prober,
        )
    return _summary(service, image)


@api.get("/{image_id}/structures")
def get_structures(database: Database, asker: Asker, image_id: str) -> Response:
    """The RT Structure Set of a teaching case, for whom it is meant."""
    image = store.find(database, asker, image_id)
    path = cases.structures_of(asker, image)
    return Response(
        path.read_bytes(),
        media_type="application/dicom",
        headers={"Cache-Control": "no-store"},
    )


@api.get("/{image_id}/results")
def list_results(
    database: Database, asker: Asker, image_id: str
) -> dict[str, list[dict[str, Any]]]:
    """What analyses found on an image, the newest first."""
    image = store.find(database, asker, image_id)
    return {"results": [_result(one) for one in store.results_of(database, image)]}


@api.get("/{image_id}")
def get_image(
    service: Here, database: Database, asker: Asker, image_id: str
) -> dict[str, Any]:
    """What is known of an image."""
    image = store.find(database, asker, image_id)
    store.refresh(database, image, prober=service.prober)
    return _geometry(image) | _summary(service, image)


@api.get("/{image_id}/thumbnail")
def get_thumbnail(
    service: Here,
    database: Database,
    asker: Asker,
    image_id: str,
    size: Annotated[int, Query(ge=16, le=1024)] = 256,
) -> Response:
    """A JPEG of the whole image, `size` pixels at its longer side."""
    image = store.find(database, asker, image_id)
    store.refresh(database, image, prober=service.prober)
    jpeg = thumbnails.thumbnail(
        service.cache,
        service.prober,
        Path(image.path),
        (image.id, image.version),
        size,
    )
    return Response(
        jpeg,
        media_type="image/jpeg",
        headers={"Cache-Control": "private, max-age=3600"},
    )


@api.post("/{image_id}/view")
def view_image(
    service: Here, database: Database, asker: Asker, image_id: str
) -> dict[str, Any]:
    """The way to an image's pixels: its geometry and a sealed tile address."""
    image = store.find(database, asker, image_id)
    store.refresh(database, image, prober=service.prober)
    expires = expiry(time.time(), service.settings.tile_life_s)
    capability = Capability(
        path=image.path,
        version=image.version,
        label=image.project.shows_label,
        expires=expires,
    )
    token = seal(service.tile_key, capability)
    return (
        _geometry(image)
        | _summary(service, image)
        | {
            "tiles": tiles_url(service.tiles_base, token),
            "expires": datetime.fromtimestamp(expires, UTC).isoformat(),
        }
    )


@front.get("/")
def front_page(
    request: Request, service: Here, database: Database, visitor: Visitor
) -> Response:
    """The images that the visitor may see, to look at."""
    images = [_summary(service, image) for image in store.visible(database, visitor)]
    return _templates.TemplateResponse(
        request,
        "images.html",
        {
            "images": images,
            "visitor": visitor,
            "prefix": service.prefix,
            "base_url": service.settings.base_url,
        },
    )


@front.get("/health")
def health() -> dict[str, str]:
    """That the service is up."""
    return {"status": "ok"}


def _geometry(image: Image) -> dict[str, Any]:
    """What the view says of an image's pixels; the label only where it is granted."""
    associated = [
        name
        for name in image.geometry.get("associated", [])
        # A macro can show the label.
        if name not in {"label", "macro"} or image.project.shows_label
    ]
    return image.geometry | {"associated": associated}


def _result(result: Result) -> dict[str, Any]:
    """A result with what it came from; marks are GeoJSON in level-0 pixels."""
    return {
        "run": result.run,
        "title": result.title,
        "app": result.app,
        "node": {
            "name": result.node,
            "version": result.node_version,
            "digest": result.node_digest,
        },
        "numbers": result.numbers,
        "marks": result.marks,
        "created": result.created.isoformat(),
    }


def _summary(service: Service, image: Image) -> dict[str, Any]:
    """What a list says of an image."""
    geometry = image.geometry
    return {
        "id": image.id,
        "name": image.name,
        "collection": image.project.name,
        "title": image.title,
        # Of what has not been looked at yet, what its registration says.
        "width": geometry.get("width", image.n_x or 0),
        "height": geometry.get("height", image.n_y or 0),
        "mpp_x": geometry.get("mpp_x"),
        "mpp_y": geometry.get("mpp_y"),
        "version": image.version,
        "thumbnail": f"{service.prefix}api/v1/images/{image.id}/thumbnail",
    }
