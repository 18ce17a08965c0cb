"""The pages of batches: all of them, and one as a matrix of items by steps.

A cell leads to what its run made, and from there to where it comes from. What failed is
told in words, put together by its reasons, and done once more: all of it, or some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from sqlalchemy import func, select
from theatrum.catalog.engine.ledger import FINAL
from theatrum.catalog.engine.single import again_run
from theatrum.catalog.errors import BadQuery, CatalogError, NotFound
from theatrum.catalog.flows.graph import Flow
from theatrum.catalog.flows.picture import picture
from theatrum.catalog.flows.running import reviews
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Project, Run

from hub.signin import Person
from services.catalog.api import rights, work
from services.catalog.api.here import Here, Service
from services.catalog.errors import ConflictError
from services.catalog.export_jobs import ENGINE as EXPORT
from services.catalog.going_on import BY_SERVICE, want_again
from services.catalog.pages import following, matrices
from services.catalog.pages.acting import Actor, Fields, Form, Looker, one
from services.catalog.pages.rendering import page

router = APIRouter(include_in_schema=False)
SHOWN = 50
ROWS = 100
"""Items of a matrix on one page."""
OPEN = frozenset({"queued", "running"})
STOPPED = ("failed", "cancelled")
"""States of runs that can be done once more."""
SIGNS: Mapping[str, tuple[str, str, str]] = {
    "succeeded": ("✓", "good", "done"),
    "cached": ("≡", "good", "done before"),
    "failed": ("✗", "bad", "failed"),
    "running": ("▶", "busy", "running"),
    "queued": ("…", "wait", "waits"),
    "waiting": ("?", "wait", "waits for a person"),
    "cancelled": ("■", "calm", "cancelled"),
    "skipped": ("↷", "calm", "left out"),
}
"""Of each state a sign, a colour and a word: never the colour alone."""


@router.get("/batches")
def batches_page(request: Request, service: Here, visitor: Looker) -> Response:
    """The batches that the visitor may see, the newest first."""
    backend = rights.Right(visitor, rights.READ).backend(service)
    cursor = request.query_params.get("before", "")
    at = int(cursor) if cursor.isdigit() and len(cursor) < 7 else 0
    order = ("-created_at", "-id")
    spec = Spec("batches", (Q(),), order=order, limit=SHOWN + 1, offset=at)
    rows = backend.rows(spec)
    # A download that is being made is no analysis: it has a page of its own.
    shown = [row for row in rows[:SHOWN] if row["engine"].get("kind") != EXPORT]
    told = told_batches(service, shown)
    return following.live(
        request,
        service,
        visitor,
        "batches",
        going=any(row["state"] in OPEN for row in told),
        batches=told,
        following=at + SHOWN if len(rows) > SHOWN else None,
    )


@router.get("/batches/{key}")
def batch_page(request: Request, service: Here, visitor: Looker, key: str) -> Response:
    """One batch, where the visitor may see it."""
    return _batch(request, service, visitor, key)


@router.post("/batches/{key}/{act}")
def act(
    request: Request, service: Here, visitor: Actor, form: Form, key: str, act: str
) -> Response:
    """Cancel a batch, do once more what failed, or answer a review."""
    try:
        if act == "cancel":
            work.cancel_batch(
                request, service, rights.Right(visitor, rights.CANCEL), key
            )
        elif act == "retry":
            work.retry_batch(request, service, rights.Right(visitor, rights.RUN), key)
        elif act == "again":
            _again(service, rights.Right(visitor, rights.RUN), key, form)
        elif act == "review":
            said = work.Answer(
                approve=one(form, "approve") == "yes", comment=one(form, "comment")
            )
            right = rights.Right(visitor, rights.ANNOTATE)
            work.review_run(request, service, right, one(form, "run"), said)
        else:
            raise NotFound("there is no such act")
    except CatalogError as err:
        return _batch(request, service, visitor, key, problem=str(err))
    return RedirectResponse(f"{service.prefix}batches/{key}?done={act}", 303)


def _batch(
    request: Request, service: Service, visitor: Person, key: str, problem: str = ""
) -> Response:
    right = rights.Right(visitor, rights.READ)
    try:
        row = work.found(service, right, key)
    except CatalogError:
        detail = "There is nothing here, or you may not see it."
        return page(service, visitor, "absent.html", status=404, detail=detail)
    (told,) = told_batches(service, [row])
    words = request.query_params
    after = words.get("after", "")[:128]
    only = STOPPED if words.get("show") == "failed" else ()
    matrix = work.matrix(service, key, ROWS, after, only)
    with service.database.reading() as session:
        names = right.projects(session, rights.RUN)
    runs = Q(run__batch=key)
    mine = told["project"] in names
    ours = row["engine"].get("by") == BY_SERVICE
    failed = sum(told["states"].get(state, 0) for state in STOPPED)
    going = row["state"] in OPEN
    return following.live(
        request,
        service,
        visitor,
        "batch",
        going=going,
        status=409 if problem else 200,
        problem=problem,
        batch=told,
        drawn=_drawn(service, row),
        steps=matrix["steps"],
        items=matrices.told(service, matrix["items"]),
        following=matrix["next"],
        signs=SIGNS,
        results=right.backend(service).count(Spec("images", (runs,))),
        reviews=reviews(work.local(service, right), key) if mine else (),
        whys=matrices.whys(service, key) if failed else (),
        failed=failed,
        is_narrowed=bool(only),
        may_cancel=mine and going,
        may_retry=mine and ours and not going and failed > 0,
        done=words.get("done", ""),
    )


def _again(service: Service, right: rights.Right, key: str, form: Fields) -> None:
    """Do once more what failed of the chosen items; raises CatalogError."""
    row = work.found(service, right, key)
    if row["engine"].get("by") != BY_SERVICE:
        raise ConflictError("this batch is done by a notebook: retry it there")
    items = form.get("item", [])
    if not items:
        raise BadQuery("choose an item first")
    query = select(Run.id).where(
        Run.batch_id == row["id"], Run.item_key.in_(items), Run.state.in_(STOPPED)
    )
    with service.database.reading() as session:
        keys = session.scalars(query).all()
    for run in keys:
        again_run(work.local(service, right), run)
    with recording(service.database, right.person.name) as book:
        want_again(book, row["id"])


def _drawn(service: Service, row: Mapping[str, Any]) -> Markup | str:
    """The picture of a batch's flow, with how many runs of each step are how."""
    graph = row["params"].get("flow")
    if not isinstance(graph, Mapping):
        return ""
    try:
        flow = Flow.from_json(graph)
    except CatalogError:
        return ""
    query = (
        select(Run.node_key, Run.state, func.count())
        .where(Run.batch_id == row["id"])
        .group_by(Run.node_key, Run.state)
    )
    states: dict[str, dict[str, int]] = {}
    with service.database.reading() as session:
        for place, state, count in session.execute(query):
            of = states.setdefault(place.partition("#")[0], {})
            word = SIGNS.get(state, ("", "", state))[2]
            of[word] = of.get(word, 0) + count
    svg = picture(flow, states)
    return Markup(svg)  # noqa: S704 - drawn by the library, which escapes names


