"""Analyses over HTTP: what can be run, flows, batches, and what became of the runs.

A batch that is ordered here is written down with its items and done by the catalogue's
worker (`services/catalog/worker.py`), which goes on with it after whatever stopped it.
Only nodes that ship can be named: code of one's own runs in one's own notebook.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from theatrum.catalog.engine.batch import Batch, map_query, open_batch
from theatrum.catalog.engine.ledger import FINAL
from theatrum.catalog.engine.reproducing import python_of
from theatrum.catalog.errors import BadQuery, NotFound, near
from theatrum.catalog.flows.graph import BadFlow, Flow
from theatrum.catalog.flows.running import answer, reviews, run_flow, save_flow
from theatrum.catalog.flows.validation import malformed, problems
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.lazy import Query as CatalogQuery
from theatrum.catalog.query.spec import Q, Spec, spec_from_json
from theatrum.catalog.record import DERIVED, recording
from theatrum.catalog.rows import maker
from theatrum.catalog.tables import Batch as BatchRow
from theatrum.catalog.tables import Run
from theatrum.nodes.catalog import NODES, all_nodes

from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Annotating, Cancelling, Reading, Right, Running
from services.catalog.api.tagged import tagged
from services.catalog.api.wire import refuse_inside
from services.catalog.errors import ConflictError
from services.catalog.going_on import BY_SERVICE, want_again

router = APIRouter(tags=["work"])
Key = Annotated[str, Path(max_length=64)]

NOT_HERE = frozenset({"run_notebook", "run_container", "run_bids_app"})
"""Nodes that run code which somebody brings: not under the service's account."""
OFFERED = tuple(name for name in NODES if name not in NOT_HERE)
MOST_ITEMS = 100_000


class Order(BaseModel):
    """What both kinds of orders say."""

    model_config = ConfigDict(extra="forbid")
    # Any: the query language's JSON, and a node's own parameters
    query: dict[str, Any] = Field(
        description='What it is done on: {"of": "images", "where": [...]}'
    )
    project: str | None = Field(None, max_length=64, description="Where results go")
    name: str = Field("", max_length=255)
    params: dict[str, Any] = {}
    by: str | None = Field(
        None, max_length=200, description="Images of equal value are one item"
    )
    on_error: str = Field("continue", pattern="^(continue|stop|threshold)$")
    threshold: float = Field(0.1, ge=0, le=1, description="Share, for on_error")
    retries: int = Field(2, ge=0, le=10)
    isolate: bool = Field(False, description="Each run in a process of its own")
    timeout_s: float = Field(0.0, ge=0, le=604_800, description="For a run; 0 never")
    refresh: bool = Field(False, description="Do all anew, whatever was done before")


class NodeOrder(Order):
    """A node over a query."""

    node: str = Field(max_length=200, description="A name of the palette")
    kind: str = Field(
        "",
        pattern=f"^({'|'.join(sorted(DERIVED))})?$",
        description="Of the images that are made",
    )


class FlowOrder(Order):
    """A flow over a query."""

    anew: list[Annotated[str, Field(max_length=128)]] = Field(
        [], max_length=1000, description="Steps done anew, with what follows"
    )
    keep: str | list[Annotated[str, Field(max_length=128)]] | None = Field(
        None, max_length=1000, description="Which arrays stay, in the flow's place"
    )


class GraphOrder(FlowOrder):
    """A flow that is not kept, over a query."""

    # Any: see docs/catalog_flows.md
    graph: dict[str, Any]


class NewFlow(BaseModel):
    """A flow to keep."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(max_length=64)
    # Any: see docs/catalog_flows.md
    graph: dict[str, Any]


class Answer(BaseModel):
    """A person's answer to a review."""

    model_config = ConfigDict(extra="forbid")
    approve: bool
    comment: str = Field("", max_length=10_000)


