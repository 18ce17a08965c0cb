"""Zip files that people upload.

GET  /upload               the form, and the uploads of the last days
PUT  /upload               the file itself as the body; answers what became of it
POST /upload/{id}/cancel
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.dicom_client.api_uploads import received
from services.dicom_client.errors import BadRequest, NoRoom, NoSuchThing, WrongState
from services.dicom_client.pages.rendering import Here, Pages, sentence
from services.dicom_client.pages.rights import (
    Member,
    Planner,
    PlannersForm,
    PlannersStream,
)
from services.dicom_client.uploads import Uploads

_SLOW_S = 30


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/upload", page, methods=["GET"])
    router.add_api_route("/upload", put, methods=["PUT"])
    router.add_api_route("/upload/{upload_id}/cancel", cancel, methods=["POST"])


def page(request: Request, here: Here, member: Planner) -> Response:
    """The form, and what became of the uploads before."""
    return _page(request, here, member)


def _page(request: Request, here: Pages, member: Member, problem: str = "") -> Response:
    uploads: Uploads = request.app.state.uploads
    limits = here.service.settings().upload
    return here.live(
        request,
        member,
        "upload.html",
        "upload_live.html",
        follow="uploads",
        every_s=_SLOW_S,
        status=409 if problem else 200,
        tab="upload",
        uploads=uploads.newest(),
        limit_bytes=limits.archive_bytes,
        files=limits.files,
        problem=problem,
    )


async def put(request: Request, here: Here, member: PlannersStream) -> Response:
    """Take a file; what is wrong with it is told in words for the page's script."""
    try:
        made = await received(request.app.state.uploads, request, member.name)
    except (BadRequest, NoRoom) as err:
        status, _title, text = here.failure(err)
        return JSONResponse({"text": text}, status)
    return JSONResponse(made.as_json(), 201)


def cancel(
    request: Request, here: Here, sent: PlannersForm, upload_id: str
) -> Response:
    """Call an upload off."""
    try:
        request.app.state.uploads.cancel(upload_id, sent.member.name)
    except (WrongState, NoSuchThing) as err:
        return _page(request, here, sent.member, sentence(err))
    return here.to("upload")
