"""The front page: find images by facets, look at them, take them with you."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from theatrum.catalog.errors import BadQuery, CatalogError, NotFound
from theatrum.catalog.query.spec import Q, Spec, spec_from_json

from hub.signin import Visitor
from services.catalog.api import rights
from services.catalog.api.here import Here
from services.catalog.api.wire import OverTheWire
from services.catalog.pages import browse
from services.catalog.pages.rendering import STATIC, page

router = APIRouter(include_in_schema=False)


@router.get("/")
def front_page(request: Request, service: Here, visitor: Visitor) -> Response:
    """What the address asks, as thumbnails, with what it can be narrowed by."""
    words = dict(request.query_params)
    backend = rights.Right(visitor, rights.READ).backend(service)
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
        fault=fault,
        queries=_kept(backend),
        sorts=browse.SORTS,
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


def _kept(backend: OverTheWire) -> list[dict[str, object]]:
    """The saved queries with how much each finds now."""
    kept: list[dict[str, object]] = []
    for row in backend.rows(Spec("saved_queries", (Q(),), order=("title",), limit=50)):
        try:
            spec = spec_from_json(row["spec"]).filled(_defaults(row["parameters"]))
            words = browse.words_of(spec)
            if spec.of != "images" or words is None:
                continue
            kept.append(
                {
                    "title": row["title"] or row["slug"],
                    "slug": row["slug"],
                    "href": browse.href(words),
                    "count": backend.count(spec),
                }
            )
        except CatalogError:
            # A query that asks for a column of before is no reason to show nothing.
            continue
    return kept


def _defaults(parameters: dict[str, dict[str, object]]) -> dict[str, object]:
    return {
        name: said["default"] for name, said in parameters.items() if "default" in said
    }
