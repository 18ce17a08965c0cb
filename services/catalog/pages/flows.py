"""The pages of flows: all of them, one as a picture with its steps, and the editor."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from theatrum.catalog.errors import BadQuery, CatalogError
from theatrum.catalog.flows.graph import Flow
from theatrum.catalog.flows.picture import picture
from theatrum.catalog.flows.recipes import RECIPES
from theatrum.catalog.flows.running import save_flow
from theatrum.catalog.flows.validation import COMPARISONS
from theatrum.catalog.query.spec import Q, Spec
from theatrum.nodes.catalog import all_nodes

from hub.forms import own_xsrf
from hub.signin import Person
from services.catalog.api import rights, work
from services.catalog.api.here import Here, Service
from services.catalog.api.wire import OverTheWire
from services.catalog.pages import editing
from services.catalog.pages.acting import Actor, Fields, Form, Looker, one
from services.catalog.pages.batches import told_batches
from services.catalog.pages.editing import Draft, Graph
from services.catalog.pages.fields import inputs
from services.catalog.pages.rendering import page
from services.catalog.pages.run import placeholders

router = APIRouter(include_in_schema=False)
SHOWN = 200
RAN = 8
"""The latest batches of a flow that its page shows."""


@router.get("/flows")
def flows_page(service: Here, visitor: Looker) -> Response:
    """The flows that the visitor may see, the newest version of each."""
    backend = rights.Right(visitor, rights.READ).backend(service)
    order = ("name", "-created_at")
    rows = backend.rows(Spec("flows", (Q(),), order=order, limit=SHOWN))
    newest: dict[tuple[object, str], dict[str, Any]] = {}
    for row in rows:
        newest.setdefault((row["project_id"], row["name"]), dict(row))
    return page(
        service,
        visitor,
        "flows.html",
        flows=[row | _seen(row) for row in newest.values()],
        projects=_projects(backend),
        recipes=sorted(_recipes()),
        may_edit=bool(_writable(service, visitor)),
    )


@router.get("/flows/edit")
def editor_page(request: Request, service: Here, visitor: Looker) -> Response:
    """The editor, with a flow that is there, a recipe, or nothing yet."""
    words = request.query_params
    try:
        graph = _begun(service, visitor, words.get("from", ""))
    except CatalogError as err:
        return page(service, visitor, "absent.html", status=404, detail=str(err))
    return _editor(request, service, visitor, Draft(graph))


@router.post("/flows/edit")
def edit(request: Request, service: Here, visitor: Actor, form: Form) -> Response:
    """Change the flow as the pressed button says; or keep it."""
    act, _, at = one(form, "act").partition(":")
    focus = -1
    try:
        draft = editing.read(form)
    except CatalogError as err:
        return page(service, visitor, "absent.html", status=422, detail=str(err))
    try:
        if act == "add":
            focus = editing.add(draft, one(form, "what"))
        elif act == "remove":
            editing.remove(draft, int(at) if at.isdigit() and len(at) < 4 else -1)
        elif act == "save" and not draft.faults:
            key = _kept(service, visitor, draft.graph, one(form, "project"))
            return RedirectResponse(f"{service.prefix}flows/{key}?done=kept", 303)
    except CatalogError as err:
        if act != "save":  # what keeps a flow from being kept is listed anyway
            draft.faults.append(str(err))
    return _editor(request, service, visitor, draft, form=form, focus=focus, act=act)


@router.get("/flows/{key}")
def flow_page(request: Request, service: Here, visitor: Looker, key: str) -> Response:
    """One flow, where the visitor may see it."""
    right = rights.Right(visitor, rights.READ)
    backend = right.backend(service)
    rows = backend.rows(Spec("flows", (Q(id=key),)))
    if not rows:
        detail = "There is no flow here, or you may not see it."
        return page(service, visitor, "absent.html", status=404, detail=detail)
    row = rows[0]
    versions = backend.rows(
        Spec(
            "flows",
            (Q(name=row["name"], project_id=row["project_id"]),),
            order=("-created_at",),
            limit=20,
        )
    )
    ran = backend.rows(
        Spec("batches", (Q(flow_id=key),), order=("-created_at",), limit=RAN)
    )
    graph = row["graph"]
    problems = work.wrong(graph)
    projects = _projects(backend)
    return page(
        service,
        visitor,
        "flow.html",
        flow=row | _seen(row),
        project=projects.get(row["project_id"], ""),
        drawn=_drawn(
            graph, {step["key"]: f"#{step['key']}" for step in graph["steps"]}
        ),
        steps=[_step(graph, step) for step in graph["steps"]],
        asked=inputs(placeholders(graph)),
        problems=problems,
        versions=versions,
        batches=told_batches(service, ran),
        may_edit=bool(_writable(service, visitor)),
        json=json.dumps(graph, indent=1, ensure_ascii=False),
        done=request.query_params.get("done", ""),
    )


def _editor(
    request: Request,
    service: Service,
    visitor: Person,
    draft: Draft,
    *,
    form: Fields | None = None,
    focus: int = -1,
    act: str = "",
) -> Response:
    graph = draft.graph
    # While it is made it may have no name yet; to be kept it needs one.
    named = graph if act == "save" else graph | {"name": graph["name"] or "unnamed"}
    problems = [*draft.faults, *(work.wrong(named) if draft.steps else ())]
    writable = _writable(service, visitor)
    if not writable:
        detail = (
            "You edit no project that a flow could be kept in: a maintainer of a "
            "project gives your group the role editor."
        )
        return page(service, visitor, "absent.html", status=403, detail=detail)
    known = all_nodes()
    return page(
        service,
        visitor,
        "flow_edit.html",
        status=422 if draft.faults or (act == "save" and problems) else 200,
        xsrf=own_xsrf(request),
        graph=graph,
        held=json.dumps(graph, ensure_ascii=False, separators=(",", ":")),
        drawn=_drawn(
            named, {step["key"]: f"#s{at}" for at, step in enumerate(draft.steps)}
        )
        if draft.steps
        else "",
        cards=[*editing.cards(draft)],
        sources=[source for source, _ in editing.sources(draft)],
        outputs=[*graph["outputs"].items(), ("", "")],
        nodes=[(f"node:{name}", known[name].title) for name in work.OFFERED],
        comparisons=COMPARISONS,
        problems=problems,
        projects=writable,
        project=one(form or {}, "project") or request.query_params.get("project", ""),
        version=_next_version(service, visitor, graph["name"]),
        focus=focus,
        tried=act == "save",
    )


def _begun(service: Service, visitor: Person, begun: str) -> Graph:
    """What the editor begins with; raises BadQuery."""
    kind, _, key = begun.partition(":")
    if not begun:
        return editing.empty("")
    if kind == "recipe" and key in _recipes():
        return _recipes()[key]().to_json()
    backend = rights.Right(visitor, rights.READ).backend(service)
    rows = backend.rows(Spec("flows", (Q(id=begun),)))
    if not rows:
        raise BadQuery("There is no flow to begin with, or you may not see it.")
    graph: Graph = editing.empty("") | rows[0]["graph"]
    return graph


def _recipes() -> dict[str, Callable[[], Flow]]:
    """The recipes that say all of a flow by themselves."""
    found: dict[str, Callable[[], Flow]] = {}
    for name, recipe in RECIPES.items():
        made = cast(Callable[[], Flow], recipe)
        parameters = inspect.signature(made).parameters.values()
        if all(one.default is not one.empty for one in parameters):
            found[name] = made
    return found


def _kept(service: Service, visitor: Person, graph: Graph, project: str) -> str:
    """Keep a flow as a new version of its name; raises CatalogError."""
    version = _next_version(service, visitor, graph["name"])
    flow = work.checked(graph | {"version": version})
    backend = work.local(service, rights.Right(visitor, rights.RUN))
    return save_flow(backend, flow, project=project or None)


def _next_version(service: Service, visitor: Person, name: str) -> str:
    backend = rights.Right(visitor, rights.READ).backend(service)
    rows = backend.rows(Spec("flows", (Q(name=name),), values=("version",)))
    numbers = [
        int(row["version"])
        for row in rows
        if row["version"].isdigit() and len(row["version"]) < 9
    ]
    return str(max(numbers, default=0) + 1)


def _writable(service: Service, visitor: Person) -> list[str]:
    with service.database.reading() as session:
        return sorted(rights.Right(visitor, rights.RUN).projects(session))


def _projects(backend: OverTheWire) -> dict[object, str]:
    return {row["id"]: row["name"] for row in backend.rows(Spec("projects"))}


# Any: a flow's row
def _seen(row: Mapping[str, Any]) -> dict[str, Any]:
    graph = row["graph"]
    kinds = [step.get("kind", "node") for step in graph.get("steps", ())]
    return {
        "shown": row["title"] or row["name"],
        "n_steps": len(kinds),
        "n_reviews": kinds.count("review"),
    }


def _drawn(graph: Graph, links: Mapping[str, str]) -> Markup | str:
    """The picture of a flow; of one that cannot be read nothing."""
    try:
        flow = Flow.from_json(graph)
    except CatalogError:
        return ""
    svg = picture(flow, links=links)
    return Markup(svg)  # noqa: S704 - drawn by the library, which escapes names


def _step(graph: Graph, step: Mapping[str, Any]) -> dict[str, Any]:
    """A step as the page of its flow tells it."""
    name = str(step.get("node", "")).partition("@")[0].rpartition(":")[2]
    node = all_nodes().get(name)
    when = step.get("when")
    return {
        "key": step["key"],
        "what": {"review": "a person looks", "external": f"outside: {name}"}.get(
            step.get("kind", "node"), node.title if node is not None else name
        ),
        "title": step.get("title", ""),
        "params": {
            one: "asked at each run"
            if isinstance(value, Mapping) and set(value) == {"$"}
            else json.dumps(value, ensure_ascii=False)
            for one, value in step.get("params", {}).items()
        },
        "takes": [
            source
            for source, target in graph.get("edges", ())
            if target.rpartition(".")[0] == step["key"]
        ],
        "over": step.get("over") == "items",
        "when": " ".join(str(one) for one in when) if when else "",
    }
