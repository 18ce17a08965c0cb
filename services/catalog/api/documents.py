"""What the interface's document (OpenAPI 3.1) says of every route's refusals."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

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
