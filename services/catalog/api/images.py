"""Images: what a list says of them, the way to their pixels, what was found on them.

`POST .../view` is the door to the tile service: it checks the right once and answers
with the geometry and a tile address that is a capability: sealed, expiring, the same
all day, so that the tile service needs no database and the browser's cache helps.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session
from theatrum.catalog.backend import RowData
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.tables import Image, Result

from services.catalog import cases, store, thumbnails
from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Pixels, Reading, Right, Writing
from services.catalog.api.tagged import UNCHANGED, tag_of_pixels, tagged, unchanged
from services.catalog.api.wire import OverTheWire
from tile_server.address import tiles_url
from tile_server.tokens import Capability, expiry, seal

router = APIRouter(prefix="/images", tags=["images"])


@router.post("/cases", status_code=201)
async def add_case(
    request: Request,
    service: Here,
    right: Writing,
    collection: Annotated[str, Query(max_length=64)],
    name: Annotated[str, Query(max_length=48)],
    shared: bool = False,
) -> dict[str, Any]:
    """Add a de-identified case, a zip, to a collection of a course that one teaches."""

    def wanted(session: Session) -> Any:
        return cases.collection_for(session, right.person, collection)

    def add(package: Path) -> dict[str, Any]:
        with Session(service.database.engine) as session:
            image = cases.add_case(
                session,
                wanted(session),
                package,
                cases.Wanted(collection, name, shared),
                cases=service.cases,
                prober=service.prober,
            )
            return summary(service, image)

    with service.database.reading() as session:
        await run_in_threadpool(wanted, session)
    service.cases.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=service.cases, prefix=".coming-") as folder:
        package = Path(folder, "case.zip")
        await cases.received(request.stream(), package)
        return await run_in_threadpool(add, package)


@router.get("/{image_id}/structures", response_class=Response)
def get_structures(service: Here, right: Pixels, image_id: str) -> Response:
    """The RT Structure Set of a teaching case, for whom it is meant."""
    with Session(service.database.engine) as session:
        image = found(session, service, right, image_id)
        path = cases.structures_of(right.person, image)
    return Response(
        path.read_bytes(),
        media_type="application/dicom",
        headers={"Cache-Control": "no-store"},
    )


@router.get("/{image_id}/results")
def list_results(
    service: Here, right: Reading, image_id: str
) -> dict[str, list[dict[str, Any]]]:
    """What analyses found on an image, the newest first."""
    with Session(service.database.engine) as session:
        image = found(session, service, right, image_id)
        return {"results": [_result(one) for one in store.results_of(session, image)]}


@router.get("/{image_id}/thumbnail", response_class=Response, responses=UNCHANGED)
def get_thumbnail(
    request: Request,
    service: Here,
    right: Pixels,
    image_id: str,
    size: Annotated[int, Query(ge=16, le=1024)] = 256,
) -> Response:
    """A JPEG of the whole image, `size` pixels at its longer side."""
    row = right.backend(service).whole("images", image_id)
    tag = tag_of_pixels(row, "thumbnail", size)
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
    if (known := unchanged(request, headers)) is not None:
        return known
    jpeg = thumbnail(service, right, image_id, size)
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def thumbnail(service: Service, right: Right, image_id: str, size: int) -> bytes:
    """A JPEG of the whole image, `size` pixels at its longer side."""
    with Session(service.database.engine) as session:
        image = found(session, service, right, image_id)
        store.refresh(session, image, prober=service.prober)
        return thumbnails.thumbnail(
            service.cache,
            service.prober,
            Path(image.path),
            (image.id, image.version),
            size,
        )


@router.post("/{image_id}/view")
def view_image(service: Here, right: Pixels, image_id: str) -> dict[str, Any]:
    """The way to an image's pixels: its geometry and a sealed tile address."""
    with Session(service.database.engine) as session:
        image = found(session, service, right, image_id)
        store.refresh(session, image, prober=service.prober)
        expires = expiry(time.time(), service.settings.tile_life_s)
        capability = Capability(
            path=image.path,
            version=image.version,
            label=image.project.shows_label,
            expires=expires,
        )
        token = seal(service.tile_key, capability)
        return (
            image.geometry
            | {"associated": _associated(image.geometry, image.project.shows_label)}
            | summary(service, image)
            | {
                "tiles": tiles_url(service.tiles_base, token),
                "expires": datetime.fromtimestamp(expires, UTC).isoformat(),
            }
        )


@router.get("/{image_id}", responses={304: {"description": "As it was"}})
def get_image(
    request: Request, service: Here, right: Reading, image_id: str
) -> Response:
    """What is known of an image."""
    with Session(service.database.engine) as session:
        image = found(session, service, right, image_id)
        if image.geometry:
            store.refresh(session, image, prober=service.prober)
        return tagged(request, image.geometry | summary(service, image))


@router.get("/{image_id}/lineage")
def get_lineage(
    request: Request,
    service: Here,
    right: Reading,
    image_id: str,
    prov: Annotated[bool, Query(description="As W3C PROV-JSON")] = False,
) -> Response:
    """Where an image comes from: runs, what went into them, back to the originals."""
    from theatrum.catalog.lineage import trace

    traced = trace(right.backend(service), "image", image_id)
    return tagged(request, traced.to_prov() if prov else traced.to_json())


def found(session: Session, service: Service, right: Right, image_id: str) -> Image:
    """The image, where the asker may do what the route does; raises NotFound."""
    right.backend(service).whole("images", image_id)
    return session.get_one(Image, image_id)


def summary(service: Service, image: Image) -> dict[str, Any]:
    """What a list says of an image."""
    row = {column.key: getattr(image, column.key) for column in Image.__table__.columns}
    return _presented(service, row, image.project.name, image.project.shows_label)


def presented(
    service: Service, backend: OverTheWire, rows: Sequence[RowData]
) -> list[RowData]:
    """Rows of images with what a list says besides: the project, size, thumbnail."""
    wanted = tuple({row["project_id"] for row in rows})
    projects = {
        one["id"]: one for one in backend.rows(Spec("projects", (Q(id__in=wanted),)))
    }
    return [
        _presented(
            service,
            row,
            projects[row["project_id"]]["name"],
            projects[row["project_id"]]["shows_label"],
        )
        for row in rows
    ]


def _presented(
    service: Service, row: RowData, project: str, shows_label: bool
) -> RowData:
    geometry = row["geometry"] or {}
    said = {
        name: value
        for name, value in row.items()
        if name not in {"path", "deleted_at", "geometry"}
    }
    return said | {
        "project": project,
        "collection": project,
        # Of what has not been looked at yet, what its registration says.
        "width": geometry.get("width", row["n_x"] or 0),
        "height": geometry.get("height", row["n_y"] or 0),
        "mpp_x": geometry.get("mpp_x"),
        "mpp_y": geometry.get("mpp_y"),
        "associated": _associated(geometry, shows_label),
        "thumbnail": f"{service.api}/images/{row['id']}/thumbnail",
    }


def _associated(geometry: RowData, shows_label: bool) -> list[str]:
    """The slide's other images; a macro can show the label."""
    return [
        name
        for name in geometry.get("associated", [])
        if name not in {"label", "macro"} or shows_label
    ]


def _result(result: Result) -> dict[str, Any]:
    """A result with what it came from; marks are GeoJSON in level-0 pixels."""
    return {
        "run": result.run,
        "title": result.title,
        "app": result.app,
        "node": {
            "name": result.node,
            "version": result.node_version,
            "digest": result.node_digest,
        },
        "numbers": result.numbers,
        "marks": result.marks,
        "created": result.created.isoformat(),
    }
