"""Arrays that notebooks send: kept as new images, with the run that made them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadRecord, NotAllowed
from theatrum.catalog.receiving import PACKED_BYTES, receive

from services.catalog.api.forms import TEXT_BYTES, receive_form
from services.catalog.api.here import Here
from services.catalog.api.images import presented
from services.catalog.api.rights import Writing
from services.catalog.api.tagged import tagged
from services.catalog.api.uploads import check_project
from services.catalog.api.wire import OverTheWire

router = APIRouter(prefix="/images", tags=["images"])

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["kept", "array"],
                    "properties": {
                        "kept": {
                            "type": "string",
                            "maxLength": TEXT_BYTES,
                            "description": "JSON, before the array: project, name, "
                            "title, kind, node, params, and inputs, the ids of the "
                            "images that it was made of",
                        },
                        "array": {
                            "type": "string",
                            "format": "binary",
                            "description": "A zip of an OME-Zarr 0.5 group",
                        },
                    },
                }
            }
        },
    }
}


@router.post("", status_code=201, openapi_extra=_BODY)
async def keep_image(request: Request, service: Here, right: Writing) -> Response:
    """Keep an array as a new image, with the run that made it."""
    backend = await run_in_threadpool(right.backend, service)
    if not backend.writable:
        raise NotAllowed(
            "you may write to no project: a maintainer of one gives your group the "
            "role editor"
        )

    def judge(text: str) -> None:
        project = _said(text).get("project")
        if isinstance(project, str):
            check_project(service, right, project)

    folder = service.home.cache
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".zip", dir=folder) as package:
        kept = await receive_form(
            request,
            text="kept",
            file="array",
            into=package,
            most=min(PACKED_BYTES, service.settings.catalog_upload_bytes),
            judge=judge,
        )
        package.flush()
        row, said = await run_in_threadpool(
            _kept, service, backend, Path(package.name), _said(kept)
        )
    answer = tagged(request, said, status=201)
    answer.headers["Location"] = f"{service.api}/images/{row['id']}"
    return answer


def _kept(
    service: Here, backend: OverTheWire, package: Path, said: dict[str, Any]
) -> tuple[RowData, RowData]:
    row = receive(backend, package, said)
    return row, presented(service, backend, [row])[0]


# Any: JSON
def _said(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as err:
        raise BadRecord("kept is no JSON") from err
    if not isinstance(said, dict):
        raise BadRecord("kept is an object")
    return said
