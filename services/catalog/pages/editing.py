"""A flow while it is edited on a page: read from the form, changed, told what it takes.

The page keeps nothing on the server. A hidden field holds the flow's JSON as it was;
the fields beside it say what of it is otherwise now, each named after its step's place:

    s2.key, s2.p.sigma, s2.ask.sigma, s2.in.image.0, s2.over, s2.if.source, o0.name

So whatever button is pressed, nothing that was typed is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from theatrum.catalog.errors import BadQuery
from theatrum.catalog.flows.validation import COMPARISONS, TAKES
from theatrum.node import Node
from theatrum.nodes.catalog import all_nodes

from services.catalog.api import work
from services.catalog.pages import fields
from services.catalog.pages.acting import Fields, one

Graph = dict[str, Any]
"""A flow's JSON (Any: see docs/catalog_flows.md)."""
Step = dict[str, Any]
_REVIEW: Final = "review"
_MOST_STEPS: Final = 60


@dataclass
class Draft:
    """A flow that is being edited, and what of the form could not be read."""

    graph: Graph
    faults: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """What was typed and could not be read, by the names of the fields."""

    @property
    def steps(self) -> list[Step]:
        """The flow's steps, in their order."""
        steps: list[Step] = self.graph["steps"]
        return steps


@dataclass(frozen=True)
class Choice:
    """Something that an input can be joined to."""

    value: str
    text: str
    fits: bool = True


@dataclass(frozen=True)
class Port:
    """An input of a step, with what it is joined to: one place more where it may."""

    name: str
    text: str
    joined: Sequence[str]
    choices: Sequence[Choice]


@dataclass(frozen=True)
class Card:
    """A step as the page shows it."""

    at: int
    key: str
    kind: str
    title: str
    about: str
    ports: Sequence[Port]
    inputs: Sequence[fields.Input]
    values: Mapping[str, str]
    asked: frozenset[str]
    over: bool
    condition: tuple[str, str, str]
    numbers: Sequence[Choice]


def empty(name: str) -> Graph:
    """A flow to begin with."""
    return {
        "name": name,
        "version": "1",
        "title": "",
        "description": "",
        "inputs": {"image": "array"},
        "steps": [],
        "edges": [],
        "outputs": {},
        "parameters": {},
    }


def read(form: Fields) -> Draft:
    """The flow that a form holds; raises BadQuery where it is none of our pages'."""
    try:
        said = json.loads(one(form, "graph"))
    except ValueError as err:
        raise BadQuery("the form does not hold a flow") from err
    draft = Draft(_sound(said))
    for name in ("name", "title", "description"):
        if name in form:
            draft.graph[name] = one(form, name)
    _read_edges(draft, form)
    for at, step in enumerate(draft.steps):
        _read_step(draft, at, step, form)
    _read_outputs(draft, form)
    _rename(draft, form)
    _forget_parameters(draft)
    return draft


def add(draft: Draft, what: str) -> int:
    """Add a node, or a review, after the last step; its place. Raises BadQuery."""
    if len(draft.steps) >= _MOST_STEPS:
        raise BadQuery(f"a flow has {_MOST_STEPS} steps here at most")
    before = [*sources(draft)]
    kind, _, name = what.partition(":")
    if kind == _REVIEW:
        step: Step = {"key": _free(draft, _REVIEW), "kind": _REVIEW, "title": "Review"}
        ports = {"image": "array"}
    elif kind == "node" and name in work.OFFERED:
        node = all_nodes()[name]
        step = {
            "key": _free(draft, name.replace("_", "-")),
            "node": f"{node.address}@{node.version}",
            "title": node.title,
        }
        ports = {
            port: one.kind for port, one in node.inputs.items() if not one.optional
        }
    else:
        raise BadQuery("choose what is to be added")
    draft.steps.append(step)
    for into, wanted in ports.items():
        # The last thing that fits is what people mean mostly.
        fitting = [one for one, given in before if _fits(given, wanted)]
        if fitting:
            draft.graph["edges"].append([fitting[-1], f"{step['key']}.{into}"])
    return len(draft.steps) - 1