@router.get("/palette")
def get_palette(
    request: Request,
    right: Reading,  # noqa: ARG001 - asked for its right alone
) -> Response:
    """The nodes that can be run here, with their ports and the form of parameters."""
    known = all_nodes()
    said = [
        {
            "name": name,
            "title": known[name].title,
            "version": known[name].version,
            "description": inspect.cleandoc(known[name].__doc__ or ""),
            "inputs": {
                port: {"kind": one.kind, "many": one.many}
                for port, one in known[name].inputs.items()
            },
            "outputs": {
                port: {"kind": one.kind} for port, one in known[name].outputs.items()
            },
            "parameters": known[name].parameters,
        }
        for name in OFFERED
    ]
    return tagged(request, {"items": said, "next": None})


@router.post("/flows", status_code=201)
def keep_flow(
    request: Request, service: Here, right: Running, body: NewFlow
) -> Response:
    """Keep a flow under its name and version; what is wrong with it is told whole."""
    backend = local(service, right)
    flow = checked(body.graph)
    key = save_flow(backend, flow, project=body.project)
    row = right.backend(service).rows(Spec("flows", (Q(id=key),)))[0]
    return tagged(request, row, status=201)


@router.post("/flows/check")
def check_flow(
    request: Request,
    right: Running,  # noqa: ARG001 - asked for its right alone
    body: Annotated[dict[str, Any], Body()],
) -> Response:
    """Every problem of a flow, each as a sentence; none of one that can run."""
    return tagged(request, {"problems": wrong(body)})


@router.post("/flows/{key}/run", status_code=202)
def order_flow(
    request: Request, service: Here, right: Running, key: Key, body: FlowOrder
) -> Response:
    """Do a flow on all that a query finds."""
    rows = right.backend(service).rows(Spec("flows", (Q(id=key),)))
    if not rows:
        raise NotFound("there is no such flow that you may see")
    flow = checked(rows[0]["graph"])
    batch = begun(local(service, right), flow, body)
    return ordered(request, service, right, batch.id, flow_id=key)


@router.post("/flows/run", status_code=202)
def order_graph(
    request: Request, service: Here, right: Running, body: GraphOrder
) -> Response:
    """Do a flow that is not kept on all that a query finds."""
    batch = begun(local(service, right), checked(body.graph), body)
    return ordered(request, service, right, batch.id)


@router.post("/batches", status_code=202)
def order_batch(
    request: Request, service: Here, right: Running, body: NodeOrder
) -> Response:
    """Do a node on all that a query finds."""
    if body.node not in OFFERED:
        raise NotFound(f"no node here is called {body.node}.{near(body.node, OFFERED)}")
    query = asked(local(service, right), body)
    node = all_nodes()[body.node]
    node.checked_parameters(
        {name: value for name, value in body.params.items() if name not in node.inputs}
    )
    batch = map_query(
        query,
        node,
        engine="sync",
        by=body.by,
        project=body.project,
        name=body.name,
        kind=body.kind,
        start=False,
        parameters=with_images(query, body.params),
        **rules(body),
    )
    return ordered(request, service, right, batch.id)


@router.post("/batches/{key}/cancel", status_code=202)
def cancel_batch(
    request: Request, service: Here, right: Cancelling, key: Key
) -> Response:
    """Stop a batch: running nodes are told; what ended stays."""
    batch = open_batch(local(service, right), found(service, right, key)["id"])
    batch.cancel()
    return tagged(request, found(service, right, key), status=202)


@router.post("/batches/{key}/retry", status_code=202)
def retry_batch(request: Request, service: Here, right: Running, key: Key) -> Response:
    """Do once more what failed, was cancelled or skipped."""
    row = found(service, right, key)
    if row["engine"].get("by") != BY_SERVICE:
        raise ConflictError("this batch is done by a notebook: retry it there")
    backend = local(service, right)
    batch = open_batch(backend, row["id"])
    batch.again()
    with recording(service.database, right.person.name) as book:
        book.change(book.get(BatchRow, row["id"]), state="queued", ended_at=None)
    return tagged(request, found(service, right, key), status=202)


