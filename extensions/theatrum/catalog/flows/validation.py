"""Everything that is wrong with a flow, told at once, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theatrum.catalog.errors import near
from theatrum.catalog.flows.graph import Edge, Flow, Step
from theatrum.node import Node, NodeError, find

COMPARISONS = ("<", "<=", "==", "!=", ">=", ">")
_OF_STEP = frozenset(Step.__dataclass_fields__)
TAKES: Mapping[str, set[str]] = {
    "array": {"array", "labels", "image"},
    "image": {"image"},
    "volume": {"array", "volume"},
    "table": {"table"},
    "file": {"file", "marks"},
    "line": {"line"},
    "polygon": {"polygon"},
}
"""What kinds of outputs a port of a kind takes."""


def malformed(said: Any) -> list[str]:
    """Return what keeps JSON from being a flow at all."""
    if not isinstance(said, Mapping):
        return ["a flow is an object with name, steps and edges"]
    problems = []
    if not isinstance(said.get("name"), str) or not said.get("name"):
        problems.append("the flow has no name")
    steps = said.get("steps")
    if not isinstance(steps, list) or not steps:
        problems.append("the flow has no steps")
        steps = []
    for at, step in enumerate(steps):
        if not isinstance(step, Mapping) or not isinstance(step.get("key"), str):
            problems.append(f"step {at} has no key")
            continue
        strange = sorted(set(step) - _OF_STEP)
        problems += [f"the step {step['key']!r} has no {one!r}" for one in strange]
        when = step.get("when")
        if when is not None and not (isinstance(when, list | tuple) and len(when) == 3):
            problems.append(
                f"`when` of {step['key']!r} is [step.port, comparison, number]"
            )
    keep = said.get("keep", "all")
    listed = keep if isinstance(keep, list | tuple) else [None]
    if keep not in ("all", "outputs") and not all(
        isinstance(one, str) for one in listed
    ):
        problems.append("`keep` is all, outputs, or a list of steps")
    for edge in said.get("edges", []):
        if not (
            isinstance(edge, list | tuple)
            and len(edge) == 2
            and all(isinstance(one, str) for one in edge)
        ):
            problems.append(f"the edge {edge!r} is not [from, to]")
    return problems


def problems(
    flow: Flow, nodes: Mapping[str, Node[..., Any]] | None = None
) -> list[str]:
    """Return every problem of a flow, each as a sentence; [] of one that can run.

    Parameters
    ----------
    nodes
        Nodes of the steps that have no address, by key: those of a notebook.
    """
    found: list[str] = []
    keys = [one.key for one in flow.steps]
    for key in sorted({one for one in keys if keys.count(one) > 1}):
        found.append(f"two steps are called {key!r}")
    found += [
        f"the key {key!r} may hold letters, digits, - and _ only"
        for key in keys
        if not key.replace("-", "").replace("_", "").isalnum()
    ]
    known: dict[str, Node[..., Any]] = {}
    for step in flow.steps:
        if step.kind == "node":
            found += _of_node(step, nodes or {}, known, flow)
        elif step.kind not in ("review", "external"):
            found.append(f"the step {step.key!r} is of no kind {step.kind!r}")
    for edge in flow.edges:
        found += _of_edge(edge, flow, known)
    found += _unfed(flow, known)
    found += _circles(flow)
    for name, source in flow.outputs.items():
        edge = Edge(source, "")
        told = _source_problem(edge, flow, known)
        if told:
            found.append(f"the output {name!r}: {told}")
    for step in flow.steps:
        if step.when is not None:
            found += _of_condition(step, flow, known)
    kept = () if isinstance(flow.keep, str) else flow.keep
    found += [
        f"`keep` names {key!r}, which is no step.{near(key, keys)}".rstrip(".")
        for key in kept
        if key not in keys
    ]
    return found


def nodes_of(
    flow: Flow, nodes: Mapping[str, Node[..., Any]] | None = None
) -> dict[str, Node[..., Any]]:
    """Return the nodes of the steps by key; those that cannot be found are left out."""
    known: dict[str, Node[..., Any]] = {}
    for step in flow.steps:
        if step.kind == "node":
            _of_node(step, nodes or {}, known, flow)
    return known


def _of_node(
    step: Step,
    given: Mapping[str, Node[..., Any]],
    known: dict[str, Node[..., Any]],
    flow: Flow,
) -> list[str]:
    found = []
    used = given.get(step.key)
    if used is None:
        try:
            used = find(step.address)
        except NodeError as error:
            return [f"the step {step.key!r}: {str(error).rstrip('.')}"]
    known[step.key] = used
    if step.version and step.version != used.version:
        found.append(
            f"the step {step.key!r} was made with {step.address} {step.version}, and "
            f"{used.version} is installed"
        )
    waiting = {name for name, value in step.params.items() if _is_placeholder(value)}
    told = {name: value for name, value in step.params.items() if name not in waiting}
    required = set(used.parameters.get("required", ()))
    if required & waiting:
        allowed = used.parameters.get("properties", {})
        for name in told:
            if name not in allowed:
                meant = f".{near(name, allowed)}".rstrip(".")
                found.append(f"the step {step.key!r} has no parameter {name!r}{meant}")
        return found
    try:
        used.checked_parameters(told)
    except NodeError as error:
        found.append(f"the step {step.key!r}: {str(error).rstrip('.')}")
    del flow
    return found


def _is_placeholder(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"$"}


def _of_edge(edge: Edge, flow: Flow, known: Mapping[str, Node[..., Any]]) -> list[str]:
    found = []
    told = _source_problem(edge, flow, known)
    if told:
        found.append(f"the edge {edge.source} -> {edge.target}: {told}")
    keys = [one.key for one in flow.steps]
    if edge.to_step not in keys:
        found.append(
            f"the edge {edge.source} -> {edge.target}: there is no step "
            f"{edge.to_step!r}.{near(edge.to_step, keys)}".rstrip(".")
        )
        return found
    used = known.get(edge.to_step)
    if used is None:
        return found
    port = used.inputs.get(edge.to_port)
    if port is None:
        found.append(
            f"the step {edge.to_step!r} has no input {edge.to_port!r}."
            f"{near(edge.to_port, used.inputs)}".rstrip(".")
        )
        return found
    kind, promises = _given(edge, flow, known)
    if kind and kind not in TAKES.get(port.kind, {port.kind}):
        found.append(f"{edge.source} gives {kind}, and {edge.target} takes {port.kind}")
        return found
    for constraint in port.constraints:
        clash = getattr(constraint, "clash", None)
        reason = clash(promises) if clash else None
        if reason:
            found.append(f"{edge.source} {reason}, as {edge.target} wants")
    return found


def _given(
    edge: Edge, flow: Flow, known: Mapping[str, Node[..., Any]]
) -> tuple[str, tuple[Any, ...]]:
    """Return what kind an edge carries and what is promised of it; "" if unknown."""
    if not edge.step:
        return flow.inputs.get(edge.port, ""), ()
    try:
        step = flow.step(edge.step)
    except ValueError:
        return "", ()
    if step.kind == "review":
        before = [one for one in flow.into(step.key) if one.to_port == edge.port]
        return _given(before[0], flow, known) if before else ("", ())
    if step.kind == "external":
        return step.gives.get(edge.port, ""), ()
    used = known.get(edge.step)
    port = used.outputs.get(edge.port) if used else None
    return (port.kind, port.constraints) if port else ("", ())


def _source_problem(
    edge: Edge, flow: Flow, known: Mapping[str, Node[..., Any]]
) -> str | None:
    if edge.source.startswith("$"):
        if edge.port not in flow.inputs:
            return f"the flow has no input {edge.port!r}"
        return None
    keys = [one.key for one in flow.steps]
    if edge.step not in keys:
        return f"there is no step {edge.step!r}.{near(edge.step, keys)}".rstrip(".")
    step = flow.step(edge.step)
    if step.kind == "review":
        ports = {one.to_port for one in flow.into(step.key)}
    elif step.kind == "external":
        ports = set(step.gives)
    elif edge.step in known:
        ports = set(known[edge.step].outputs)
    else:
        return None
    if edge.port not in ports:
        return f"{edge.step!r} gives no {edge.port!r}.{near(edge.port, ports)}".rstrip(
            "."
        )
    return None


def _unfed(flow: Flow, known: Mapping[str, Node[..., Any]]) -> list[str]:
    found = []
    for step in flow.steps:
        into = flow.into(step.key)
        ports = [one.to_port for one in into]
        used = known.get(step.key)
        several = sorted({one for one in ports if ports.count(one) > 1})
        if used is not None:
            found += [
                f"the input {name!r} of {step.key!r} is fed {ports.count(name)} times"
                for name in several
                if name in used.inputs and not used.inputs[name].many
            ]
            found += [
                f"the input {name!r} of {step.key!r} is fed by nothing"
                for name, port in used.inputs.items()
                if not port.optional and name not in ports
            ]
        elif step.kind == "review" and not into:
            found.append(f"the review {step.key!r} has nothing to look at")
        elif step.kind == "external":
            found += [
                f"the input {name!r} of {step.key!r} is fed by nothing"
                for name in step.takes
                if name not in ports
            ]
    return found


def _circles(flow: Flow) -> list[str]:
    inside = [one.key for one in flow.steps if one.key in flow.after(one.key)]
    return [f"the steps {', '.join(inside)} wait for each other"] if inside else []


def _of_condition(
    step: Step, flow: Flow, known: Mapping[str, Node[..., Any]]
) -> list[str]:
    assert step.when is not None  # noqa: S101  (asked by the caller; for mypy)
    source, comparison, _ = step.when
    found = []
    if comparison not in COMPARISONS:
        found.append(
            f"`when` of {step.key!r} compares by {comparison!r}: take one of "
            f"{' '.join(COMPARISONS)}"
        )
    edge = Edge(source, "")
    told = _source_problem(edge, flow, known)
    kind, _ = _given(edge, flow, known)
    if told:
        found.append(f"`when` of {step.key!r}: {told}")
    elif kind and kind != "number":
        found.append(f"`when` of {step.key!r}: {source} is no number but {kind}")
    return found
