"""Questions in full: the query language's JSON, with counts, facets and the SQL."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from theatrum.catalog import answers
from theatrum.catalog.query.facets import Facet

from services.catalog.api import listing
from services.catalog.api.here import Here
from services.catalog.api.images import presented
from services.catalog.api.rights import Reading
from services.catalog.api.tagged import tagged

router = APIRouter(tags=["search"])

USUAL_FACETS = (
    "modality",
    "plane",
    "format",
    "kind",
    "project__name",
    "subject__diagnosis",
    "sample__stain",
    "acquisition__manufacturer",
    "acquisition__model",
    "acquisition__field_strength",
    "tags",
)
"""What the front page offers to narrow by."""


# Any: JSON of the query language; `theatrum.catalog.answers` reads it strictly.
@router.post("/search")
def search(
    request: Request,
    service: Here,
    right: Reading,
    body: Annotated[
        dict[str, Any],
        Body(examples=[{"query": {"of": "images"}, "rows": True, "count": True}]),
    ],
) -> Response:
    """Ask by the query language: rows, page by page, a count, facets, the SQL."""
    backend = right.backend(service)
    query = body.get("query", body)
    if body.get("facets") is True and query.get("of") == "images":
        body = body | {"facets": [*USUAL_FACETS]}
    told = answers.answer(backend, body)
    if told.get("rows") and query.get("of") == "images" and not query.get("values"):
        told["rows"] = presented(service, backend, told["rows"])
    return tagged(request, told)


@router.get("/facets")
def facets(
    request: Request,
    service: Here,
    right: Reading,
    of: Annotated[str, Query(max_length=64)] = "images",
    by: Annotated[str | None, Query(max_length=1000)] = None,
    most: Annotated[int, Query(ge=1, le=200)] = 20,
) -> Response:
    """How many rows have each value of some fields, of those that the words leave."""
    own = {"of", "by", "most"}
    words = [
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in own
    ]
    backend = right.backend(service)
    spec = listing.spec_of(of, words)
    wanted = by.split(",") if by else USUAL_FACETS
    found = backend.facets(spec, [Facet(name.strip(), most) for name in wanted])
    said = {
        name: [{"value": value, "count": count} for value, count in values]
        for name, values in found.items()
    }
    return tagged(request, {"count": backend.count(spec), "facets": said})