def remove(draft: Draft, at: int) -> None:
    """Take a step away, with all that leads to it or from it."""
    if not 0 <= at < len(draft.steps):
        raise BadQuery("there is no such step")
    key = draft.steps.pop(at)["key"]
    draft.texts.clear()  # they are named by places, and the places are others now
    graph = draft.graph
    graph["edges"] = [
        edge for edge in graph["edges"] if key not in (_step(edge[0]), _step(edge[1]))
    ]
    graph["outputs"] = {
        name: source
        for name, source in graph["outputs"].items()
        if _step(source) != key
    }
    for step in draft.steps:
        if step.get("when") and _step(step["when"][0]) == key:
            del step["when"]
    _forget_parameters(draft)


def cards(draft: Draft) -> Iterator[Card]:
    """The steps as the page shows them."""
    every = [*sources(draft)]
    numbers = [
        Choice(source, source) for source, kind in every if kind in ("number", "")
    ]
    for at, step in enumerate(draft.steps):
        node = _node(step)
        schema = node.parameters.get("properties", {}) if node is not None else {}
        wanted = fields.inputs(schema)
        when = step.get("when") or ("", "", "")
        told = str(when[2]) if when[0] else ""
        yield Card(
            at=at,
            key=step["key"],
            kind=step.get("kind", "node"),
            title=step.get("title", "") or (node.title if node else step["key"]),
            about=_first_line(node),
            ports=[*_ports(draft, step, node, every)],
            inputs=wanted,
            values=_values(draft, at, step, wanted),
            asked=frozenset(
                name
                for name, value in step.get("params", {}).items()
                if _asked(value) is not None
            ),
            over=step.get("over") == "items",
            condition=(str(when[0]), str(when[1]), told),
            numbers=[one for one in numbers if _step(one.value) != step["key"]],
        )


def sources(draft: Draft) -> Iterator[tuple[str, str]]:
    """What an input can be joined to, and of what kind it is; "" where unknown."""
    for name, kind in draft.graph["inputs"].items():
        yield f"${name}", str(kind)
    for step in draft.steps:
        node = _node(step)
        if node is not None:
            for name, port in node.outputs.items():
                yield f"{step['key']}.{name}", port.kind
        elif step.get("kind") == _REVIEW:
            for into, _ in _into(draft, step["key"]):
                yield f"{step['key']}.{into}", ""
        else:
            for name, given in step.get("gives", {}).items():
                yield f"{step['key']}.{name}", str(given)


# Reading


def _sound(said: Any) -> Graph:
    """JSON that has at least the form of a flow; raises BadQuery."""
    if not isinstance(said, dict):
        raise BadQuery("the form does not hold a flow")
    graph = empty("") | said
    steps, edges = graph["steps"], graph["edges"]
    sound = (
        isinstance(steps, list)
        and len(steps) <= _MOST_STEPS
        and all(
            isinstance(one, dict) and isinstance(one.get("key"), str) for one in steps
        )
        and all(isinstance(one.get("params", {}), dict) for one in steps)
        and isinstance(edges, list)
        and all(
            isinstance(one, list)
            and len(one) == 2
            and all(isinstance(end, str) for end in one)
            for one in edges
        )
        and all(
            isinstance(graph[name], dict)
            for name in ("inputs", "outputs", "parameters")
        )
        and all(isinstance(one, str) for one in graph["outputs"].values())
    )
    if not sound:
        raise BadQuery("the form does not hold a flow")
    return graph


