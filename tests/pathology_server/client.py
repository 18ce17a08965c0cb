"""A plain client of the callbacks, for the tests of the server itself."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx

from .server import PathologyServer

APP = "acme-mitosis"
VERSION_HEADER = "X-Sectra-ApiVersion"


class Client:
    """Speaks to a server as one application, with a token and a declared version."""

    def __init__(
        self,
        server: PathologyServer,
        *,
        application_id: str = APP,
        declared: str = "1.10",
        token: str | None = None,
    ) -> None:
        if not server.knows(application_id):
            server.add_application(application_id, {"context": {"profile": "default"}})
        self.server = server
        self.token = token or server.tokens.issue(application_id)
        self.http = httpx.Client(
            base_url=server.url + "/",
            headers={
                "Authorization": f"Bearer {self.token}",
                VERSION_HEADER: declared,
            },
            timeout=10,
        )
        self.results = f"applications/{application_id}/results"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, body: Any) -> httpx.Response:
        return self.http.post(self.results, json=body)

    def put(self, body: Any, result_id: int | None = None) -> httpx.Response:
        named = body["id"] if result_id is None else result_id
        return self.http.put(f"{self.results}/{named}", json=body)


def outline(slide_id: str = "sl-0001", **fields: Any) -> dict[str, Any]:
    """A new result: the outline of a landscape slide, and a text."""
    corners = [(0, 0), (1, 0), (1, 0.7), (0, 0.7)]
    item = {
        "style": {"strokeStyle": "#FFA500", "fillStyle": None, "size": None},
        "polygons": [{"points": [{"x": x, "y": y} for x, y in corners]}],
        "polylines": [],
        "labels": [{"location": {"x": 0.5, "y": 0}, "label": "analysis queued"}],
    }
    return {
        "slideId": slide_id,
        "displayResult": "analysis queued",
        "displayProperties": {"Progress": "0 %"},
        "applicationVersion": "0.3.0",
        "attachments": [],
        "data": {
            "context": {"jobId": "job-1"},
            "result": {"type": "primitive", "content": [item]},
        },
        **fields,
    }


def gallery(
    slide_id: str = "sl-0001", tags: tuple[int, ...] = (0, 1)
) -> dict[str, Any]:
    """A new gallery with one patch for each tag, two categories and one button."""
    made = outline(slide_id)
    made["data"]["result"] = {
        "type": "patchCollection",
        "content": {
            "description": "Move wrong candidates.",
            "polygons": [],
            "patches": [
                {"tag": tag, "position": {"x": 0.2, "y": 0.3}, "sortKeyValue": 0.5}
                for tag in tags
            ],
            "tags": ["Mitosis", "Not mitosis"],
            "patchSize": 64,
            "magnification": 40,
            "statuses": {"allowVerify": {"value": True, "message": None}},
            "actions": [
                {"id": "recount", "state": 0, "name": "Recount", "tooltip": ""}
            ],
        },
    }
    return made


def stored(client: Client, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = client.post(outline() if body is None else body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told
