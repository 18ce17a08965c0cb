"""The interface in brief: each route with its scope and the statuses that it tells of.

    python -m tests.services.catalog.routes

writes `routes.txt` anew, from the OpenAPI document of a running service. The file is
kept, so that a route that came, went, or asks for another scope is seen in a change.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIWebSocketRoute

from services.catalog.api import live
from services.catalog.api.documents import PROBLEMS
from services.catalog.api.rights import READ
from tests.services.catalog.running import PREFIX, catalogue

FILE = Path(__file__).with_name("routes.txt")
RENEW = "python -m tests.services.catalog.routes"


def brief(app: FastAPI) -> str:
    """The interface of an application, a line for each route."""
    usual = {str(status) for status in PROBLEMS}
    lines = [
        "# Method, address below the interface's prefix, scope, statuses. Every route",
        f"# answers {' '.join(sorted(usual))}, too, as a problem document.",
        f"# Renewed by: {RENEW}",
        "",
    ]
    routes = [
        (path.removeprefix(f"{PREFIX}api/v1"), method.upper(), route)
        for path, methods in app.openapi()["paths"].items()
        for method, route in methods.items()
    ]
    for path, method, route in sorted(routes, key=lambda one: one[:2]):
        scopes = [one for wanted in route.get("security", ()) for one in wanted["hub"]]
        own = " ".join(sorted(route["responses"].keys() - usual))
        lines.append(f"{method:6} {path:44} {' '.join(scopes) or '-':14} {own}")
    lines += [f"{'WS':6} {path:44} {READ:14} 101" for path in _sockets()]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _sockets() -> list[str]:
    """The addresses of WebSockets, of which OpenAPI does not tell."""
    routes = live.router.routes
    return [one.path for one in routes if isinstance(one, APIWebSocketRoute)]


def main() -> None:
    """Write the file anew."""
    with tempfile.TemporaryDirectory() as folder, catalogue(Path(folder), {}) as site:
        FILE.write_text(brief(site.app), "utf-8")


if __name__ == "__main__":
    main()
