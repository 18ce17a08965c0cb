"""What the interface's document (OpenAPI 3.1) says of every route's refusals."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from hub.problems import MEDIA_TYPE


class Problem(BaseModel):
    """A refusal as a problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


_SAID = {
    400: "The request is malformed",
    403: "Not signed in, or the role or the token does not reach so far",
    404: "Absent, or not yours to see: nothing tells which",
    409: "What is there already is in the way",
    410: "The file behind it is gone",
    412: "It changed meanwhile",
    413: "Larger than is taken here, or than was announced",
    422: "Something in the request does not fit; the detail says what",
    429: "Too many requests; Retry-After says when to try again",
    503: "The hub does not answer",
}
PROBLEMS: dict[int | str, dict[str, Any]] = dict(
    MappingProxyType(
        {
            status: {
                "description": said,
                "content": {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                },
            }
            for status, said in _SAID.items()
        }
    )
)


def tell_of_tags(app: FastAPI) -> None:
    """Say of each route that gives JSON that it gives none where one has it already.

    All of these answer by `tagged`, which compares `If-None-Match`.
    """
    made = app.openapi

    # Any: the document
    def whole() -> dict[str, Any]:
        document = made()
        for methods in document["paths"].values():
            answers = methods.get("get", {}).get("responses", {})
            if "application/json" in answers.get("200", {}).get("content", {}):
                answers.setdefault("304", {"description": "As it was"})
        return document

    app.openapi = whole  # type: ignore[method-assign]
