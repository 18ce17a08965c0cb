"""The generic routes: every resource listed, looked at, made, changed, deleted.

No `from __future__ import annotations` here: what a route takes is made at the start,
from the tables, so that its annotations are values.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadQuery, NotFound
from theatrum.catalog.query import paging
from theatrum.catalog.query.fields import RESOURCE_OF, RESOURCES, table_of, ways_from
from theatrum.catalog.query.spec import Q, Spec

from services.catalog.api import images, listing, resources, tables_out
from services.catalog.api.here import Here
from services.catalog.api.rights import ANNOTATE, Annotating, Reading, Writing
from services.catalog.api.tagged import refuse_outdated, tagged
from services.catalog.api.wire import OverTheWire

Format = Literal["json", "csv", "parquet"]
Key = Annotated[str, Path(max_length=64)]
LOOKUPS = {
    "name": "lookups",
    "in": "query",
    "required": False,
    "style": "form",
    "explode": True,
    "description": "Conditions in the words of the query language, such as "
    "`sample__name__icontains=liver` or `spacing__lte=1.0`",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
"""How OpenAPI says that an address may carry words that no list could name."""


def router() -> APIRouter:
    """All generic routes."""
    made = APIRouter()
    for resource in resources.listed():
        _add_list(made, resource)
        # Images have a way of their own, and what links two rows has no id.
        if resource != "images" and "id" in table_of(resource).c:
            _add_details(made, resource)
    for resource in resources.written():
        _add_writing(made, resource)
    return made


def _add_list(router: APIRouter, resource: str) -> None:
    title = RESOURCES[resource].replace("_", " ")

    def list_rows(
        request: Request,
        service: Here,
        right: Reading,
        limit: Annotated[int, Query(ge=1, le=listing.MOST)] = listing.USUAL,
        cursor: Annotated[str | None, Query(max_length=4000)] = None,
        sort: Annotated[str | None, Query(max_length=400)] = None,  # noqa: ARG001
        fields: Annotated[str | None, Query(max_length=2000)] = None,  # noqa: ARG001
        expand: Annotated[str | None, Query(max_length=400)] = None,
        format: Format | None = None,
    ) -> Response:
        backend = right.backend(service)
        spec = listing.spec_of(resource, request.query_params.multi_items())
        rows, following = paging.page(backend, spec, limit=limit, cursor=cursor)
        if resource == "images" and not spec.values:
            rows = images.presented(service, backend, rows)
        if expand:
            rows = [_expanded(backend, resource, row, expand) for row in rows]
        wanted = format or tables_out.accepted(request.headers.get("Accept", ""))
        if wanted != "json":
            return tables_out.answer(request, resource, rows, wanted, following)
        return tagged(request, {"items": rows, "next": following})

    router.add_api_route(
        f"/{resource}",
        list_rows,
        methods=["GET"],
        summary=f"List each {title} that you may see",
        operation_id=f"list_{resource}",
        tags=[resource],
        response_model=None,
        responses={
            200: {
                "model": resources.page_model(resource),
                "content": {"text/csv": {}, "application/vnd.apache.parquet": {}},
            },
            304: {"description": "As it was"},
        },
        openapi_extra={"parameters": [LOOKUPS]},
    )


def _add_details(router: APIRouter, resource: str) -> None:
    title = RESOURCES[resource].replace("_", " ")

    def get_row(
        request: Request,
        service: Here,
        right: Reading,
        key: Key,
        expand: Annotated[str | None, Query(max_length=400)] = None,
    ) -> Response:
        backend = right.backend(service)
        row = row_of(backend, resource, key)
        if expand:
            row = _expanded(backend, resource, row, expand)
        return tagged(request, row)

    router.add_api_route(
        f"/{resource}/{{key}}",
        get_row,
        methods=["GET"],
        summary=f"One {title}",
        operation_id=f"get_{resource}",
        tags=[resource],
        response_model=None,
        responses={
            200: {"model": resources.row_model(resource)},
            304: {"description": "As it was"},
        },
    )


def _add_writing(router: APIRouter, resource: str) -> None:
    title = RESOURCES[resource].replace("_", " ")
    # Any: an annotation that is chosen at the start
    writer: Any = (
        Annotating if resources.scope_to_write(resource) == ANNOTATE else Writing
    )
    new, changed = resources.new_model(resource), resources.change_model(resource)
    shown = {"model": resources.row_model(resource)}

    def make_row(
        request: Request,
        service: Here,
        right: writer,
        body: new,  # type: ignore[valid-type]
    ) -> Response:
        row = right.backend(service).create(resource, _said(body))
        answer = tagged(request, row, status=201)
        answer.headers["Location"] = f"{service.api}/{resource}/{row['id']}"
        return answer

    def change_row(
        request: Request,
        service: Here,
        right: writer,
        key: Key,
        body: changed,  # type: ignore[valid-type]
    ) -> Response:
        backend = right.backend(service)
        refuse_outdated(request, row_of(backend, resource, key))
        return tagged(request, backend.change(resource, key, _said(body)))

    def delete_row(service: Here, right: writer, key: Key) -> Response:
        right.backend(service).remove(resource, key)
        return Response(status_code=204)

    if resource in resources.made():
        router.add_api_route(
            f"/{resource}",
            make_row,
            methods=["POST"],
            summary=f"Make {_one(title)}",
            operation_id=f"make_{resource}",
            tags=[resource],
            status_code=201,
            response_model=None,
            responses={201: shown},
        )
    router.add_api_route(
        f"/{resource}/{{key}}",
        change_row,
        methods=["PATCH"],
        summary=f"Change {_one(title)}",
        operation_id=f"change_{resource}",
        tags=[resource],
        response_model=None,
        responses={200: shown},
    )
    router.add_api_route(
        f"/{resource}/{{key}}",
        delete_row,
        methods=["DELETE"],
        summary=f"Delete {_one(title)}",
        operation_id=f"delete_{resource}",
        tags=[resource],
        status_code=204,
        response_model=None,
    )


def row_of(backend: OverTheWire, resource: str, key: str) -> RowData:
    """A row by its id; raises NotFound."""
    found = backend.rows(Spec(resource, (Q(id=key),)))
    if not found:
        raise NotFound("there is nothing here that you may see")
    return found[0]


# Any here: JSON
def _one(title: str) -> str:
    return f"an {title}" if title[0] in "aeiou" else f"a {title}"


def _said(body: BaseModel) -> dict[str, Any]:
    """What a request says; what it leaves out stays as it is."""
    return body.model_dump(exclude_unset=True)


def _expanded(
    backend: OverTheWire, resource: str, row: Mapping[str, Any], expand: str
) -> RowData:
    """A row with the rows that it points at, such as `sample,subject`."""
    ways = ways_from(RESOURCES[resource])
    wider = dict(row)
    for name in expand.split(","):
        over = ways.get(name.strip())
        if over is None or over.many:
            known = sorted(one for one, way in ways.items() if not way.many)
            raise BadQuery(f"expand takes {', '.join(known)}, not {name!r}")
        here = row.get(over.here)
        target = Spec(RESOURCE_OF[over.target], (Q(**{over.there: here}),))
        found = backend.rows(target) if here is not None else []
        wider[over.name] = found[0] if found else None
    return wider
