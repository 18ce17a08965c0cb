"""Running flows over queries; keeping them; going on from a step; people's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from theatrum.catalog.engine import plans
from theatrum.catalog.engine.addresses import Engine, chosen
from theatrum.catalog.engine.batch import (
    Batch,
    create,
    grouped,
    local_of,
    project_of,
    rules_of,
    single,
    sources_of,
)
from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.line import want_again
from theatrum.catalog.flows.expansion import FlowPlan
from theatrum.catalog.flows.graph import BadFlow, Flow
from theatrum.catalog.flows.validation import nodes_of, problems
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Batch as BatchRow
from theatrum.catalog.tables import Flow as FlowRow
from theatrum.catalog.tables import Project, Run, new_id, now
from theatrum.node import Node

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend
    from theatrum.catalog.query.lazy import Query


def run_flow(
    query: Query[Any],
    flow: Flow | Mapping[str, Any],
    *,
    engine: Engine | str | None = None,
    nodes: Mapping[str, Node[..., Any]] | None = None,
    by: str | None = None,
    project: str | None = None,
    name: str = "",
    anew: Sequence[str] = (),
    keep: str | Sequence[str] | None = None,
    start: bool = True,
    parameters: Mapping[str, Any] | None = None,
    **given: Any,
) -> Batch:
    """Run a flow on every image that a query finds; see `Query.apply`.

    Parameters
    ----------
    nodes
        By the keys of their steps: those that no module holds.
    by
        A column: images of equal value are one item.
    project
        Where the results go, if the images are of several.
    anew
        Steps that are done, with what follows, even where the same was done before.
    keep
        Which arrays stay, in place of what the flow says: `all`, `outputs`, steps.
    parameters
        The flow's own values where their names are words of this call.
    given
        Placeholders; inputs of the flow that are the same for all; and how to take
        failures (`on_error`, `retries`, ...).

    Raises BadFlow with every problem, before anything begins.
    """
    backend = local_of(query)
    asked = flow if isinstance(flow, Flow) else Flow.from_json(flow)
    if keep is not None:
        asked = replace(asked, keep=keep if isinstance(keep, str) else tuple(keep))
    rules, rest = rules_of(given)
    rest |= parameters or {}
    fixed = {key: value for key, value in rest.items() if key in asked.inputs}
    values = {key: value for key, value in rest.items() if key not in asked.inputs}
    found = problems(asked, nodes)
    if found:
        raise BadFlow(found)
    filled = asked.filled(**values)
    found = problems(filled, nodes)
    if found:
        raise BadFlow(found)
    again = set(anew)
    for key in anew:
        filled.step(key)
        again |= filled.after(key)
    told: dict[str, Any] = {}
    for key, value in fixed.items():
        source = sources_of(value)
        if isinstance(source, tuple):
            raise BadBatch(f"The input {key!r} takes one value, not several.")
        told[key] = source
    plan = FlowPlan(filled, nodes_of(filled, nodes), told, frozenset(again))
    items = single(query) if by is None else grouped(query, by)
    wanted, close = chosen(engine)
    batch = create(
        backend,
        plan,
        items,
        rules,
        project_id=project_of(backend, query, project),
        name=name or filled.title or filled.name,
        query=query.to_json(),
        params={"flow": filled.to_json(), "anew": sorted(again)},
        engine=str(wanted.address),
    )
    if start:
        batch.start_and_close(wanted, close)
    return batch


def rerun(
    batch: Batch,
    key: str,
    *,
    engine: Engine | str | None = None,
    nodes: Mapping[str, Node[..., Any]] | None = None,
    **params: Any,
) -> Batch:
    """Do a flow's batch again from a step on, perhaps with other parameters of it.

    What lies before the step is found in the cache. It is another batch with the same
    items: what the first one made stays.
    """
    backend = batch.backend
    plan, rules = plans.load(batch.folder)
    if not isinstance(plan, FlowPlan):
        raise BadBatch("Only a flow's batch has steps to go on from.")
    flow = plan.flow.with_params(key, **params) if params else plan.flow
    known = {**plan.steps, **(nodes or {})}
    found = problems(flow, known)
    if found:
        raise BadFlow(found)
    again = frozenset({key, *flow.after(key)})
    with backend.database.reading() as session:
        row = session.get(BatchRow, batch.id)
        assert row is not None  # noqa: S101  (the batch was opened by it; for mypy)
        project_id, query = row.project_id, dict(row.query)
    wanted, close = chosen(engine)
    made = create(
        backend,
        FlowPlan(flow, known, plan.fixed, again),
        plans.items_of(batch.folder),
        rules,
        project_id=project_id,
        name=f"{flow.title or flow.name} from {key}",
        query=query,
        params={"flow": flow.to_json(), "anew": sorted(again), "rerun_of": batch.id},
        engine=str(wanted.address),
    )
    made.start_and_close(wanted, close)
    return made


# People's answers


def _inputs(backend: LocalBackend, run_id: str) -> dict[str, list[str]]:
    """What is to be looked at: by port the ids, in their order."""
    order = ("port", "position")
    found: dict[str, list[str]] = {}
    for row in backend.rows(Spec("run_inputs", (Q(run_id=run_id),), order=order)):
        found.setdefault(row["port"], []).append(row["object_id"])
    return found


def reviews(backend: LocalBackend, batch_id: str | None = None) -> list[dict[str, Any]]:
    """Return what waits for a person: run, item, step, and what is to be looked at."""
    query = select(Run).where(Run.state == "waiting", Run.engine_key == "review")
    if batch_id is not None:
        query = query.where(Run.batch_id == batch_id)
    with backend.database.reading() as session:
        seen = backend.projects
        found = []
        for row in session.scalars(query.order_by(Run.created_at)):
            project = session.get(Project, row.project_id)
            if seen is not None and (project is None or project.name not in seen):
                continue
            found.append(
                {
                    "run": row.id,
                    "batch": row.batch_id,
                    "item": row.item_key,
                    "step": row.node_key,
                    "inputs": _inputs(backend, row.id),
                }
            )
        return found


def answer(
    backend: LocalBackend, run_id: str, *, approve: bool, comment: str = ""
) -> None:
    """Let an item pass a review, or not; the batch goes on when it is resumed.

    The answer is the user's: the run says who, when, and with which words.
    """
    from theatrum.catalog.errors import NotFound
    from theatrum.catalog.writing import project_for

    with recording(
        backend.database, backend.user, on_behalf_of=backend.on_behalf_of
    ) as book:
        row = book.session.get(Run, run_id)
        if row is None or row.engine_key != "review":
            raise NotFound(f"there is no review {run_id}")
        project_for(backend, book, row.project_id)
        if row.state != "waiting":
            raise BadBatch(f"This review was answered already: {row.state}.")
        said = {"by": backend.user, "approved": approve, "comment": comment}
        refused = {"class": "Refused", "message": comment or "refused at review"}
        book.change(
            row,
            state="succeeded" if approve else "failed",
            ended_at=now(),
            error=None if approve else refused,
            metrics={**row.metrics, "review": said},
        )
        word = "approved" if approve else "refused"
        text = f"{word} by {backend.user}{f': {comment}' if comment else ''}"
        book.run_event(row, "state", text)
        want_again(book, row.batch_id)


# Keeping


def save_flow(backend: LocalBackend, flow: Flow, *, project: str | None = None) -> str:
    """Keep a flow, or a template, under its name and version; returns its id."""
    from theatrum.catalog.writing import project_for

    found = problems(flow)
    if found:
        raise BadFlow(found)
    with recording(
        backend.database, backend.user, on_behalf_of=backend.on_behalf_of
    ) as book:
        project_id = project_for(backend, book, project).id if project else None
        known = book.session.scalar(
            select(FlowRow).where(
                FlowRow.project_id == project_id,
                FlowRow.name == flow.name,
                FlowRow.version == flow.version,
                FlowRow.deleted_at.is_(None),
            )
        )
        if known is not None:
            if known.def_hash != flow.def_hash:
                raise BadFlow(
                    [
                        f"{flow.name} {flow.version} is kept already and is another: "
                        "count its version up"
                    ]
                )
            return str(known.id)
        row = FlowRow(
            id=new_id(),
            project_id=project_id,
            name=flow.name,
            version=flow.version,
            title=flow.title,
            graph=flow.to_json(),
            is_template=bool(flow.placeholders),
            description=flow.description,
            def_hash=flow.def_hash,
            author=backend.user,
        )
        book.add(row)
        return str(row.id)


def load_flow(backend: LocalBackend, name: str, version: str | None = None) -> Flow:
    """Return a flow that was kept; the newest where no version is named."""
    from theatrum.catalog.errors import NotFound

    query = select(FlowRow).where(FlowRow.name == name, FlowRow.deleted_at.is_(None))
    if version is not None:
        query = query.where(FlowRow.version == version)
    with backend.database.reading() as session:
        for row in session.scalars(query.order_by(FlowRow.created_at.desc())):
            project = session.get(Project, row.project_id) if row.project_id else None
            seen = backend.projects
            if project is None or seen is None or project.name in seen:
                return Flow.from_json(row.graph)
    raise NotFound(f"there is no flow {name} {version or ''}".rstrip())
