"""A flow as a value: steps, edges, what goes in and what comes out; equal to its JSON.

    {"name": "edges", "version": "1",
     "inputs": {"image": "array"},
     "steps": [{"key": "gauss", "node": "theatrum.nodes.catalog:gauss@1.0.0",
                "params": {"sigma": 2.0}},
               {"key": "look", "kind": "review", "title": "Are these edges?"},
               {"key": "mean", "node": "...:mean@1.0.0", "over": "items"}],
     "edges": [["$image", "gauss.image"], ["gauss.result", "look.image"]],
     "outputs": {"edges": "look.image"}, "keep": "outputs",
     "parameters": {"sigma": {"title": "Sigma", "default": 2.0}}}

An edge begins at `$input` or at `step.port` and ends at `step.port`. A step's kind is
`node`; `review`, which waits for a person and hands on what it was given; or
`external`, which somebody's notebook or program does. A list that meets a port for one
value is *fanned out*: the step runs once for each, and what follows too, up to a port
that takes a list. A step `over` items takes what all items of the batch gave, at its
end. `when` lets a step run only if a number compares so: `["threshold.share", ">", 5]`.

`keep` says which arrays stay once all of an item is done: `all`, which is meant where
nothing is said; `outputs`, those the flow is for and those that no step takes; or a
list of steps, whose arrays stay as well (keeping.py).

A parameter's value may be `{"$": "name"}`, a placeholder that is filled when the flow
is run: a flow with placeholders is a template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from theatrum.catalog.errors import CatalogError, near
from theatrum.catalog.facts import digest_of

StepKind = Literal["node", "review", "external"]


class BadFlow(CatalogError, ValueError):
    """A flow cannot be run as it is; the text lists every problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems) + ".")
        self.problems = problems


@dataclass(frozen=True)
class Step:
    """One place of a flow.

    Attributes
    ----------
    node
        `module:name@version`, or of an external step the name that it is served under.
    over
        `items`: once for the batch, at its end, with what every item gave.
    when
        A port with a number, a comparison, and what it is compared with; or None.
    takes, gives
        Kinds of the ports of an external step, by name.
    """

    key: str
    node: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    kind: StepKind = "node"
    over: Literal["item", "items"] = "item"
    when: tuple[str, str, float] | None = None
    title: str = ""
    takes: Mapping[str, str] = field(default_factory=dict)
    gives: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The node's address, without its version."""
        return self.node.partition("@")[0]

    @property
    def version(self) -> str:
        """The version that the flow was made with; "" for any."""
        return self.node.partition("@")[2]

    def to_json(self) -> dict[str, Any]:
        """The step, without what it leaves as it is."""
        said: dict[str, Any] = {"key": self.key}
        for name in ("node", "params", "title", "takes", "gives"):
            value = getattr(self, name)
            if value:
                said[name] = dict(value) if isinstance(value, Mapping) else value
        if self.kind != "node":
            said["kind"] = self.kind
        if self.over != "item":
            said["over"] = self.over
        if self.when is not None:
            said["when"] = list(self.when)
        return said


@dataclass(frozen=True)
class Edge:
    """From an output, or an input of the flow, to an input of a step."""

    source: str
    target: str

    @property
    def step(self) -> str:
        """The step that it begins at; "" where it begins at an input of the flow."""
        return "" if self.source.startswith("$") else self.source.rpartition(".")[0]

    @property
    def port(self) -> str:
        """The port, or the flow's input, that it begins at."""
        if self.source.startswith("$"):
            return self.source[1:]
        return self.source.rpartition(".")[2]

    @property
    def to_step(self) -> str:
        """The step that it ends at."""
        return self.target.rpartition(".")[0]

    @property
    def to_port(self) -> str:
        """The port that it ends at."""
        return self.target.rpartition(".")[2]