@router.get("/batches/{key}/matrix")
def get_matrix(
    request: Request,
    service: Here,
    right: Reading,
    key: Key,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[str, Query(max_length=128)] = "",
) -> Response:
    """Of each item the state of each step: done, failed, or not there yet."""
    row = found(service, right, key)
    return tagged(request, matrix(service, row["id"], limit, after))


@router.get("/batches/{key}/reviews")
def get_reviews(request: Request, service: Here, right: Reading, key: Key) -> Response:
    """What of a batch waits for a person."""
    row = found(service, right, key)
    waiting = reviews(local(service, right), row["id"])
    return tagged(request, {"items": waiting, "next": None})


@router.get("/runs/{key}/reproduce")
def reproduce_run(
    request: Request, service: Here, right: Reading, key: Key
) -> Response:
    """The node, its version, parameters and inputs, and Python that does it again."""
    backend = right.backend(service)
    run = one_run(service, right, key)
    node = next(iter(backend.rows(Spec("nodes", (Q(id=run["node_def_id"]),)))), None)
    inputs = backend.rows(Spec("run_inputs", (Q(run_id=run["id"]),)))
    return tagged(
        request,
        {
            "node": node,
            "params": run["params"],
            "inputs": inputs,
            "code_version": run["code_version"],
            "env_hash": run["env_hash"],
            "requested_by": run["requested_by"],
            "python": python_of(node, run["params"], inputs),
        },
    )


@router.post("/runs/{key}/review")
def review_run(
    request: Request, service: Here, right: Annotating, key: Key, body: Answer
) -> Response:
    """Let an item pass, or not; its batch goes on with those that passed."""
    run = one_run(service, right, key)
    backend = local(service, right)
    answer(backend, run["id"], approve=body.approve, comment=body.comment)
    with recording(service.database, right.person.name) as book:
        want_again(book, run["batch_id"])
    return tagged(request, one_run(service, right, key))


def local(service: Service, right: Right) -> LocalBackend:
    """The catalogue as the asker may use it, for work inside the service."""
    seen = right.backend(service)
    return LocalBackend(
        database=seen.database,
        files=seen.files,
        user=seen.user,
        projects=seen.projects,
        writable=seen.writable,
        on_behalf_of="catalog",
    )


def asked(backend: LocalBackend, body: Order) -> CatalogQuery[Any]:
    """The query that an order names; raises BadQuery where it finds too much."""
    spec = spec_from_json(body.query)
    # What a batch counts, and by what it puts together, is told like any answer.
    refuse_inside(spec, *filter(None, [body.by]))
    if spec.of != "images":
        raise BadQuery("work is done on images: ask for these")
    query = CatalogQuery(backend, spec, maker("images"))
    count = query.count()
    if not 0 < count <= MOST_ITEMS:
        raise BadQuery(
            f"the query finds {count} images: a batch takes 1 to {MOST_ITEMS:,}"
        )
    if body.by is not None:  # told here, and not where a batch would have failed
        backend.compiler.rows(replace(spec, values=(body.by,)))
    return query


# Any here and below: JSON, and words of `Rules`
def rules(body: Order) -> dict[str, Any]:
    """How an order wants failures taken."""
    names = ("on_error", "threshold", "retries", "isolate", "timeout_s", "refresh")
    return {name: getattr(body, name) for name in names}


def begun(backend: LocalBackend, flow: Flow, body: FlowOrder) -> Batch:
    """Write down the batch of a flow that was checked."""
    query = asked(backend, body)
    return run_flow(
        query,
        flow,
        engine="sync",
        by=body.by,
        project=body.project,
        name=body.name,
        anew=body.anew,
        keep=body.keep,
        start=False,
        parameters=with_images(query, body.params),
        **rules(body),
    )