def _read_step(draft: Draft, at: int, step: Step, form: Fields) -> None:
    mark = f"s{at}."
    if f"{mark}key" not in form:
        return
    if step.get("kind") == _REVIEW:
        step["title"] = one(form, f"{mark}title")
    node = _node(step)
    if node is not None:
        _read_params(draft, step, node, form, mark)
    if one(form, f"{mark}over"):
        step["over"] = "items"
    else:
        step.pop("over", None)
    source, comparison = one(form, f"{mark}if.source"), one(form, f"{mark}if.op")
    text = one(form, f"{mark}if.value")
    if not source:
        step.pop("when", None)
        return
    try:
        limit = fields.finite(text or "0")
    except ValueError:
        draft.faults.append(f"the condition of {step['key']!r} is no number: {text}")
        return
    step["when"] = [source, comparison if comparison in COMPARISONS else ">", limit]


def _read_params(
    draft: Draft, step: Step, node: Node[..., Any], form: Fields, mark: str
) -> None:
    before = step.get("params", {})
    params: dict[str, Any] = {}
    schema = node.parameters.get("properties", {})
    for each in fields.inputs(schema):
        name = each.name
        try:
            typed = fields.typed([each], form, f"{mark}p.")
        except BadQuery as err:
            draft.faults.append(f"{step['key']}: {err}")
            draft.texts[f"{mark}p.{name}"] = one(form, f"{mark}p.{name}")
            typed = {name: before[name]} if name in before else {}
        if one(form, f"{mark}ask.{name}"):
            known = _asked(before.get(name))
            holder = known or _holder(draft, step["key"], name)
            told: dict[str, Any] = {"title": each.title}
            usual = typed.get(name, schema[name].get("default"))
            if usual is not None:
                told["default"] = usual
            draft.graph["parameters"][holder] = told
            params[name] = {"$": holder}
        elif name in typed and typed[name] != schema[name].get("default", _NOTHING):
            params[name] = typed[name]
    step["params"] = params
    if not params:
        del step["params"]


_NOTHING: Final = object()


def _read_edges(draft: Draft, form: Fields) -> None:
    edges = []
    for at, step in enumerate(draft.steps):
        mark = f"s{at}."
        if f"{mark}key" not in form:
            edges += [
                edge for edge in draft.graph["edges"] if _step(edge[1]) == step["key"]
            ]
            continue
        taken: set[str] = set()
        for name in form:
            if not name.startswith(f"{mark}in."):
                continue
            port = name.removeprefix(f"{mark}in.").rpartition(".")[0]
            source = one(form, name)
            if not source:
                continue
            if step.get("kind") == _REVIEW:
                port = _other(source.rpartition(".")[2].removeprefix("$"), port, taken)
                taken.add(port)
            edges.append([source, f"{step['key']}.{port}"])
    draft.graph["edges"] = edges


def _other(given: str, port: str, taken: set[str]) -> str:
    """A review hands on what it was given under a name of its own."""
    wanted, number = port or given, 2
    while wanted in taken:
        wanted, number = f"{port or given}_{number}", number + 1
    return wanted


def _read_outputs(draft: Draft, form: Fields) -> None:
    if "o0.name" not in form:
        return
    outputs = {}
    for at in range(len(draft.graph["outputs"]) + 1):
        name, source = one(form, f"o{at}.name"), one(form, f"o{at}.source")
        if source:
            outputs[name or source.replace(".", "-").removeprefix("$")] = source
    draft.graph["outputs"] = outputs


def _rename(draft: Draft, form: Fields) -> None:
    """Give steps their new keys, wherever these stand."""
    names = {}
    for at, step in enumerate(draft.steps):
        wanted = one(form, f"s{at}.key")
        if wanted and wanted != step["key"]:
            names[step["key"]] = wanted
            step["key"] = wanted
    if not names:
        return

    def now(place: str) -> str:
        step, dot, port = place.rpartition(".")
        return f"{names.get(step, step)}{dot}{port}"

    graph = draft.graph
    graph["edges"] = [[now(one), now(other)] for one, other in graph["edges"]]
    graph["outputs"] = {name: now(one) for name, one in graph["outputs"].items()}
    for step in draft.steps:
        if step.get("when"):
            step["when"] = [now(step["when"][0]), *step["when"][1:]]


