"""Pictures of a series with its contours, in three planes.

GET /series/{id}/preview/{plane}.png    `roi`: number of a structure; `key`

They are made once and kept in the series' own folder (`phi/`), which goes with its
retention. Their addresses name no structure and carry a key of the session, so that no
other page of the same origin shows them.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from theatrum.structures import StructureError

from hub.home import write_private
from services.dicom_client import previews
from services.dicom_client.errors import NoSuchThing, WrongState
from services.dicom_client.opening import Service
from services.dicom_client.pages import readings
from services.dicom_client.pages.rendering import Here
from services.dicom_client.pages.rights import Drawer, NotMeant, is_same

Plane = Literal["axial", "coronal", "sagittal"]
# One series at a time: its volume may take a gigabyte.
_one_at_a_time = threading.Lock()


def add_routes(router: APIRouter) -> None:
    router.add_api_route(
        "/series/{job_id}/preview/{plane}.png", picture, methods=["GET"]
    )


def picture(
    here: Here,
    member: Drawer,
    job_id: str,
    plane: Plane,
    key: Annotated[str, Query(max_length=64)] = "",
    roi: Annotated[int, Query(ge=-1, lt=10_000)] = -1,
) -> Response:
    """One plane through the middle of a structure, or of all of them (`roi` -1)."""
    if not is_same(key, member.key(job_id)):
        raise NotMeant("open the series' page")
    content = _made(here.service, job_id, plane, roi).read_bytes()
    return Response(content, media_type="image/png")


def _made(service: Service, job_id: str, plane: Plane, roi: int) -> Path:
    """The file of a picture, made with the two others where it is not there."""
    job = service.jobs.get(job_id)
    result = readings.structure_set(service, job_id)
    names = readings.structures(result)
    if roi >= len(names):
        raise NoSuchThing("there is no such structure")
    mark = result.stat().st_mtime_ns if result else 0
    folder = service.folders.of(job_id).path / "previews"
    wanted = folder / f"{mark}-{roi}-{plane}.png"
    with _one_at_a_time:
        if wanted.is_file():
            return wanted
        try:
            found = previews.preview(
                readings.images(service, job), result, names[roi] if roi >= 0 else None
            )
        except (StructureError, OSError, ValueError, AttributeError) as err:
            raise WrongState("these images cannot be shown in three planes") from err
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("axial", "coronal", "sagittal"):
            content: bytes = getattr(found, name)
            write_private(folder / f"{mark}-{roi}-{name}.png", content)
    return wanted