@dataclass(frozen=True)
class Flow:
    """A graph of steps; see the module for its JSON."""

    name: str
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]
    inputs: Mapping[str, str] = field(default_factory=lambda: {"image": "array"})
    outputs: Mapping[str, str] = field(default_factory=dict)
    version: str = "1"
    title: str = ""
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    keep: str | tuple[str, ...] = "all"

    def step(self, key: str) -> Step:
        """The step of a key; raises BadFlow."""
        for one in self.steps:
            if one.key == key:
                return one
        keys = [one.key for one in self.steps]
        raise BadFlow([f"there is no step {key!r}.{near(key, keys)}".rstrip(".")])

    def into(self, key: str) -> list[Edge]:
        """The edges that end at a step."""
        return [one for one in self.edges if one.to_step == key]

    def after(self, key: str) -> set[str]:
        """The steps that follow on one, however far."""
        found: set[str] = set()
        waiting = [key]
        while waiting:
            now = waiting.pop()
            for edge in self.edges:
                if edge.step == now and edge.to_step not in found:
                    found.add(edge.to_step)
                    waiting.append(edge.to_step)
            for one in self.steps:
                asked = one.when[0].rpartition(".")[0] if one.when else ""
                if asked == now and one.key not in found:
                    found.add(one.key)
                    waiting.append(one.key)
        return found

    @property
    def placeholders(self) -> set[str]:
        """Names that are to be filled in."""
        return {name for step in self.steps for name in _holders(step.params)}

    def filled(self, /, **values: Any) -> Flow:
        """The flow with its placeholders filled; raises BadFlow for those left."""
        unknown = sorted(set(values) - self.placeholders)
        defaults = {
            name: told["default"]
            for name, told in self.parameters.items()
            if isinstance(told, Mapping) and "default" in told
        }
        given = {**defaults, **values}
        missing = sorted(self.placeholders - set(given))
        problems = [
            f"the flow has no placeholder {name!r}.{near(name, self.placeholders)}"
            for name in unknown
        ]
        problems += [f"the placeholder {name!r} is not filled" for name in missing]
        if problems:
            raise BadFlow([one.rstrip(".") for one in problems])
        steps = tuple(
            replace(one, params=_filled(one.params, given)) for one in self.steps
        )
        return replace(self, steps=steps, parameters={})

    def with_params(self, key: str, /, **params: Any) -> Flow:
        """The flow with other parameters of one step."""
        self.step(key)
        steps = tuple(
            replace(one, params={**one.params, **params}) if one.key == key else one
            for one in self.steps
        )
        return replace(self, steps=steps)

    @property
    def def_hash(self) -> str:
        """SHA-256 of what the flow does."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The flow as JSON; `keep` is left out where everything is kept."""
        said: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "title": self.title,
            "description": self.description,
            "inputs": dict(self.inputs),
            "steps": [one.to_json() for one in self.steps],
            "edges": [[one.source, one.target] for one in self.edges],
            "outputs": dict(self.outputs),
            "parameters": dict(self.parameters),
        }
        if self.keep != "all":
            said["keep"] = self.keep if isinstance(self.keep, str) else [*self.keep]
        return said

    @classmethod
    def from_json(cls, said: Any) -> Flow:
        """Read a flow; raises BadFlow with all that is malformed."""
        from theatrum.catalog.flows.validation import malformed

        problems = malformed(said)
        if problems:
            raise BadFlow(problems)
        steps = tuple(
            Step(**{**one, **({"when": tuple(one["when"])} if one.get("when") else {})})
            for one in said["steps"]
        )
        edges = tuple(Edge(source, target) for source, target in said.get("edges", []))
        rest = {
            name: said[name]
            for name in ("inputs", "outputs", "version", "title", "description")
            if name in said
        }
        keep = said.get("keep", "all")
        return cls(
            said["name"],
            steps,
            edges,
            parameters=said.get("parameters", {}),
            keep=keep if isinstance(keep, str) else tuple(keep),
            **rest,
        )

    def _repr_html_(self) -> str:
        from theatrum.catalog.flows.picture import picture

        # A long flow is scrolled: JupyterLab would make it too small to read.
        drawn = picture(self).replace("<svg ", '<svg style="max-width:none" ', 1)
        return f'<div style="overflow-x:auto">{drawn}</div>'


def _holders(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if set(value) == {"$"}:
            yield str(value["$"])
        else:
            for one in value.values():
                yield from _holders(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _holders(one)


def _filled(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"$"}:
            return given[str(value["$"])]
        return {name: _filled(one, given) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(one, given) for one in value)
    return value