def with_images(query: CatalogQuery[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an order; `{"$image": ID}` is the image, where the asker may see it."""
    images = CatalogQuery(query._backend, Spec("images"), maker("images"))

    def value(said: Any) -> Any:
        if isinstance(said, Mapping) and set(said) == {"$image"}:
            return images[str(said["$image"])]
        return [value(one) for one in said] if isinstance(said, list) else said

    return {name: value(said) for name, said in params.items()}


# Any: a flow's JSON
def wrong(graph: Mapping[str, Any]) -> list[str]:
    """Every problem of a flow for this service."""
    told = malformed(graph)
    if told:
        return told
    flow = Flow.from_json(graph)
    offered = _addresses()
    foreign = [
        f"the step {step.key!r}: {step.node} is no node of the palette"
        for step in flow.steps
        if step.kind == "node" and step.address not in offered
    ]
    # What is not ours is not even looked for: to import it is to run it.
    return foreign or problems(flow)


@functools.cache
def _addresses() -> frozenset[str]:
    """The addresses of what is offered, whole: a part of one may name any file."""
    known = all_nodes()
    short = {f"theatrum.nodes.catalog:{name}" for name in OFFERED}
    return frozenset(short | {str(known[name].address) for name in OFFERED})


def checked(graph: Mapping[str, Any]) -> Flow:
    """A flow that can run here; raises BadFlow with all of its problems."""
    told = wrong(graph)
    if told:
        raise BadFlow(told)
    return Flow.from_json(graph)


def ordered(
    request: Request,
    service: Service,
    right: Right,
    batch_id: str,
    *,
    flow_id: str | None = None,
) -> Response:
    """Hand a batch that was written down to the worker."""
    with recording(service.database, right.person.name) as book:
        row = book.get(BatchRow, batch_id)
        book.change(row, flow_id=flow_id, engine={**row.engine, "by": BY_SERVICE})
    answered = tagged(request, found(service, right, batch_id), status=202)
    answered.headers["Location"] = f"{service.api}/batches/{batch_id}"
    return answered


def found(service: Service, right: Right, key: str) -> dict[str, Any]:
    """A batch that the asker may do this to; raises NotFound or NotAllowed."""
    rows = right.backend(service).rows(Spec("batches", (Q(id=key),)))
    if not rows:
        raise NotFound("there is no such batch that you may see")
    right.check(service, rows[0]["project_id"])
    return rows[0]


def one_run(service: Service, right: Right, key: str) -> dict[str, Any]:
    """A run that the asker may do this to; raises NotFound or NotAllowed."""
    rows = right.backend(service).rows(Spec("runs", (Q(id=key),)))
    if not rows:
        raise NotFound("there is no such run that you may see")
    right.check(service, rows[0]["project_id"])
    return rows[0]


def matrix(
    service: Service,
    batch_id: str,
    limit: int,
    after: str,
    only: Collection[str] = (),
) -> dict[str, Any]:
    """Items by steps: the state, the run and the reason of each.

    `only`: those of the items of which a run is in one of these states.
    """
    chosen = [Run.state.in_(only)] if only else []
    items = (
        select(Run.item_key)
        .where(Run.batch_id == batch_id, Run.item_key > after, *chosen)
        .distinct()
        .order_by(Run.item_key)
        .limit(limit + 1)
    )
    with service.database.reading() as session:
        keys = list(session.scalars(items))
        shown = keys[:limit]
        rows = session.scalars(
            select(Run)
            .where(Run.batch_id == batch_id, Run.item_key.in_(shown))
            .order_by(Run.created_at)
        ).all()
    steps = list(dict.fromkeys(row.node_key for row in rows))
    cells: dict[str, dict[str, Any]] = {key: {} for key in shown}
    for row in rows:
        cells[row.item_key][row.node_key] = {
            "run": row.id,
            "state": row.state,
            "ended": row.state in FINAL,
            "reason": (row.error or {}).get("message", ""),
        }
    return {
        "steps": steps,
        "items": [{"item": key, "steps": cells[key]} for key in shown],
        "next": shown[-1] if len(keys) > limit else None,
    }
