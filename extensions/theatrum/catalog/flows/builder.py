"""A flow built in Python: each step gives handles that the next ones take.

flow = Builder("edges", title="Edges of cells")
image = flow.input("image")
smooth = flow.add(gauss, image=image, sigma=Placeholder("sigma"))
found = flow.add(threshold, key="otsu", image=smooth)
flow.output("mask", found.mask)
edges = flow.build()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from theatrum.catalog.flows.graph import BadFlow, Edge, Flow, Step
from theatrum.catalog.flows.validation import problems
from theatrum.node import Node


@dataclass(frozen=True)
class Handle:
    """An output of a step, or an input of the flow."""

    source: str


@dataclass(frozen=True)
class Placeholder:
    """A parameter's value that is filled in when the flow is run."""

    name: str

    def to_json(self) -> dict[str, str]:
        """As the flow's JSON has it."""
        return {"$": self.name}


class Placed:
    """A step that was added: its outputs are attributes, the first one is itself."""

    def __init__(self, key: str, outputs: Sequence[str]) -> None:
        self.key = key
        self.outputs = tuple(outputs)

    @property
    def source(self) -> str:
        """Where an edge begins that takes the step as a whole: its first output."""
        return f"{self.key}.{self.outputs[0]}"

    def __getattr__(self, name: str) -> Handle:
        outputs = self.__dict__.get("outputs", ())
        if name not in outputs:
            raise AttributeError(
                f"{self.__dict__.get('key')} gives {', '.join(outputs)}"
            )
        return Handle(f"{self.key}.{name}")


Source = Handle | Placed


class Builder:
    """Collects steps; `build` gives the flow and tells everything that is wrong."""

    def __init__(
        self,
        name: str,
        *,
        version: str = "1",
        title: str = "",
        keep: str | Sequence[str] = "all",
    ) -> None:
        """`keep`: which arrays stay; see `theatrum.catalog.flows.keeping`."""
        self.name, self.version, self.title = name, version, title
        self.keep = keep if isinstance(keep, str) else tuple(keep)
        self.nodes: dict[str, Node[..., Any]] = {}
        self._inputs: dict[str, str] = {}
        self._steps: list[Step] = []
        self._edges: list[Edge] = []
        self._outputs: dict[str, str] = {}
        self._parameters: dict[str, Any] = {}

    def input(self, name: str = "image", kind: str = "array") -> Handle:
        """Declare what each item of a batch brings."""
        self._inputs[name] = kind
        return Handle(f"${name}")

    def parameter(self, name: str, default: Any = None, title: str = "") -> Placeholder:
        """Declare a placeholder, with what it is where nobody says."""
        told: dict[str, Any] = {"title": title or name}
        if default is not None:
            told["default"] = default
        self._parameters[name] = told
        return Placeholder(name)

    def add(
        self,
        node: Node[..., Any],
        *,
        key: str = "",
        over: str = "item",
        when: tuple[Source, str, float] | None = None,
        title: str = "",
        **given: Any,
    ) -> Placed:
        """Add a node; handles are joined to its inputs, the rest are parameters."""
        name = self._free(key or node.name)
        params = {}
        for port, value in given.items():
            if isinstance(value, Handle | Placed) or (
                isinstance(value, list | tuple)
                and value
                and all(isinstance(one, Handle | Placed) for one in value)
            ):
                self._join(value, f"{name}.{port}")
            else:
                params[port] = _json(value)
        address = node.address or f"notebook:{node.name}"
        self.nodes[name] = node
        self._steps.append(
            Step(
                name,
                f"{address}@{node.version}",
                params,
                over=over,  # type: ignore[arg-type]  # validated as one of two words
                when=None if when is None else (when[0].source, when[1], when[2]),
                title=title or node.title,
            )
        )
        return Placed(name, list(node.outputs))

    def review(
        self, *, key: str = "review", title: str = "", **given: Source
    ) -> Placed:
        """Let a person look at something before the item goes on."""
        name = self._free(key)
        for port, value in given.items():
            self._join(value, f"{name}.{port}")
        self._steps.append(Step(name, kind="review", title=title or "Review"))
        return Placed(name, list(given))

    def external(
        self,
        served: str,
        *,
        gives: Mapping[str, str],
        key: str = "",
        title: str = "",
        **given: Source,
    ) -> Placed:
        """Let another notebook or program do a step, under the name it serves."""
        name = self._free(key or served)
        for port, value in given.items():
            self._join(value, f"{name}.{port}")
        takes = dict.fromkeys(given, "array")
        self._steps.append(
            Step(
                name,
                served,
                kind="external",
                title=title or served,
                takes=takes,
                gives=dict(gives),
            )
        )
        return Placed(name, list(gives))

    def output(self, name: str, source: Source) -> None:
        """Declare what the flow is for; other results are kept as well."""
        self._outputs[name] = source.source

    def build(self) -> Flow:
        """Return the flow; raises BadFlow with every problem that it has."""
        flow = Flow(
            self.name,
            tuple(self._steps),
            tuple(self._edges),
            self._inputs or {"image": "array"},
            self._outputs,
            self.version,
            self.title,
            parameters=self._parameters,
            keep=self.keep,
        )
        found = problems(flow, self.nodes)
        if found:
            raise BadFlow(found)
        return flow

    def _join(self, value: Source | Sequence[Source], target: str) -> None:
        several = [value] if isinstance(value, Handle | Placed) else value
        for one in several:
            self._edges.append(Edge(one.source, target))

    def _free(self, wanted: str) -> str:
        taken = {one.key for one in self._steps}
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        return name


def _json(value: Any) -> Any:
    if isinstance(value, Placeholder):
        return value.to_json()
    if isinstance(value, tuple | list):
        return [_json(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _json(one) for name, one in value.items()}
    return value
