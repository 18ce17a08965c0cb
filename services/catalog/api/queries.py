"""Saved queries: questions that people share by an address, and what they find.

    GET /queries/tumour-axial?diagnosis=glioma
    GET /queries/tumour-axial/export.zip?what=slices

Words of the address are the query's parameters; where two projects have a query of one
name, `project=` says which. A query's parameters can also name what is exported
(`what`, `planes`, `central` and so on) with a default: then its address alone is a
download, as it was meant by who kept it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadQuery, CatalogError, NotFound, SeveralFound, near
from theatrum.catalog.exchange.exporting import KINDS, OPTIONS
from theatrum.catalog.query.spec import Q, Spec, spec_from_json

from services.catalog.api import exports
from services.catalog.api.exports import Wanted
from services.catalog.api.here import Here
from services.catalog.api.rights import Exporting, Reading
from services.catalog.api.tagged import tagged
from services.catalog.api.wire import OverTheWire, refuse_inside

router = APIRouter(prefix="/queries", tags=["queries"])
OF_EXPORTS = OPTIONS | {"what"}


@router.get("")
def list_queries(request: Request, service: Here, right: Reading) -> Response:
    """The saved queries that you may see, with how much each finds now."""
    backend = right.backend(service)
    rows = backend.rows(Spec("saved_queries", (Q(),), order=("title",), limit=200))
    items = []
    for row in rows:
        try:
            items.append(_told(backend, row, {}))
        except CatalogError as err:
            # One that asks for what is no more is shown as what it is.
            items.append(_short(row) | {"fault": str(err)})
    return tagged(request, {"items": items, "next": None})


@router.get("/{slug}")
def get_query(request: Request, service: Here, right: Reading, slug: str) -> Response:
    """A saved query: its question, how much it finds, how long downloads take."""
    backend = right.backend(service)
    words = dict(request.query_params)
    row = found(backend, slug, words)
    return tagged(request, _told(backend, row, words))


@router.get(
    "/{slug}/export.zip",
    response_class=StreamingResponse,
    responses=exports.ZIPPED,
)
def export_query_zip(
    request: Request, service: Here, right: Exporting, slug: str
) -> Response:
    """What a saved query finds as a zip."""
    wanted = _wanted(request, right.backend(service), slug)
    return exports.archived(request, service, right, wanted)


@router.get("/{slug}/export.json", responses=exports.RESPONSES)
def export_query_json(
    request: Request, service: Here, right: Exporting, slug: str
) -> Response:
    """All rows that a saved query finds, as JSON."""
    wanted = _wanted(request, right.backend(service), slug)
    return exports.as_json(service, right, wanted.spec, wanted.name)


@router.get("/{slug}/export.parquet", responses=exports.TABLED)
def export_query_parquet(
    request: Request, service: Here, right: Exporting, slug: str
) -> Response:
    """All rows that a saved query finds, as Parquet."""
    wanted = _wanted(request, right.backend(service), slug)
    return exports.as_parquet(request, service, right, wanted.spec, wanted.name)


def found(backend: OverTheWire, slug: str, words: Mapping[str, str]) -> RowData:
    """The saved query of that name; raises NotFound and SeveralFound."""
    where = Q(slug=slug)
    if "project" in words:
        where = where & Q(project__name=words["project"])
    rows = backend.rows(Spec("saved_queries", (where,), limit=2))
    if not rows:
        raise NotFound("there is nothing here that you may see")
    if len(rows) > 1:
        raise SeveralFound(f"two projects have a query {slug}: say which, as project=")
    return rows[0]


# Any: JSON
def filled(row: RowData, words: Mapping[str, str]) -> tuple[Spec, dict[str, Any]]:
    """The question with its parameters, and what is said of its export."""
    known = {
        name: said
        for name, said in row["parameters"].items()
        if isinstance(said, Mapping)
    }
    for name in words:
        if name not in known and name not in OF_EXPORTS and name != "project":
            raise BadQuery(
                f"the query {row['slug']} has no parameter {name!r}.{near(name, known)}"
            )
    values = {
        name: said["default"] for name, said in known.items() if "default" in said
    }
    values |= {name: value for name, value in words.items() if name != "project"}
    export = {name: str(values.pop(name)) for name in OF_EXPORTS & values.keys()}
    spec = spec_from_json(row["spec"]).filled(values)
    refuse_inside(spec)
    return spec, export


def _wanted(request: Request, backend: OverTheWire, slug: str) -> Wanted:
    words = dict(request.query_params)
    row = found(backend, slug, words)
    spec, export = filled(row, words)
    what = export.pop("what", "originals")
    if what not in KINDS:
        raise BadQuery(f"one exports {', '.join(KINDS)}.{near(what, KINDS)}")
    options = export if what == "slices" else {}
    return Wanted(spec, what, options, row["slug"])


def _told(
    backend: OverTheWire, row: RowData, words: Mapping[str, str]
) -> dict[str, Any]:
    spec, export = filled(row, words)
    told = _short(row) | {"query": spec.to_json(), "export": export}
    if spec.of != "images":
        return told | {"count": backend.count(spec), "kinds": {}}
    options = {name: value for name, value in export.items() if name != "what"}
    return told | exports.estimate(backend, spec, options)


def _short(row: RowData) -> dict[str, Any]:
    kept = ("id", "slug", "title", "description", "parameters", "project_id")
    return {name: row[name] for name in kept}
