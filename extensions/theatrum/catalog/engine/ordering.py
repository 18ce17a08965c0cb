"""Batches of a catalogue behind a service: what it does itself, and what this process.

A node that the service offers, in the same version, it does on its own engine. A
function of a notebook, a node that it does not know, and whatever names an `engine`
becomes a step that waits for this process (`lending.py`). Flows are parted so step by
step: the service does what it can, and hands the rest out.
"""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from theatrum.catalog.engine import plans
from theatrum.catalog.engine.addresses import Engine, _current, chosen
from theatrum.catalog.engine.batch import as_node, rules_of
from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.far import RemoteBatch
from theatrum.catalog.engine.keys import source_of
from theatrum.catalog.engine.lending import GIVES, TAKES, Lending, Lent
from theatrum.catalog.engine.plans import Rules
from theatrum.catalog.flows.graph import BadFlow, Edge, Flow, Step
from theatrum.catalog.remote import RemoteBackend
from theatrum.node import Node

if TYPE_CHECKING:
    from theatrum.catalog.query.lazy import Query

_SHIPPED = "theatrum.nodes.catalog"
_TOLD = ("on_error", "threshold", "retries", "isolate", "timeout_s", "refresh")
_SOURCE = 20_000


# Any here and below: a node's parameters, values of inputs, JSON
def order_node(
    query: Query[Any],
    node: Any,
    *,
    engine: Engine | str | None = None,
    by: str | None = None,
    project: str | None = None,
    name: str = "",
    kind: str = "",
    mode: str = "wide",
    start: bool = True,
    parameters: Mapping[str, Any] | None = None,
    **given: Any,
) -> RemoteBatch:
    """Run a node on every image that a query of a service finds; see `Query.map`."""
    backend = _backend(query, start)
    rules, rest = rules_of(given)
    rest |= parameters or {}
    if mode != "wide":
        raise BadBatch(
            'mode="deep" needs the catalogue\'s folder: connect to its home, or work '
            "on image.array with Dask, and save what you make."
        )
    words = _words(query, rules, by=by, project=project)
    if isinstance(node, str):
        used = _shipped(node)
        if used is None:
            said = words | {"node": node, "name": name, "params": _values(rest)}
            return _ordered(backend, "batches", said)
        node = used
    used = as_node(node)
    fixed = {
        port: value
        for port, value in rest.items()
        if port in used.inputs and value is not None
    }
    params = {key: value for key, value in rest.items() if key not in used.inputs}
    # All that is wrong is told here, before anything is sent.
    plan = plans.one_node(used, params, fixed, kind)
    title = name or used.title
    if _asked(engine) is None and _offered(backend, used):
        said = {"node": _name(used), "name": title, "kind": kind}
        said["params"] = _values({**params, **fixed})
        return _ordered(backend, "batches", words | said)
    if kind:
        raise BadBatch("kind is for nodes that the service does: leave it out.")
    images = {port: value for port, value in fixed.items() if _is_image(value)}
    plain = {port: value for port, value in fixed.items() if port not in images}
    step = Step(used.name, params=plan.params, title=used.title)
    step, lent = _lent(step, used, plain, {plan.port, *images})
    flow = Flow(
        used.name,
        (step,),
        tuple(Edge(f"${port}", f"{step.key}.{port}") for port in step.takes),
        dict.fromkeys(step.takes, "array"),
        {port: f"{step.key}.{port}" for port in step.gives},
        title=title,
    )
    said = {"graph": flow.to_json(), "name": title, "params": _values(images)}
    lending = _lending(backend, {step.key: lent}, engine, rules)
    return _ordered(backend, "flows/run", words | said, lending)


def order_flow(
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
) -> RemoteBatch:
    """Run a flow on every image that a query of a service finds; see `Query.apply`.

    Raises BadFlow with every problem, before anything is sent.
    """
    from theatrum.catalog.flows.validation import nodes_of, problems

    backend = _backend(query, start)
    asked = flow if isinstance(flow, Flow) else Flow.from_json(flow)
    if keep is not None:
        asked = replace(asked, keep=keep if isinstance(keep, str) else tuple(keep))
    rules, rest = rules_of(given)
    rest |= parameters or {}
    fixed = {key: value for key, value in rest.items() if key in asked.inputs}
    values = {key: value for key, value in rest.items() if key not in asked.inputs}
    if found := problems(asked, nodes):
        raise BadFlow(found)
    filled = asked.filled(**values)
    if found := problems(filled, nodes):
        raise BadFlow(found)
    used = nodes_of(filled, nodes)
    here = _asked(engine) is not None
    lent: dict[str, Lent] = {}
    steps = []
    for step in filled.steps:
        if step.kind == "node" and (here or not _offered(backend, used[step.key])):
            ports = {one.to_port for one in filled.into(step.key)}
            step, lent[step.key] = _lent(step, used[step.key], {}, ports)
        steps.append(step)
    said = _words(query, rules, by=by, project=project) | {
        "graph": replace(filled, steps=tuple(steps)).to_json(),
        "name": name or filled.title or filled.name,
        "params": _values(fixed),
        "anew": list(anew),
    }
    if not lent:
        return _ordered(backend, "flows/run", said)
    lending = _lending(backend, lent, engine, rules, filled, nodes)
    return _ordered(backend, "flows/run", said, lending)