def _forget_parameters(draft: Draft) -> None:
    used = {
        _asked(value)
        for step in draft.steps
        for value in step.get("params", {}).values()
    }
    parameters = draft.graph["parameters"]
    draft.graph["parameters"] = {
        name: said for name, said in parameters.items() if name in used
    }


# Showing


def _ports(
    draft: Draft,
    step: Step,
    node: Node[..., Any] | None,
    every: Sequence[tuple[str, str]],
) -> Iterator[Port]:
    joined: dict[str, list[str]] = {}
    for into, source in _into(draft, step["key"]):
        joined.setdefault(into, []).append(source)
    others = [pair for pair in every if _step(pair[0]) != step["key"]]

    def choices(kind: str) -> list[Choice]:
        listed = [
            Choice(
                source, f"{source} ({given})" if given else source, _fits(given, kind)
            )
            for source, given in others
        ]
        return sorted(listed, key=lambda choice: not choice.fits)

    if node is not None:
        for name, port in node.inputs.items():
            more = [*joined.get(name, [])]
            text = f"{name} ({'several of ' if port.many else ''}{port.kind})"
            if port.optional:
                text += ", may be left out"
            if port.many or not more:
                more.append("")
            yield Port(name, text, more, choices(port.kind))
    elif step.get("kind") == _REVIEW:
        for name, held in joined.items():
            yield Port(name, f"looks at {name}", held, choices(""))
        yield Port("", "looks at" if not joined else "and at", [""], choices(""))
    else:
        for name, kind in step.get("takes", {}).items():
            yield Port(
                name, f"{name} ({kind})", joined.get(name) or [""], choices(kind)
            )


def _values(
    draft: Draft, at: int, step: Step, wanted: Sequence[fields.Input]
) -> dict[str, str]:
    """What stands in the fields of a step's parameters."""
    found = {}
    params = step.get("params", {})
    for each in wanted:
        value = params.get(each.name, _NOTHING)
        holder = _asked(value)
        if holder is not None:
            value = draft.graph["parameters"].get(holder, {}).get("default")
        now = each.value if value is _NOTHING else fields.shown(value, each.kind)
        found[each.name] = draft.texts.get(f"s{at}.p.{each.name}", now)
    return found


def _into(draft: Draft, key: str) -> list[tuple[str, str]]:
    """The edges that end at a step: the port, and where each begins."""
    return [
        (target.rpartition(".")[2], source)
        for source, target in draft.graph["edges"]
        if _step(target) == key
    ]


def _node(step: Step) -> Node[..., Any] | None:
    """The node of a step, where it is one of the palette."""
    if step.get("kind", "node") != "node":
        return None
    name = str(step.get("node", "")).partition("@")[0].rpartition(":")[2]
    return all_nodes()[name] if name in work.OFFERED else None


def _first_line(node: Node[..., Any] | None) -> str:
    return (node.__doc__ or "").strip().partition("\n")[0] if node else ""


def _fits(given: str, wanted: str) -> bool:
    return not given or not wanted or given in TAKES.get(wanted, {wanted})


def _asked(value: Any) -> str | None:
    """The placeholder that a parameter's value is; None where it is a value."""
    if isinstance(value, Mapping) and set(value) == {"$"}:
        return str(value["$"])
    return None


def _holder(draft: Draft, key: str, name: str) -> str:
    parameters = draft.graph["parameters"]
    if name not in parameters and name not in draft.graph["inputs"]:
        return name
    wanted, number = f"{key}_{name}".replace("-", "_"), 2
    while wanted in parameters:
        wanted, number = f"{key}_{name}_{number}".replace("-", "_"), number + 1
    return wanted


def _free(draft: Draft, wanted: str) -> str:
    taken = {step["key"] for step in draft.steps}
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name


def _step(place: str) -> str:
    return "" if place.startswith("$") else place.rpartition(".")[0]
