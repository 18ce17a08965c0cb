"""Arrays that notebooks send: kept as new images, with the run that made them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.receiving import PACKED_BYTES, receive

from services.catalog.api.here import Here
from services.catalog.api.images import presented
from services.catalog.api.rights import Writing
from services.catalog.api.tagged import tagged

router = APIRouter(prefix="/images", tags=["images"])


@router.post("", status_code=201)
def keep_image(
    request: Request,
    service: Here,
    right: Writing,
    array: Annotated[UploadFile, File(description="A zip of an OME-Zarr 0.5 group")],
    kept: Annotated[
        str,
        Form(
            max_length=1_000_000,
            description="JSON: project, name, title, kind, node, params, and inputs, "
            "the ids of the images that it was made of",
        ),
    ],
) -> Response:
    """Keep an array as a new image, with the run that made it."""
    try:
        said = json.loads(kept)
    except ValueError as err:
        raise BadRecord("kept is no JSON") from err
    if not isinstance(said, dict):
        raise BadRecord("kept is an object")
    if array.size is None or array.size > PACKED_BYTES:
        raise BadRecord(f"an array has {PACKED_BYTES >> 20} MiB at most")
    backend = right.backend(service)
    with tempfile.NamedTemporaryFile(suffix=".zip") as package:
        shutil.copyfileobj(array.file, package)
        package.flush()
        row = receive(backend, Path(package.name), said)
    answer = tagged(request, presented(service, backend, [row])[0], status=201)
    answer.headers["Location"] = f"{service.api}/images/{row['id']}"
    return answer
