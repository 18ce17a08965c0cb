"""A catalogue as the notebook library knows it, over real sockets, without a hub.

It stands for the hub's proxy too: what lies under `/services/tiles/` is passed on to a
real tile service. The tokens it knows, the images, and how long its capabilities live
are values that a test sets.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse

from tests.browser import free_port
from tile_server import address, tokens, versions
from tile_server.readers import open_slide
from tile_server.view import describe

TOKEN = "a kernel's token"
LIFE_S = 3600


@dataclass
class Catalog:
    """What the catalogue holds, and where it is."""

    port: int
    key: bytes
    slides: dict[str, Path] = field(default_factory=dict)
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By image id, as the route answers them."""
    lives_s: list[int] = field(default_factory=list)
    """Lives of the next capabilities; an hour when the list is empty."""
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub/services/catalog"

    def add(self, collection: str, path: Path) -> str:
        image_id = f"img-{len(self.slides)}"
        self.slides[f"{image_id}/{collection}/{path.stem}"] = path
        return image_id


@contextlib.contextmanager
def running_catalog() -> Iterator[Catalog]:
    """Run the catalogue and its tile service."""
    key, tiles_port = tokens.new_key(), free_port()
    tiles = subprocess.Popen(
        [sys.executable, "-m", "tile_server", "hub"],
        env=os.environ
        | {
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{tiles_port}",
            "JUPYTERHUB_SERVICE_PREFIX": "/hub/services/tiles/",
            "THEATRUM_TILE_KEY": base64.urlsafe_b64encode(key).decode(),
        },
    )
    catalog = Catalog(free_port(), key)
    app = _application(catalog, tiles_port)
    server = uvicorn.Server(
        uvicorn.Config(app, port=catalog.port, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for port in (tiles_port, catalog.port):
            _wait_for(port)
        yield catalog
    finally:
        server.should_exit = True
        thread.join()
        tiles.terminate()
        tiles.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"nothing listens on {port}")


def _problem(status: int, title: str, detail: str) -> Response:
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status,
        media_type="application/problem+json",
    )


def _application(catalog: Catalog, tiles_port: int) -> FastAPI:
    app = FastAPI()
    api = "/hub/services/catalog/api/v1/images"

    @app.middleware("http")
    async def sign_in(request: Request, go_on: Any) -> Response:
        catalog.asked.append(f"{request.method} {request.url.path}")
        token = request.headers.get("authorization")
        if request.url.path.startswith(api) and token != f"token {TOKEN}":
            return _problem(403, "Sign in.", "The catalogue knows no such token.")
        response: Response = await go_on(request)
        return response

    @app.get(api)
    def images(project__name: str = "", name: str = "") -> dict[str, Any]:
        found = [_summary(key, path) for key, path in catalog.slides.items()]
        return {
            "items": [
                image
                for image in found
                if project__name in ("", image["collection"])
                and name in ("", image["name"])
            ],
            "next": None,
        }

    @app.get(api + "/{image_id}/thumbnail")
    def thumbnail(image_id: str) -> Response:
        token = _seal(catalog, _slide(catalog, image_id)[1], LIFE_S)[0]
        url = f"http://127.0.0.1:{tiles_port}/hub/services/tiles/s/{token}/thumbnail"
        return Response(
            httpx.get(url, trust_env=False).content, media_type="image/jpeg"
        )

    @app.get(api + "/{image_id}/results")
    def results(image_id: str) -> dict[str, Any]:
        return {"results": catalog.results.get(image_id, [])}

    @app.post(api + "/{image_id}/view")
    def view(image_id: str) -> Any:
        try:
            key, path = _slide(catalog, image_id)
        except KeyError:
            return _problem(404, "Choose another image.", "There is no such image.")
        if not path.exists():
            return _problem(410, "Ask your teacher.", "The slide's file is gone.")
        life_s = catalog.lives_s.pop(0) if catalog.lives_s else LIFE_S
        token, expires = _seal(catalog, path, life_s)
        with open_slide(path) as reader:
            described = describe(reader)
        return {
            **described,
            **_summary(key, path),
            "tiles": address.tiles_url("/hub/services/tiles/", token),
            # A clock that is late: the tile service ends it before this time.
            "expires": datetime.fromtimestamp(expires + 60, UTC).isoformat(),
        }

    @app.get("/hub/services/tiles/{rest:path}")
    def tiles(rest: str, request: Request, accept: str = Header("*/*")) -> Response:
        answer = httpx.get(
            f"http://127.0.0.1:{tiles_port}/hub/services/tiles/{rest}",
            params=dict(request.query_params),
            headers={"accept": accept},
            trust_env=False,
        )
        return Response(
            answer.content,
            answer.status_code,
            media_type=answer.headers.get("content-type"),
        )

    return app


def _slide(catalog: Catalog, image_id: str) -> tuple[str, Path]:
    found = {key.split("/")[0]: (key, path) for key, path in catalog.slides.items()}
    return found[image_id]


def _seal(catalog: Catalog, path: Path, life_s: int) -> tuple[str, int]:
    expires = int(time.time()) + life_s
    version = versions.file_version(path)
    capability = tokens.Capability(str(path), version, False, expires)
    return tokens.seal(catalog.key, capability), expires


def _summary(key: str, path: Path) -> dict[str, Any]:
    image_id, collection, name = key.split("/")
    with open_slide(path) as reader:
        described = describe(reader)
    return {
        "id": image_id,
        "name": name,
        "collection": collection,
        "title": f"Slide {name}",
        "version": versions.file_version(path),
        "thumbnail": f"/hub/services/catalog/api/v1/images/{image_id}/thumbnail",
    } | {field: described[field] for field in ("width", "height", "mpp_x", "mpp_y")}
