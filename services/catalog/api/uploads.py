"""Images come in over HTTP: uploads that go on where they were cut off, addresses.

What is sent is written to the disk, synced, before it is answered, and never opened
here: the catalogue's worker takes it in through the ingest library (`intake.py`).
Somebody else's upload answers like one that is not there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Header, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from theatrum.catalog.errors import NotAllowed, NotFound
from theatrum.catalog.ingest.errors import BadUpload
from theatrum.catalog.ingest.fields import require_known
from theatrum.catalog.ingest.uploads import Status, Uploads
from theatrum.catalog.query.spec import Q, Spec

from hub import problems
from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Right, Writing
from services.catalog.api.tagged import tagged
from services.catalog.errors import SourceRefusedError, TooLargeError
from services.catalog.intake import Order, Orders, new_key, uploads_of

router = APIRouter(tags=["intake"])
Key = Annotated[str, InPath(max_length=64)]

BLOCK: Final = 8 << 20
"""Bytes that are synced to the disk at once: what is lost when the line is cut."""
MOST_OPEN: Final = 100
"""Uploads that one person may have begun and not ended."""
SENT: Final = frozenset({"upload", "bundle"})
"""Kinds of orders whose file is sent here."""
REMOTE: Final = frozenset(
    {"s3", "gs", "gcs", "az", "abfs", "http", "https"}
    | {"dicomweb+http", "dicomweb+https"}
)
# A list of addresses is a way to have the server ask whatever it can reach.
_LISTS: Final = re.compile(r"\.(tcia|s5cmd)$", re.IGNORECASE)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/offset+octet-stream": {
                "schema": {"type": "string", "format": "binary"}
            }
        },
    }
}


class NewUpload(BaseModel):
    """An upload as it is announced."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(max_length=64)
    name: str = Field(min_length=1, max_length=255, description="Of the file")
    size: int = Field(ge=1, le=1 << 50, description="Bytes")
    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$", description="Of the whole file")
    inbox: bool = Field(False, description="Let it wait for a review")
    bundle: bool = Field(
        False, description="It is a bundle of a catalogue, with rows and files"
    )
    deidentify: str = Field(
        "", pattern="^(|basic|autosegmentation)$", description="A profile, or none"
    )
    # Any: values of columns
    fields: dict[str, Any] = Field(
        {}, description='What holds for all of it: {"experiment__name": "Pilot"}'
    )


