"""JSON with a tag of what it says (RFC 9110, 8.8.3): asked again, it need not be sent.

The tag is a digest of the answer, so that it holds over restarts and between processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import Request, Response
from theatrum.catalog.tables import finite

from services.catalog.errors import OutdatedError

UNCHANGED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "As it was"}}
"""What a route that compares tags says in the interface's document."""

_TIGHT: Final = (",", ":")


# Any here: JSON, and moments in it
def tagged(request: Request, said: Any, *, status: int = 200) -> Response:
    """An answer with its tag, or 304 where the asker has it already."""
    body = encoded(said)
    tag = tag_of(said)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.method == "GET" and _names(request, "If-None-Match", tag):
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, "application/json")


def tag_of(said: Any) -> str:
    """The tag of what is said."""
    return f'"{hashlib.sha256(encoded(said)).hexdigest()[:24]}"'


def tag_of_pixels(row: Mapping[str, Any], *more: Any) -> str:
    """The tag of what is made of an image's file, in a way that `more` tells."""
    try:
        status = Path(row["path"]).stat()
        place = [status.st_mtime_ns, status.st_size]
    except OSError:
        place = []  # whoever reads it says so
    return tag_of([row["id"], row["scene"], row["checksum"], place, *more])


def unchanged(request: Request, headers: Mapping[str, str]) -> Response | None:
    """The answer 304 where the asker has what these headers are of; else None."""
    if _names(request, "If-None-Match", headers["ETag"]):
        return Response(status_code=304, headers=dict(headers))
    return None


def refuse_outdated(request: Request, row: Any) -> None:
    """Raise OutdatedError where the asker changes a row as it no longer is.

    Who sends no `If-Match` changes it as it is.
    """
    if "If-Match" in request.headers and not _names(request, "If-Match", tag_of(row)):
        raise OutdatedError("somebody changed this meanwhile: look at it again first")


def encoded(said: Any) -> bytes:
    """What is said as JSON; moments in ISO 8601, null for what is no finite number.

    No row is written with such a number, but one may be computed, or older.
    """
    try:
        text = json.dumps(said, default=_plain, separators=_TIGHT, allow_nan=False)
    except ValueError:
        text = json.dumps(finite(said), default=_plain, separators=_TIGHT)
    return text.encode()


def _plain(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _names(request: Request, header: str, tag: str) -> bool:
    said = [
        one.strip().removeprefix("W/")
        for one in request.headers.get(header, "").split(",")
    ]
    return tag in said or "*" in said