def _backend(query: Query[Any], start: bool) -> RemoteBackend:
    if query.spec.of != "images":
        raise BadBatch(f"A node takes images, and this query finds {query.spec.of}.")
    backend = query._backend
    if not isinstance(backend, RemoteBackend):
        raise BadBatch("This catalogue is no service's.")
    if not start:
        raise BadBatch("A service begins by itself: leave start out.")
    return backend


def _words(
    query: Query[Any], rules: Rules, *, by: str | None, project: str | None
) -> dict[str, Any]:
    return {
        "query": query.to_json(),
        "by": by,
        "project": project,
        **{name: getattr(rules, name) for name in _TOLD},
    }


def _ordered(
    backend: RemoteBackend,
    route: str,
    said: Mapping[str, Any],
    lending: Lending | None = None,
) -> RemoteBatch:
    row = backend.json("POST", route, json=dict(said))
    batch = RemoteBatch(backend, str(row["id"]), lending)
    if lending is not None:
        lending.start(batch)
    return batch


# Which nodes the service does


def _asked(engine: Engine | str | None) -> Engine | str | None:
    """The engine that somebody named, here or by `using`."""
    return engine if engine is not None else _current.get()


def _offered(backend: RemoteBackend, node: Node[..., Any]) -> bool:
    """Whether the service has this very node: equal name, home and version."""
    if not (node.address or "").startswith(f"{_SHIPPED}."):
        return False
    items = backend.json("GET", "palette")["items"]
    return any(
        (one["name"], one["version"]) == (_name(node), node.version) for one in items
    )


def _name(node: Node[..., Any]) -> str:
    return (node.address or node.name).rpartition(":")[2]


def _shipped(name: str) -> Node[..., Any] | None:
    from theatrum.nodes import catalog as palette

    found = getattr(palette, name, None) if name in palette.NODES else None
    return found if isinstance(found, Node) else None


# What this process does


def _lent(
    step: Step, node: Node[..., Any], fixed: Mapping[str, Any], ports: set[str]
) -> tuple[Step, Lent]:
    """A step that waits for this process, with what is recorded of it."""
    problems = [
        f"its input {port!r} takes several, and one at a time is handed out"
        for port in sorted(ports)
        if node.inputs[port].many
    ]
    problems += [
        f"its input {port!r} is a {node.inputs[port].kind}"
        for port in sorted(ports)
        if node.inputs[port].kind not in TAKES
    ]
    problems += [
        f"its output {name!r} is a {'list of ' * port.many}{port.kind}"
        for name, port in node.outputs.items()
        if port.many or port.kind not in GIVES
    ]
    if step.over == "items":
        problems.append("it takes what all items gave")
    if problems:
        raise BadBatch(
            f"{node.name} cannot be done by this notebook for a service: "
            f"{'; '.join(problems)}. Have it installed with the service, connect to "
            "the catalogue's home, or take the arrays by query.to_bag() and keep what "
            "you make by image.save()."
        )
    served = f"{node.name[:60]}-{uuid.uuid4().hex}"
    told = {
        "node": f"{node.name}@{node.version}",
        "code": node.code_digest,
        "params": dict(step.params),
        "given": {name: repr(value)[:200] for name, value in fixed.items()},
        "source": _source(node)[:_SOURCE],
    }
    made = replace(
        step,
        node=served,
        params=json.loads(json.dumps(told, default=str)),
        kind="external",
        title=step.title or node.title,
        takes=dict.fromkeys(sorted(ports), "array"),
        gives={name: GIVES[port.kind] for name, port in node.outputs.items()},
    )
    return made, Lent(served, node, dict(step.params), dict(fixed))


def _source(node: Node[..., Any]) -> str:
    """A node's text: the service has it in no package, wherever it is from here."""
    if (node.address or "").startswith(f"{_SHIPPED}."):
        return ""
    try:
        return source_of(node) or inspect.getsource(node.function)
    except (OSError, TypeError):
        return ""


def _lending(
    backend: RemoteBackend,
    lent: Mapping[str, Lent],
    engine: Engine | str | None,
    rules: Rules,
    flow: Flow | None = None,
    nodes: Mapping[str, Node[..., Any]] | None = None,
) -> Lending:
    wanted, close = chosen(engine)
    return Lending(
        backend,
        lent,
        wanted,
        close=close,
        retries=rules.retries,
        window=rules.window,
        flow=flow,
        nodes=nodes,
    )


# Values that travel


def _is_image(value: Any) -> bool:
    return hasattr(value, "to_dict") and hasattr(value, "level")


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON, images by their ids; raises BadBatch for what cannot travel."""

    def value(one: Any) -> Any:
        if _is_image(one):
            return {"$image": one.id}
        if isinstance(one, list | tuple):
            return [value(part) for part in one]
        return one

    told = {name: value(one) for name, one in given.items()}
    for name, one in told.items():
        try:
            json.dumps(one)
        except (TypeError, ValueError) as error:
            raise BadBatch(
                f"{name} is a {type(given[name]).__name__}, which cannot travel to the "
                "service: give numbers, texts, lists of them or images, or name an "
                'engine of your own, such as engine="threads".'
            ) from error
    return told
