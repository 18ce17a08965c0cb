"""The catalogue over HTTP: what there is, and the way to its pixels.

`POST .../view` is the one door to a slide: it checks the right once and answers with
the geometry and a tile address that is a capability: sealed, expiring, the same all
day, so that the tile service needs no database and the browser's cache helps.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from hub import pages, problems
from hub.home import Home
from hub.settings import Settings
from hub.signin import Person, SignIn, SignInNeededError
from services.catalog import store, thumbnails
from services.catalog.errors import STATUS
from services.catalog.models import Image
from tile_server.address import tiles_url
from tile_server.tokens import Capability, expiry, seal

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Service:
    """What the routes share: one value, made at the start."""

    engine: Engine
    settings: Settings
    tile_key: bytes

    @property
    def prefix(self) -> str:
        return f"{self.settings.base_url}services/catalog/"

    @property
    def tiles_base(self) -> str:
        return f"{self.settings.base_url}services/tiles/"

    @property
    def cache(self) -> Path:
        return Home(self.settings.home).cache / "thumbnails"


def make_app(settings: Settings, tile_key: str) -> FastAPI:
    """The catalogue's application; `tile_key` is base64url text."""
    service = Service(
        engine=store.open_store(Home(settings.home)),
        settings=settings,
        tile_key=urlsafe_b64decode(tile_key),
    )
    sign_in = SignIn()
    app = FastAPI(
        title="Theatrum catalogue",
        version="1",
        openapi_url=f"{service.prefix}api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    pages.install_headers(app)
    problems.install(app, STATUS)
    sign_in.install(app)
    app.mount(f"{service.prefix}static", StaticFiles(directory=_HERE / "static"))

    @app.exception_handler(SignInNeededError)
    async def begin(request: Request, _err: SignInNeededError) -> Response:
        return sign_in.begin(request)

    _add_routes(app, service, sign_in)
    return app


def _add_routes(app: FastAPI, service: Service, sign_in: SignIn) -> None:
    api = f"{service.prefix}api/v1/images"
    templates = Jinja2Templates(directory=_HERE / "templates")

    def session() -> Iterator[Session]:
        with Session(service.engine) as opened:
            yield opened

    Database = Annotated[Session, Depends(session)]  # noqa: N806 (a type)
    Asker = Annotated[Person, Depends(sign_in.api)]  # noqa: N806
    Visitor = Annotated[Person, Depends(sign_in.page)]  # noqa: N806

    @app.get(api)
    def list_images(
        database: Database,
        asker: Asker,
        collection: Annotated[str | None, Query(max_length=64)] = None,
        name: Annotated[str | None, Query(max_length=128)] = None,
    ) -> dict[str, list[dict[str, Any]]]:
        found = store.visible(database, asker, collection=collection)
        chosen = [image for image in found if name is None or image.name == name]
        return {"images": [_summary(service, image) for image in chosen]}

    @app.get(f"{api}/{{image_id}}")
    def get_image(database: Database, asker: Asker, image_id: str) -> dict[str, Any]:
        image = store.find(database, asker, image_id)
        store.refresh(database, image)
        return image.geometry | _summary(service, image)

    @app.get(f"{api}/{{image_id}}/thumbnail")
    def get_thumbnail(
        database: Database,
        asker: Asker,
        image_id: str,
        size: Annotated[int, Query(ge=16, le=1024)] = 256,
    ) -> Response:
        image = store.find(database, asker, image_id)
        store.refresh(database, image)
        jpeg = thumbnails.thumbnail(
            service.cache, Path(image.path), image.id, image.version, size
        )
        return Response(
            jpeg,
            media_type="image/jpeg",
            headers={"Cache-Control": "private, max-age=3600"},
        )

    @app.post(f"{api}/{{image_id}}/view")
    def view_image(database: Database, asker: Asker, image_id: str) -> dict[str, Any]:
        image = store.find(database, asker, image_id)
        store.refresh(database, image)
        expires = expiry(time.time(), service.settings.tile_life_s)
        token = seal(
            service.tile_key,
            Capability(
                path=image.path,
                version=image.version,
                label=image.collection.shows_label,
                expires=expires,
            ),
        )
        return (
            image.geometry
            | _summary(service, image)
            | {
                "tiles": tiles_url(service.tiles_base, token),
                "expires": datetime.fromtimestamp(expires, UTC).isoformat(),
            }
        )

    @app.get(service.prefix, include_in_schema=False)
    def front_page(request: Request, database: Database, visitor: Visitor) -> Response:
        images = [
            _summary(service, image) for image in store.visible(database, visitor)
        ]
        return templates.TemplateResponse(
            request,
            "images.html",
            {
                "images": images,
                "visitor": visitor,
                "prefix": service.prefix,
                "base_url": service.settings.base_url,
            },
        )

    @app.get(f"{service.prefix}health", include_in_schema=False)
    def health() -> dict[str, str]:
        return {"status": "ok"}


def _summary(service: Service, image: Image) -> dict[str, Any]:
    """What a list says of an image."""
    geometry = image.geometry
    return {
        "id": image.id,
        "name": image.name,
        "collection": image.collection.name,
        "title": image.title,
        "width": geometry["width"],
        "height": geometry["height"],
        "mpp_x": geometry["mpp_x"],
        "mpp_y": geometry["mpp_y"],
        "version": image.version,
        "thumbnail": f"{service.prefix}api/v1/images/{image.id}/thumbnail",
    }
