"""What a run gives, and whether values are what their ports say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from theatrum.node.errors import BadOutputs
from theatrum.node.findings import Number, Quality
from theatrum.node.ports import TYPES, Port


class Outputs(Mapping[str, Any]):
    """What one run gave, by the names of the node's outputs; None is left out."""

    def __init__(self, ports: Mapping[str, Port], values: Mapping[str, Any]) -> None:
        self.ports = ports
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def of_kind(self, kind: str) -> dict[str, Any]:
        """Return the values whose port is of a kind, such as "marks"."""
        return {
            name: value
            for name, value in self._values.items()
            if self.ports[name].kind == kind
        }

    @property
    def numbers(self) -> dict[str, Number]:
        """The numbers, with their units and titles, in the order of the outputs."""
        return {
            name: number(self.ports[name], value)
            for name, value in self.of_kind("number").items()
        }

    @property
    def quality(self) -> Quality | None:
        """The verdict on the slide, if the node gives one."""
        return next(iter(self.of_kind("quality").values()), None)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"Outputs({inside})"


def number(port: Port, value: float | int) -> Number:
    """Return a number as its port describes it."""
    measure = port.measure
    assert measure is not None  # noqa: S101  (every number has one; for mypy)
    return Number(value, measure.unit, port.title, measure.digits)


def wanted_by(port: Port) -> str:
    """Return what a port takes, as a message says it."""
    return f"several {port.kind}s" if port.many else port.kind


def misfit(port: Port, value: Any) -> str | None:
    """Return what is wrong with a value for a port, or None."""
    wanted = TYPES[port.kind]
    if port.many:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return f"is {type(value).__name__}, but {wanted_by(port)} are wanted"
        strange = [one for one in value if not isinstance(one, wanted)]
        if strange:
            return f"holds {type(strange[0]).__name__}, but {port.kind}s are wanted"
    elif not isinstance(value, wanted):
        return f"is {type(value).__name__}, but {port.kind} is wanted"
    for one in value if port.many else (value,):
        for constraint in port.constraints:
            if (problem := constraint.problem(one)) is not None:
                return problem
    return None


def plain_value(name: str, port: Port, value: Any) -> Any:
    """Return an output's value in its plain form; raises BadOutputs."""
    if port.kind in ("number", "flag") and hasattr(value, "item"):
        value = value.item()  # numpy's own numbers
    if isinstance(value, bool) and port.kind == "number":
        raise BadOutputs(f"{name} gave a truth value as its number {port.name!r}.")
    problem = misfit(port, value)
    if problem is not None:
        raise BadOutputs(f"{name}: the output {port.name!r} {problem}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadOutputs(
            f"{name}: the output {port.name!r} is {value}. Give None where there is "
            "nothing to tell, and write `float | None` in its hint."
        )
    return tuple(value) if port.many else value
