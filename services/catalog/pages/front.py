"""The front page: find images by facets, look at them, take them with you."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadQuery, CatalogError, NotFound
from theatrum.catalog.query.spec import Q, Spec, spec_from_json

from hub.signin import Person, Visitor
from services.catalog.api import exports, listing, rights
from services.catalog.api import queries as saved
from services.catalog.api.here import Here, Service
from services.catalog.api.wire import OverTheWire
from services.catalog.pages import browse, downloads, questions
from services.catalog.pages.rendering import STATIC, page

router = APIRouter(include_in_schema=False)
router.include_router(downloads.router)
router.include_router(questions.router)


@router.get("/")
def front_page(request: Request, service: Here, visitor: Visitor) -> Response:
    """What the address asks, as thumbnails, with what it can be narrowed by."""
    words = dict(request.query_params)
    backend = rights.Right(visitor, rights.READ).backend(service)
    with service.database.reading() as session:
        may_keep = bool(rights.Right(visitor, rights.WRITE).projects(session))
    try:
        browse.refuse_unknown(words)
        found = browse.seen(service, backend, words)
        fault, status = "", 200
    except BadQuery as err:
        found = browse.seen(service, backend, {})
        fault, status = str(err), 400
    return page(
        service,
        visitor,
        "front.html",
        status=status,
        found=found,
        downloads=_downloads(visitor, service, {} if fault else found.words),
        fault=fault,
        queries=_kept(backend),
        sorts=browse.SORTS,
        may_keep=may_keep,
        may_make=rights.may_make_projects(visitor),
    )


@router.get("/static/{name}")
def static(name: str) -> Response:
    """What the pages load; its address changes with it."""
    if name not in STATIC:
        raise NotFound("there is no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return FileResponse(STATIC[name], headers=headers)


@router.get("/health")
def health() -> dict[str, str]:
    """That the service is up."""
    return {"status": "ok"}


def _downloads(
    visitor: Person, service: Service, words: Mapping[str, str]
) -> list[dict[str, object]]:
    """What the images can be downloaded as, with about how much and how long it is."""
    backend = rights.Right(visitor, rights.EXPORT).backend(service)
    spec = listing.spec_of("images", words.items())
    slices = {"what": "slices", "planes": "ax", "central": "50"}
    guess = exports.estimate(backend, spec, {"planes": "ax", "central": "50"})
    kinds = (
        ("Original files", {"what": "originals"}),
        ("Slices as JPEG (middle 50, axial)", slices),
        ("BIDS data set", {"what": "bids"}),
        ("Bundle: files, rows, lineage", {"what": "bundle"}),
    )
    listed: list[dict[str, object]] = [
        {"title": title, "words": said, "ending": "zip", **guess["kinds"][said["what"]]}
        for title, said in kinds
    ]
    tables = (("Table (Parquet)", "parquet"), ("Table (JSON)", "json"))
    return listed + [
        {"title": title, "words": {}, "ending": ending, "bytes": None, "seconds": None}
        for title, ending in tables
    ]


def _kept(backend: OverTheWire) -> list[dict[str, object]]:
    """The saved queries with how much each finds now."""
    kept: list[dict[str, object]] = []
    projects = {row["id"]: row["name"] for row in backend.rows(Spec("projects"))}
    for row in backend.rows(Spec("saved_queries", (Q(),), order=("title",), limit=50)):
        try:
            spec = spec_from_json(row["spec"]).filled(_defaults(row["parameters"]))
            words = browse.words_of(spec)
            if spec.of != "images":
                continue
            kept.append(
                {
                    "title": row["title"] or row["slug"],
                    "slug": row["slug"],
                    # A question that no address can say can still be downloaded.
                    "href": None if words is None else browse.href(words),
                    "project": projects.get(row["project_id"], ""),
                    **_size(backend, row),
                }
            )
        except CatalogError:
            # A query that asks for a column of before is no reason to show nothing.
            continue
    return kept


def _size(backend: OverTheWire, row: RowData) -> dict[str, object]:
    """How much a saved query finds, and what its download takes."""
    spec, export = saved.filled(row, {})
    options = {name: value for name, value in export.items() if name != "what"}
    guess = exports.estimate(backend, spec, options)
    kind = guess["kinds"].get(export.get("what", "originals"), {})
    return {
        "count": guess["count"],
        "bytes": kind.get("bytes", 0),
        "seconds": kind.get("seconds", 0),
    }


def _defaults(parameters: dict[str, dict[str, object]]) -> dict[str, object]:
    return {
        name: said["default"] for name, said in parameters.items() if "default" in said
    }