class NewSource(BaseModel):
    """An address that images are to be taken from."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(max_length=64)
    source: str = Field(min_length=1, max_length=2000)
    inbox: bool = Field(False, description="Let it wait for a review")


@router.post("/uploads", status_code=201)
def begin_upload(
    request: Request, service: Here, right: Writing, body: NewUpload
) -> Response:
    """Announce a file; its parts go to the address in `Location`."""
    check_project(service, right, body.project)
    if _LISTS.search(body.name.strip()):
        raise BadUpload("A manifest is no image: name its address with POST /ingest.")
    if body.bundle and body.inbox:
        raise BadUpload("A bundle is taken in whole: it does not wait in the inbox.")
    if body.bundle and (body.fields or body.deidentify):
        raise BadUpload("A bundle says of its images what they are.")
    require_known(body.fields)
    orders, uploads = Orders(service.home), uploads_of(service.home)
    refuse_too_much(service, right, orders, uploads, body.size)
    key = uploads.begin(body.name, size=body.size, owner=right.person.name)
    order = orders.put(
        Order(
            key=key,
            kind="bundle" if body.bundle else "upload",
            owner=right.person.name,
            project=body.project,
            source=uploads.status(key).name,
            inbox=body.inbox,
            sha256=body.sha256.lower(),
            state="receiving",
            profile=body.deidentify,
            fields=body.fields,
        )
    )
    answer = tagged(request, _shown(order, uploads.status(key)), status=201)
    answer.headers["Location"] = f"{service.api}/uploads/{key}"
    answer.headers["Upload-Offset"] = "0"
    return answer


@router.get("/uploads")
def list_uploads(request: Request, service: Here, right: Writing) -> Response:
    """Your uploads and what became of them."""
    uploads = uploads_of(service.home)
    mine = [
        _shown(one, _status(uploads, one))
        for one in Orders(service.home).of(right.person.name)
        if one.kind in SENT
    ]
    return tagged(request, {"items": mine, "next": None})


@router.get("/uploads/{key}")
def get_upload(request: Request, service: Here, right: Writing, key: Key) -> Response:
    """How far an upload is, and what became of it."""
    return told(request, service, mine(service, right, key))


@router.patch("/uploads/{key}", openapi_extra=_BODY)
async def send_part(
    request: Request,
    service: Here,
    right: Writing,
    key: Key,
    upload_offset: Annotated[int, Header(ge=0, le=1 << 50)],
) -> Response:
    """Send what follows on what is here; `Upload-Offset` says where that is.

    Where the line is cut, what came is kept: `GET` tells from where to go on.
    """
    order = await run_in_threadpool(mine, service, right, key)
    if order.state != "receiving":
        raise BadUpload(f"This upload is {order.state}: nothing can be added to it.")
    uploads = uploads_of(service.home)
    status = await run_in_threadpool(uploads.status, key)
    here = _offset(status)
    if upload_offset != here:
        answer: Response = problems.problem(
            409,
            "Go on from the Upload-Offset of this answer.",
            f"{here} bytes are here, and these would begin at {upload_offset}",
        )
        answer.headers["Upload-Offset"] = str(here)
        return answer
    at = here
    with suppress(ClientDisconnect):
        async for block in blocks(request):
            if at + len(block) > status.size:
                raise TooLargeError(
                    f"{status.size} bytes were announced, and more were sent"
                )
            digest = hashlib.sha256(block).hexdigest()
            status = await run_in_threadpool(
                uploads.part, key, at, block, sha256=digest
            )
            at += len(block)
    return await run_in_threadpool(told, request, service, order)


@router.post("/uploads/{key}/complete", status_code=202)
def complete_upload(
    request: Request, service: Here, right: Writing, key: Key
) -> Response:
    """Check the whole file, and have it taken in; said twice it is done once."""
    order = mine(service, right, key)
    check_project(service, right, order.project)
    if order.state == "receiving":
        uploads_of(service.home).complete(key, sha256=order.sha256)
        order = Orders(service.home).put(replace(order, state="queued"))
    return told(request, service, order, status=202)


@router.delete("/uploads/{key}", status_code=204)
def abandon_upload(service: Here, right: Writing, key: Key) -> Response:
    """Forget an upload and what came of it; what was taken in stays."""
    order = mine(service, right, key)
    if order.state == "working":
        raise BadUpload("It is being taken in: wait until that is done.")
    Orders(service.home).remove(key)
    with suppress(BadUpload):
        uploads_of(service.home).abandon(key)
    return Response(status_code=204)


@router.post("/ingest", status_code=202)
def order_source(
    request: Request, service: Here, right: Writing, body: NewSource
) -> Response:
    """Have images taken from an address that the administrator allows."""
    check_project(service, right, body.project)
    refuse_source(body.source, service.settings.catalog_sources.split())
    order = Orders(service.home).put(
        Order(
            key=new_key(),
            kind="source",
            owner=right.person.name,
            project=body.project,
            source=body.source,
            inbox=body.inbox,
        )
    )
    answer = tagged(request, _shown(order, None), status=202)
    answer.headers["Location"] = f"{service.api}/ingest/{order.key}"
    return answer


@router.get("/ingest/{key}")
def get_order(request: Request, service: Here, right: Writing, key: Key) -> Response:
    """What became of an order of yours."""
    order = Orders(service.home).get(key)
    if order is None or order.owner != right.person.name:
        raise NotFound("there is no such order of yours")
    return tagged(request, _shown(order, None))


def check_project(service: Service, right: Right, name: str) -> None:
    """Raise NotFound or NotAllowed where the asker may not put anything there."""
    backend = right.backend(service)
    if not backend.rows(Spec("projects", (Q(name=name),))):
        raise NotFound(f"there is no project {name} that you may see")
    if name not in (backend.writable or ()):
        raise NotAllowed(
            f"you may look at {name} and not change it: a maintainer of the project "
            "gives your group the role editor"
        )


def mine(service: Service, right: Right, key: str) -> Order:
    """The asker's own upload; raises NotFound."""
    order = Orders(service.home).get(key)
    if order is None or order.owner != right.person.name or order.kind not in SENT:
        raise NotFound("there is no such upload of yours")
    return order


