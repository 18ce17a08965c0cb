"""The real catalogue on a socket, beside a hub's double that knows some people.

The double answers what the service asks of a hub: who a token belongs to. A token is a
person's name, and `name/scope,scope` is a token of theirs that carries only these.
Whoever is called `root` administers the hub.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from hub.home import Home
from hub.scopes import CATALOG, named
from hub.settings import load
from services.catalog.app import make_app
from tests.browser import free_port
from tile_server import tokens

PREFIX = "/services/catalog/"
ACCESS = "access:services!service=catalog"


@dataclass(frozen=True)
class Site:
    """A running catalogue."""

    url: str
    app: FastAPI
    home: Home

    def client(self, person: str | None) -> httpx.Client:
        """A client that asks the API in somebody's name; close it."""
        headers = {"Authorization": f"token {person}"} if person else {}
        return httpx.Client(base_url=f"{self.url}/api/v1/", headers=headers, timeout=30)

    def cookie(self, person: str) -> dict[str, str]:
        """The session cookie of somebody who signed in, as Playwright takes it."""
        sign_in = self.app.state.sign_in
        return {
            "name": sign_in._cookie,
            "value": sign_in._box.encrypt(person.encode()).decode(),
            "url": f"{self.url}/",
        }


def until(look: Callable[[], dict[str, Any]], state: str) -> dict[str, Any]:
    """What is seen once its state is that one; fails where it never is."""
    deadline = time.monotonic() + 60
    while True:
        seen = look()
        if seen["state"] == state or time.monotonic() > deadline:
            assert seen["state"] == state, seen
            return seen
        threading.Event().wait(0.1)


def hub_of(people: Mapping[str, Sequence[str] | None]) -> type[BaseHTTPRequestHandler]:
    """A hub's double for people and their groups; a service has none, not even `()`."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers["Authorization"].removeprefix("token ")
            name, narrowed, scopes = token.partition("/")
            known = self.path.endswith("/hub/api/user") and name in people
            carried = scopes.split(",") if narrowed else list(CATALOG)
            model = {
                "name": name,
                "kind": "service" if people.get(name, ()) is None else "user",
                "groups": list(people.get(name) or ()),
                "scopes": [
                    ACCESS,
                    *named(*filter(None, carried)),
                    # The hub's own scope, which a token that is not narrowed carries.
                    *(["admin:users"] if name == "root" and not narrowed else []),
                ],
            }
            content = json.dumps(model).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Hub


@contextmanager
def catalogue(
    folder: Path, people: Mapping[str, Sequence[str] | None], **settings: str
) -> Iterator[Site]:
    """Run the catalogue of a home in `folder`; `settings` are THEATRUM_* by name."""
    home = Home(folder)
    home.prepare()
    hub = ThreadingHTTPServer(("127.0.0.1", 0), hub_of(people))
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub.server_port}/hub/api",
            "JUPYTERHUB_API_TOKEN": "the service's own",
            "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
            "JUPYTERHUB_SERVICE_NAME": "catalog",
            "JUPYTERHUB_CLIENT_ID": "service-catalog",
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([ACCESS]),
            "JUPYTERHUB_BASE_URL": "/",
        }.items():
            patch.setenv(name, value)
        key = base64.urlsafe_b64encode(tokens.new_key()).decode()
        app = make_app(load({"THEATRUM_HOME": str(folder), **settings}), key)
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        try:
            yield Site(f"http://127.0.0.1:{port}{PREFIX.rstrip('/')}", app, home)
        finally:
            server.should_exit = True
            thread.join()
            hub.shutdown()
