"""Versions of data sets: what a question finds is kept for ever, by ids and checksums.

A version is never changed and never taken away; freezing a name and version again is
refused. Its manifest tells of the images that the asker may see: one whose project is
closed to them is left out, one that was deleted since is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from theatrum.catalog import freezing
from theatrum.catalog.connection import Catalog
from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query.lazy import Query as CatalogQuery
from theatrum.catalog.query.spec import Q, Spec, spec_from_json
from theatrum.catalog.rows import Row, maker
from theatrum.catalog.tables import Image, Project

from services.catalog.api import listing, tables_out
from services.catalog.api.here import Here
from services.catalog.api.rights import Reading, Writing
from services.catalog.api.tagged import tagged
from services.catalog.api.wire import OverTheWire, refuse_inside
from services.catalog.api.work import Key, local
from services.catalog.errors import ConflictError

router = APIRouter(prefix="/versions", tags=["versions"])
TOLD: Final = ("id", "name", "scene", "checksum", "version")
"""Columns of a manifest that leave this machine."""
_AT_ONCE: Final = 400


class NewVersion(BaseModel):
    """What is to be frozen, and under which name."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(max_length=64)
    name: str = Field(min_length=1, max_length=128)
    version: str = Field(min_length=1, max_length=64)
    # Any: the query language's JSON
    query: dict[str, Any] = Field(description='{"of": "images", "where": [...]}')


@router.post("", status_code=201)
def freeze_version(
    request: Request, service: Here, right: Writing, body: NewVersion
) -> Response:
    """Keep for ever what a question finds now."""
    backend = local(service, right)
    spec = spec_from_json(body.query)
    refuse_inside(spec)
    if spec.of != "images":
        raise BadQuery("a version is of images: ask for these")
    where = Q(project__name=body.project, name=body.name, version=body.version)
    if backend.rows(Spec("versions", (where,))):
        raise ConflictError(
            f"{body.name} {body.version} is frozen already: count the version up"
        )
    query = CatalogQuery(backend, spec, maker("images"))
    if not query.exists():
        raise BadQuery("the query finds no image: there is nothing to freeze")
    named = (body.name, body.version)
    made = freezing.freeze(Catalog(backend), query, named, body.project)
    row = right.backend(service).rows(Spec("versions", (Q(id=made.id),)))[0]
    answer = tagged(request, row, status=201)
    answer.headers["Location"] = f"{service.api}/versions/{made.id}"
    return answer


@router.get(
    "/{key}/manifest",
    responses={
        200: {
            "content": {tables_out.CSV: {}, tables_out.PARQUET: {}},
            "description": "A page of the manifest; a file holds all of it",
        },
        304: {"description": "As it was"},
    },
)
def get_manifest(
    request: Request,
    service: Here,
    right: Reading,
    key: Key,
    limit: Annotated[int, Query(ge=1, le=listing.MOST)] = listing.USUAL,
    cursor: Annotated[str, Query(max_length=64)] = "",
    format: Literal["json", "csv", "parquet"] | None = None,
) -> Response:
    """The ids and checksums of a version, in the order of ids."""
    backend = right.backend(service)
    version = Row(backend, backend.whole("versions", key), "versions")
    found = _seen(backend, freezing.manifest(version).to_pylist(), cursor)
    wanted = format or tables_out.accepted(request.headers.get("Accept", ""))
    if wanted != "json":
        return tables_out.answer(request, "manifest", [*found], wanted)
    page = [*islice(found, limit + 1)]
    following = page[limit - 1]["id"] if len(page) > limit else None
    return tagged(request, {"items": page[:limit], "next": following})


# Any: a manifest's rows
def _seen(
    backend: OverTheWire, rows: Sequence[dict[str, Any]], after: str
) -> Iterator[dict[str, Any]]:
    """The rows behind an id whose images are in projects that the asker sees."""
    left = iter([row for row in rows if row["id"] > after])
    while part := [*islice(left, _AT_ONCE)]:
        mine = (
            select(Image.id)
            .join(Project, Project.id == Image.project_id)
            .where(
                Image.id.in_([row["id"] for row in part]),
                Project.name.in_(sorted(backend.projects or ())),
            )
        )
        with backend.database.reading() as session:
            seen = set(session.scalars(mine))
        for row in part:
            if row["id"] in seen:
                yield {name: row[name] for name in TOLD}