def told_batches(
    service: Service, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Batches with their projects, how their runs stand, and how far they are."""
    keys = [row["id"] for row in rows]
    with service.database.reading() as session:
        query = (
            select(Run.batch_id, Run.state, func.count())
            .where(Run.batch_id.in_(keys))
            .group_by(Run.batch_id, Run.state)
        )
        states: dict[str, dict[str, int]] = {key: {} for key in keys}
        for key, state, count in session.execute(query):
            states[str(key)][state] = count
        wanted = {row["project_id"] for row in rows}
        found = select(Project.id, Project.name).where(Project.id.in_(wanted))
        names = {row.id: row.name for row in session.execute(found)}
    return [
        dict(row)
        | {
            "project": names[row["project_id"]],
            "states": states[row["id"]],
            "signs": [
                (*SIGNS.get(state, ("·", "calm", state)), count)
                for state, count in sorted(states[row["id"]].items())
            ],
            "total": _total(row, states[row["id"]]),
            "ended": _ended(states[row["id"]]),
            "sign": _sign(row["state"], states[row["id"]]),
        }
        for row in rows
    ]


def _sign(state: str, states: Mapping[str, int]) -> tuple[str, str, str]:
    if state == "succeeded" and states.get("failed"):
        return "!", "wait", "ended with failures"
    return SIGNS.get(state, ("·", "calm", state))


def _ended(states: Mapping[str, int]) -> int:
    return sum(number for state, number in states.items() if state in FINAL)


def _total(row: Mapping[str, Any], states: Mapping[str, int]) -> int:
    planned = row["counts"].get("total") or row["counts"].get("items") or 0
    return max(int(planned), sum(states.values()))
