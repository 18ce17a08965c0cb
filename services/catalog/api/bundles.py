"""Bundles come back: what `export.zip?what=bundle` gave, into a project that one edits.

    curl -H "$TOKEN" --data-binary @bundle.zip "$API/bundles?project=study"

It is sent at once, or as an upload that goes on where it was cut off (`/uploads` with
`bundle`). Either way the catalogue's worker checks it whole before it takes anything,
and taken twice it is there once.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.ingest.errors import BadUpload

from services.catalog.api import uploads
from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Right, Writing
from services.catalog.intake import Order, Orders, uploads_of

router = APIRouter(prefix="/bundles", tags=["intake"])
NAME: Final = "bundle.zip"
_ZIP: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": {"schema": {"type": "string", "format": "binary"}}
        },
    }
}


@router.post("", status_code=202, openapi_extra=_ZIP)
async def import_bundle(
    request: Request,
    service: Here,
    right: Writing,
    project: Annotated[str, Query(max_length=64, description="Where all of it goes")],
    content_length: Annotated[int, Header(ge=1, le=1 << 50)],
    sha256: Annotated[
        str, Query(pattern="^([0-9a-fA-F]{64})?$", description="Of the file, if known")
    ] = "",
) -> Response:
    """Take a bundle in, as a job: `Location` says where its report will be."""
    key = await run_in_threadpool(_begun, service, right, project, content_length)
    try:
        digest = await _received(request, service, key)
        if sha256 and digest != sha256.lower():
            raise BadUpload("The file's checksum is another: send it again.")
        order = await run_in_threadpool(
            Orders(service.home).put,
            Order(
                key=key,
                kind="bundle",
                owner=right.person.name,
                project=project,
                source=NAME,
                sha256=digest,
            ),
        )
    except CatalogError:
        with suppress(BadUpload):
            await run_in_threadpool(uploads_of(service.home).abandon, key)
        raise
    answer = await run_in_threadpool(uploads.told, request, service, order, status=202)
    answer.headers["Location"] = f"{service.api}/uploads/{key}"
    return answer


def _begun(service: Service, right: Right, project: str, size: int) -> str:
    uploads.check_project(service, right, project)
    held, orders = uploads_of(service.home), Orders(service.home)
    uploads.refuse_too_much(service, right, orders, held, size)
    return held.begin(NAME, size=size, owner=right.person.name)


async def _received(request: Request, service: Service, key: str) -> str:
    """Write the body down; its checksum. Raises BadUpload where it is cut off."""
    held = uploads_of(service.home)
    whole, at = hashlib.sha256(), 0
    async for block in uploads.blocks(request):
        whole.update(block)
        part = hashlib.sha256(block).hexdigest()
        await run_in_threadpool(held.part, key, at, block, sha256=part)
        at += len(block)
    if (await run_in_threadpool(held.status, key)).missing:
        raise BadUpload("It was cut off: send it again, or in parts (/uploads).")
    return whole.hexdigest()