def refuse_source(source: str, allowed: list[str]) -> None:
    """Raise SourceRefusedError for an address that lies below none of those allowed."""
    asked = urlsplit(source)
    # fsspec reads `a::b` as an address within another one.
    plain = "::" not in source and "\\" not in source and source.isprintable()
    steps = unquote(unquote(asked.path)).split("/")
    if plain and asked.scheme in REMOTE and "@" not in asked.netloc:
        for one in allowed:
            wanted = urlsplit(one)
            below = wanted.path.rstrip("/") + "/"
            if (
                (asked.scheme, asked.netloc) == (wanted.scheme, wanted.netloc)
                and f"{asked.path}/".startswith(below)
                and not {".", ".."} & {*steps}
            ):
                return
    raise SourceRefusedError(
        "images are taken only from addresses that the administrator lists in the "
        "setting catalog_sources: upload the files instead, or ask for it"
    )


def refuse_too_much(
    service: Service, right: Right, orders: Orders, uploads: Uploads, size: int
) -> None:
    quota = service.settings.catalog_upload_bytes
    ended = ("done", "failed")
    under_way = [
        status
        for one in orders.of(right.person.name)
        if one.state not in ended and (status := _status(uploads, one)) is not None
    ]
    if size > quota:
        raise TooLargeError(f"one file may have {quota:,} bytes here")
    if len(under_way) >= MOST_OPEN or quota < size + sum(s.size for s in under_way):
        raise TooLargeError(
            f"your uploads may have {quota:,} bytes and be {MOST_OPEN} at a time: end "
            "or delete those that you began"
        )


async def blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks; where the line is cut, what came of the last one too."""
    held = bytearray()
    try:
        async for piece in request.stream():
            held += piece
            while len(held) >= BLOCK:
                yield bytes(held[:BLOCK])
                del held[:BLOCK]
    except ClientDisconnect:
        # What came is good: its sender asks from where to go on.
        pass
    if held:
        yield bytes(held)


def _status(uploads: Uploads, order: Order) -> Status | None:
    try:
        return uploads.status(order.key)
    except BadUpload:
        return None


def _offset(status: Status) -> int:
    return status.missing[0][0] if status.missing else status.size


def told(
    request: Request, service: Service, order: Order, *, status: int = 200
) -> Response:
    found = _status(uploads_of(service.home), order)
    answer = tagged(request, _shown(order, found), status=status)
    if found is not None and answer.status_code != 304:
        answer.headers["Upload-Offset"] = str(_offset(found))
        answer.headers["Cache-Control"] = "no-store"
    return answer


# Any: JSON
def _shown(order: Order, status: Status | None) -> dict[str, Any]:
    said = {
        "id": order.key,
        "project": order.project,
        "state": order.state,
        "inbox": order.inbox,
        "reason": order.reason,
        "report": dict(order.report),
    }
    if order.kind in SENT:
        return said | {
            "name": order.source,
            "bundle": order.kind == "bundle",
            "size": status.size if status else None,
            "offset": _offset(status) if status else None,
            "sha256": order.sha256,
            "deidentify": order.profile,
            "fields": dict(order.fields),
        }
    return said | {"source": order.source}
