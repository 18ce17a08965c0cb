"""Run a node or a flow over what an address of the front page finds.

The form is made of the parameters' JSON schema. It says before the start how many items
there are: one for each image, or one for all images of a subject, a sample, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from theatrum.catalog.errors import BadQuery, CatalogError
from theatrum.catalog.query.spec import Q, Spec
from theatrum.node import Node, NodeError
from theatrum.nodes.catalog import all_nodes

from hub.forms import own_xsrf
from hub.signin import Person
from services.catalog.api import listing, rights, work
from services.catalog.api.here import Here, Service
from services.catalog.api.wire import OverTheWire
from services.catalog.pages import browse, fields
from services.catalog.pages.acting import Actor, Fields, Form, Looker, one
from services.catalog.pages.fields import Input
from services.catalog.pages.rendering import page

router = APIRouter(include_in_schema=False)
DO = "_do"
"""The word of the address that says what is to be done: `node:NAME` or `flow:ID`."""
BY = "_by"
"""The word of the address that says which images are one item."""
GROUPS: Final[Mapping[str, str]] = {
    "subject_id": "subject",
    "acquisition__visit_id": "visit",
    "sample_id": "sample",
    "sample__experiment_id": "experiment",
    "acquisition_id": "acquisition",
    "project_id": "project",
}
"""By which columns images are put together, and the word for each."""
_PICTURES: Final = ("array", "image", "volume")


@router.get("/run")
def run_page(request: Request, service: Here, visitor: Looker) -> Response:
    """The form for what the address finds."""
    words = dict(request.query_params)
    do, by = words.pop(DO, ""), words.pop(BY, "")
    return _page(request, service, visitor, words, do, by)


@router.post("/run")
def order(request: Request, service: Here, visitor: Actor, form: Form) -> Response:
    """Order the batch, and go to its page."""
    words = dict(parse_qsl(one(form, "words")))
    do, by = one(form, DO), one(form, BY)
    right = rights.Right(visitor, rights.RUN)
    try:
        kind, _, key = do.partition(":")
        said: dict[str, Any] = {
            "query": _spec(words).to_json(),
            "project": one(form, "project") or None,
            "name": one(form, "name"),
            "params": fields.typed(_inputs(service, visitor, do), form),
            "by": by if by in GROUPS else None,
            "refresh": bool(one(form, "refresh")),
            "on_error": one(form, "on_error") or "continue",
        }
        if kind == "node":
            body = work.NodeOrder(node=key, **said)
            answer = work.order_batch(request, service, right, body)
        elif kind == "flow":
            flow = work.FlowOrder(**said)
            answer = work.order_flow(request, service, right, key, flow)
        else:
            raise CatalogError("Choose what is to be done.")
    except (CatalogError, NodeError, ValidationError) as err:
        problem = "A field does not fit." if isinstance(err, ValidationError) else err
        return _page(
            request, service, visitor, words, do, by, form=form, problem=str(problem)
        )
    batch = answer.headers["Location"].rpartition("/")[2]
    return RedirectResponse(f"{service.prefix}batches/{batch}", 303)


def _page(
    request: Request,
    service: Service,
    visitor: Person,
    words: Mapping[str, str],
    do: str,
    by: str,
    *,
    form: Fields | None = None,
    problem: str = "",
) -> Response:
    backend = rights.Right(visitor, rights.READ).backend(service)
    with service.database.reading() as session:
        projects = sorted(rights.Right(visitor, rights.RUN).projects(session))
    try:
        browse.refuse_unknown(dict(words))
        spec = _spec(words)
        count = backend.count(spec)
        wanted = _inputs(service, visitor, do)
        items, apart = _items(backend, spec, count, do, by)
    except CatalogError as err:
        detail = f"This cannot be run: {err}"
        return page(service, visitor, "absent.html", status=400, detail=detail)
    nodes = all_nodes()
    flows = backend.rows(Spec("flows", (Q(),), order=("name", "version"), limit=200))
    title, about = _about(do, flows)
    return page(
        service,
        visitor,
        "run.html",
        status=422 if problem else 200,
        xsrf=own_xsrf(request),
        words=urlencode(words),
        back=browse.href(words),
        asked=words,
        count=count,
        items=items,
        apart=apart,
        group=GROUPS.get(by, "image"),
        most=work.MOST_ITEMS,
        projects=projects,
        nodes=[(f"node:{name}", nodes[name].title) for name in runnable()],
        flows=[
            (f"flow:{row['id']}", f"{row['title'] or row['name']} {row['version']}")
            for row in flows
        ],
        groups=[("", "image"), *GROUPS.items()] if _may_group(do) else [],
        is_joining=_takes_many(do),
        do=do,
        by=by,
        title=title,
        about=about,
        inputs=wanted,
        typed={name: values[0] for name, values in (form or {}).items()},
        is_sent=form is not None,
        problem=problem,
    )


def runnable() -> list[str]:
    """The nodes of the palette that need nothing but images."""
    known = all_nodes()
    return [name for name in work.OFFERED if _is_runnable(known[name])]


def _is_runnable(node: Node[..., Any]) -> bool:
    needed = [port for port in node.inputs.values() if not port.optional]
    given = needed or list(node.inputs.values())
    return bool(given) and len(needed) <= 1 and given[0].kind in _PICTURES


def _takes_many(do: str) -> bool:
    """Whether what is to be done is a node that puts several images together."""
    kind, _, key = do.partition(":")
    if kind != "node" or key not in work.OFFERED:
        return False
    return any(port.many for port in all_nodes()[key].inputs.values())


def _may_group(do: str) -> bool:
    return do.startswith("flow:") or _takes_many(do)


def _items(
    backend: OverTheWire, spec: Spec, count: int, do: str, by: str
) -> tuple[int, int]:
    """How many items there will be; and how many images have nothing to go by."""
    if not _may_group(do) or by not in GROUPS:
        return (min(count, 1) if _takes_many(do) else count), 0
    groups = backend.count(replace(spec, values=(by,), distinct=True))
    without = replace(spec, where=(*spec.where, Q(**{f"{by}__isnull": True})))
    return groups, backend.count(without)


def _spec(words: Mapping[str, str]) -> Spec:
    asked = {
        name: value
        for name, value in words.items()
        if value and name not in {"cursor", "fields", "limit", "expand", "format"}
    }
    return replace(listing.spec_of("images", asked.items()), order=(), values=())


def _about(do: str, flows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    kind, _, key = do.partition(":")
    if kind == "node" and key in work.OFFERED:
        return all_nodes()[key].title, described(all_nodes()[key])
    for row in flows:
        if kind == "flow" and row["id"] == key:
            return row["title"] or row["name"], row["description"]
    return "", ""


def described(node: Node[..., Any]) -> str:
    """What a node does, without its parameters: the form tells these."""
    return (node.__doc__ or "").partition("Parameters\n")[0].strip()


def _inputs(service: Service, visitor: Person, do: str) -> Sequence[Input]:
    """The form of what is to be done; raises BadQuery for what is not there."""
    kind, _, key = do.partition(":")
    if not do:
        return ()
    if kind == "node" and key in work.OFFERED:
        return fields.inputs(all_nodes()[key].parameters.get("properties", {}))
    if kind == "flow":
        backend = rights.Right(visitor, rights.READ).backend(service)
        rows = backend.rows(Spec("flows", (Q(id=key),)))
        if rows:
            return fields.inputs(placeholders(rows[0]["graph"]))
    raise BadQuery("there is nothing of that name to run")


# Any: a flow's JSON
def placeholders(graph: Mapping[str, Any]) -> dict[str, fields.Schema]:
    """The schemas of a flow's placeholders: of the parameters that they stand for."""
    told: Mapping[str, Any] = graph.get("parameters", {})
    known = all_nodes()
    found: dict[str, fields.Schema] = {}
    for step in graph.get("steps", ()):
        address = str(step.get("node", "")).partition("@")[0]
        node = known.get(address.rpartition(":")[2])
        schema = node.parameters.get("properties", {}) if node is not None else {}
        for name, value in step.get("params", {}).items():
            if isinstance(value, Mapping) and set(value) == {"$"}:
                own: dict[str, Any] = dict(schema.get(name, {}))
                own.pop("title", None)
                mine = told.get(str(value["$"]), {})
                found.setdefault(str(value["$"]), own | dict(mine))
    return found
