"""Run a node or a flow over what an address of the front page finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from theatrum.catalog.errors import BadQuery, CatalogError
from theatrum.catalog.query.spec import Q, Spec
from theatrum.node import NodeError
from theatrum.nodes.catalog import all_nodes

from hub.forms import own_xsrf
from hub.signin import Person
from services.catalog.api import listing, rights, work
from services.catalog.api.here import Here, Service
from services.catalog.pages import browse
from services.catalog.pages.acting import Actor, Fields, Form, Looker, one
from services.catalog.pages.rendering import page

router = APIRouter(include_in_schema=False)
DO = "_do"
"""The word of the address that says what is to be done: `node:NAME` or `flow:ID`."""


@dataclass(frozen=True)
class Input:
    """One field of the form; made of a parameter's JSON schema."""

    name: str
    title: str
    hint: str
    kind: str
    """select, checkbox, number, text or json"""
    value: str
    choices: Sequence[str] = ()
    bounds: Mapping[str, Any] | None = None


@router.get("/run")
def run_page(request: Request, service: Here, visitor: Looker) -> Response:
    """The form for what the address finds."""
    words = dict(request.query_params)
    return _page(request, service, visitor, words, words.pop(DO, ""))


@router.post("/run")
def order(request: Request, service: Here, visitor: Actor, form: Form) -> Response:
    """Order the batch, and go to its page."""
    words = dict(parse_qsl(one(form, "words")))
    do = one(form, DO)
    right = rights.Right(visitor, rights.RUN)
    try:
        kind, _, key = do.partition(":")
        inputs = _inputs(service, visitor, do)
        said: dict[str, Any] = {
            "query": _spec(words).to_json(),
            "project": one(form, "project") or None,
            "name": one(form, "name"),
            "params": _params(inputs, form),
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
            request, service, visitor, words, do, form=form, problem=str(problem)
        )
    batch = answer.headers["Location"].rpartition("/")[2]
    return RedirectResponse(f"{service.prefix}batches/{batch}", 303)


def _page(
    request: Request,
    service: Service,
    visitor: Person,
    words: Mapping[str, str],
    do: str,
    *,
    form: Fields | None = None,
    problem: str = "",
) -> Response:
    backend = rights.Right(visitor, rights.READ).backend(service)
    with service.database.reading() as session:
        projects = sorted(rights.Right(visitor, rights.RUN).projects(session))
    try:
        browse.refuse_unknown(dict(words))
        count = backend.count(_spec(words))
        inputs = _inputs(service, visitor, do)
    except CatalogError as err:
        detail = f"This cannot be run: {err}"
        return page(service, visitor, "absent.html", status=400, detail=detail)
    nodes = all_nodes()
    flows = backend.rows(Spec("flows", (Q(),), order=("name",), limit=200))
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
        most=work.MOST_ITEMS,
        projects=projects,
        nodes=[(f"node:{name}", nodes[name].title) for name in work.OFFERED],
        flows=[(f"flow:{row['id']}", row["name"]) for row in flows],
        do=do,
        title=title,
        about=about,
        inputs=inputs,
        typed={name: values[0] for name, values in (form or {}).items()},
        is_sent=form is not None,
        problem=problem,
    )


def _spec(words: Mapping[str, str]) -> Spec:
    from dataclasses import replace

    asked = {
        name: value
        for name, value in words.items()
        if value and name not in {"cursor", "fields", "limit", "expand", "format"}
    }
    return replace(listing.spec_of("images", asked.items()), order=(), values=())


def _about(do: str, flows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    kind, _, key = do.partition(":")
    if kind == "node" and key in work.OFFERED:
        node = all_nodes()[key]
        return node.title, (node.__doc__ or "").strip().partition("\n\n")[0]
    for row in flows:
        if kind == "flow" and row["id"] == key:
            return row["name"], row["description"]
    return "", ""


def _inputs(service: Service, visitor: Person, do: str) -> Sequence[Input]:
    """The form of what is to be done; raises BadQuery for what is not there."""
    kind, _, key = do.partition(":")
    if not do:
        return ()
    if kind == "node" and key in work.OFFERED:
        schema = all_nodes()[key].parameters.get("properties", {})
        return [_input(name, said) for name, said in schema.items()]
    if kind == "flow":
        backend = rights.Right(visitor, rights.READ).backend(service)
        rows = backend.rows(Spec("flows", (Q(id=key),)))
        if rows:
            told = rows[0]["graph"].get("parameters", {})
            return [_input(name, said) for name, said in told.items()]
    raise BadQuery("there is nothing of that name to run")


def _input(name: str, said: Mapping[str, Any]) -> Input:
    """A field for a parameter; what no simple field can hold is typed as JSON."""
    usual = said.get("default")
    ways = [one for one in said.get("anyOf", [said]) if one.get("type") != "null"]
    only = ways[0] if len(ways) == 1 else {}
    kind = str(only.get("type", "")) or _kind_of(usual)
    if "enum" in only:
        field = "select"
    else:
        field = {
            "boolean": "checkbox",
            "integer": "number",
            "number": "number",
            "string": "text",
        }.get(kind, "json")
    bounds = {
        html: only[name]
        for html, name in (("min", "minimum"), ("max", "maximum"))
        if name in only
    }
    bounds["step"] = 1 if kind == "integer" else "any"
    text = json.dumps(usual) if field == "json" and usual is not None else usual
    return Input(
        name=name,
        title=str(said.get("title", name)),
        hint=str(said.get("description", "")),
        kind=field,
        value="" if text is None else str(text),
        choices=[str(one) for one in only.get("enum", ())],
        bounds=bounds,
    )


def _kind_of(usual: object) -> str:
    match usual:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
    return ""


def _params(inputs: Sequence[Input], form: Fields) -> dict[str, Any]:
    """The parameters as typed; what is left empty is as usual. Raises BadQuery."""
    said: dict[str, Any] = {}
    for field in inputs:
        text = one(form, f"p.{field.name}")
        if field.kind == "checkbox":
            said[field.name] = bool(text)
        elif not text:
            continue
        elif field.kind in ("number", "json"):
            try:
                said[field.name] = json.loads(text)
            except ValueError as err:
                raise BadQuery(f"{field.title} cannot be read: {text}") from err
        else:
            said[field.name] = text
    return said
