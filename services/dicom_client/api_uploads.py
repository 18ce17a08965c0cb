"""The API of uploads: a zip file as the body of a request, and what became of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from services.dicom_client.errors import BadRequest
from services.dicom_client.people import Planner, Seer
from services.dicom_client.uploads import Upload, Uploads

# Any below: JSON of the API.


def routes(uploads: Uploads) -> APIRouter:
    """The routes below `api/`."""
    router = APIRouter()

    @router.post("/uploads", status_code=201)
    async def upload(person: Planner, request: Request) -> dict[str, Any]:
        """Upload a zip file of DICOM images: the body of the request is the file."""
        return (await received(uploads, request, person.name)).as_json()

    @router.get("/uploads")
    def listed(_person: Seer) -> list[dict[str, Any]]:
        """Uploads of the last days, newest first."""
        return [one.as_json() for one in uploads.newest()]

    @router.get("/uploads/{upload_id}")
    def one(_person: Seer, upload_id: str) -> dict[str, Any]:
        """How far an upload is, and which series came of it."""
        return uploads.get(upload_id).as_json()

    @router.post("/uploads/{upload_id}/cancel")
    def cancel(person: Planner, upload_id: str) -> dict[str, Any]:
        """Call an upload off; series whose images were taken already stay."""
        return uploads.cancel(upload_id, person.name).as_json()

    return router


async def received(uploads: Uploads, request: Request, who: str) -> Upload:
    """Receive the body of a request as an archive, in pieces."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/") or kind == "application/x-www-form-urlencoded":
        raise BadRequest(
            "Send the zip file itself as the body, not a form: "
            "curl --data-binary @scan.zip -H 'Content-Type: application/zip'"
        )
    length = request.headers.get("Content-Length", "")
    begun = uploads.begin(who, int(length) if length.isdigit() else None)
    return await uploads.receive(begun.id, request.stream())
