"""A question as a value: what is asked of which resource, in what order, how much.

A `Spec` is immutable and equal to its JSON: it is what a query holds, what is kept as a
saved query or a dataset's version, and what travels to the service. Conditions are a
tree of `Q`:

    Q(modality="MR") & (Q(spacing__lte=1.0) | ~Q(sample__name__startswith="A"))

Two conditions that are given in one `Q`, or joined by `&`, and that go over the same
relation to several rows, are about the same row: `Q(channels__name="DAPI",
channels__emission_nm__gt=400)` asks for one channel that is both. Each call of `filter`
asks anew.

JSON:

    {"of": "images",
     "where": [{"field": "modality", "value": "MR"},
               {"or": [{"field": "spacing__lte", "value": 1.0}, {"not": {...}}]}],
     "order": ["-created_at"], "offset": 0, "limit": 50,
     "values": ["name", "subject__label"], "distinct": false}

Only `of` is needed. The value of `in` can be a spec with one value: `{"query": {...}}`;
that of a saved query's parameter is `{"$": "name"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from theatrum.catalog.errors import BadQuery, near

MOST_CONDITIONS = 500
DEEPEST = 30


@dataclass(frozen=True)
class Leaf:
    """One condition: a path of fields that ends in a lookup, and a value."""

    field: str
    # Any: a JSON scalar, a tuple of such, a Spec, a Parameter
    value: Any


@dataclass(frozen=True)
class Parameter:
    """A value that is given when a saved query is run."""

    name: str


@dataclass(frozen=True, init=False)
class Q:
    """A condition; `&`, `|` and `~` make others of it."""

    op: str
    """`and`, `or`, `not`"""
    parts: tuple[Leaf | Q, ...]

    # Any: whatever a condition can be compared with
    def __init__(self, *parts: Q, **conditions: Any) -> None:
        """All of the parts and all of the conditions hold."""
        for part in parts:
            if not isinstance(part, Q):
                raise BadQuery(f"a condition is a Q or name=value, not {part!r}")
        leaves = tuple(Leaf(name, _value(value)) for name, value in conditions.items())
        object.__setattr__(self, "op", "and")
        object.__setattr__(self, "parts", (*_flat("and", parts), *leaves))

    def __and__(self, other: Q) -> Q:
        return _q("and", _flat("and", (self, other)))

    def __or__(self, other: Q) -> Q:
        return _q("or", _flat("or", (self, other)))

    def __invert__(self) -> Q:
        return _q("not", (self,))


def _q(op: str, parts: Iterable[Leaf | Q]) -> Q:
    made = Q()
    object.__setattr__(made, "op", op)
    object.__setattr__(made, "parts", tuple(parts))
    return made


def _flat(op: str, parts: Iterable[Q]) -> tuple[Leaf | Q, ...]:
    """The parts, those of the same kind laid open: `a & (b & c)` is `a & b & c`."""
    flat: list[Leaf | Q] = []
    for part in parts:
        if part.op == op or (part.op == "and" and len(part.parts) == 1):
            flat.extend(part.parts)
        else:
            flat.append(part)
    return tuple(flat)


@dataclass(frozen=True)
class Spec:
    """What is asked; `sql.py` says how."""

    of: str
    """The resource, such as `images`."""
    where: tuple[Q, ...] = ()
    """All hold; each is a question of its own about related rows."""
    order: tuple[str, ...] = ()
    """Fields; `-` before one for the largest first."""
    offset: int = 0
    limit: int | None = None
    values: tuple[str, ...] = ()
    """The fields that are wanted; none: whole rows."""
    distinct: bool = False
    """Of equal values one."""

    def to_json(self) -> dict[str, Any]:
        """The question as JSON."""
        said: dict[str, Any] = {"of": self.of}
        if self.where:
            said["where"] = [_to_json(q) for q in self.where]
        for name in ("order", "values"):
            if getattr(self, name):
                said[name] = list(getattr(self, name))
        if self.offset:
            said["offset"] = self.offset
        if self.limit is not None:
            said["limit"] = self.limit
        if self.distinct:
            said["distinct"] = True
        return said

    def filled(self, values: Mapping[str, Any]) -> Spec:
        """The question with its parameters' values; BadQuery where one is missing."""
        return replace(self, where=tuple(_filled(q, values) for q in self.where))


def spec_from_json(said: Any) -> Spec:
    """Read a question; raises BadQuery, which says what is wrong with it."""
    return _spec(said, DEEPEST, [MOST_CONDITIONS])


def _spec(said: Any, depth: int, left: list[int]) -> Spec:
    if not isinstance(said, Mapping):
        raise BadQuery('a query is an object such as {"of": "images"}')
    known = ("of", "where", "order", "offset", "limit", "values", "distinct")
    for name in said:
        if name not in known:
            raise BadQuery(f"a query has no {name!r}.{near(str(name), known)}")
    where = said.get("where") or []
    if isinstance(where, Mapping):
        where = [where]
    if not isinstance(where, list):
        raise BadQuery("where is a list of conditions")
    return Spec(
        of=_text(said.get("of"), "of"),
        where=tuple(_as_q(_from_json(one, depth, left)) for one in where),
        order=_texts(said.get("order"), "order"),
        offset=_number(said.get("offset", 0), "offset") or 0,
        limit=_number(said.get("limit"), "limit"),
        values=_texts(said.get("values"), "values"),
        distinct=said.get("distinct", False) is True,
    )


def _as_q(part: Leaf | Q) -> Q:
    return part if isinstance(part, Q) else _q("and", (part,))


# Any here and below: JSON
def _to_json(part: Leaf | Q) -> dict[str, Any]:
    if isinstance(part, Leaf):
        return {"field": part.field, "value": _value_to_json(part.value)}
    if part.op == "not":
        return {"not": _to_json(part.parts[0])}
    return {part.op: [_to_json(inner) for inner in part.parts]}


def _value_to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value_to_json(one) for one in value]
    if isinstance(value, Spec):
        return {"query": value.to_json()}
    if isinstance(value, Parameter):
        return {"$": value.name}
    return value


def _from_json(said: Any, depth: int, left: list[int]) -> Leaf | Q:
    left[0] -= 1
    if depth == 0 or left[0] < 0:
        raise BadQuery(
            f"a query has {MOST_CONDITIONS} conditions at most, {DEEPEST} deep"
        )
    if not isinstance(said, Mapping):
        raise BadQuery('a condition is {"field": ..., "value": ...}, and, or, not')
    match dict(said):
        case {"field": str(name), "value": value, **rest} if not rest:
            return Leaf(name, _value_from_json(value, depth, left))
        case {"not": inner, **rest} if not rest:
            return _q("not", (_as_q(_from_json(inner, depth - 1, left)),))
        case {"and": list(parts), **rest} if not rest:
            return _q("and", (_from_json(one, depth - 1, left) for one in parts))
        case {"or": list(parts), **rest} if not rest:
            return _q("or", (_from_json(one, depth - 1, left) for one in parts))
    raise BadQuery(
        'a condition is {"field": ..., "value": ...}, {"and": [...]}, {"or": [...]} '
        'or {"not": ...}'
    )


def _value_from_json(value: Any, depth: int, left: list[int]) -> Any:
    if isinstance(value, list):
        return tuple(_value_from_json(one, depth - 1, left) for one in value)
    if isinstance(value, Mapping):
        match dict(value):
            case {"query": inner, **rest} if not rest and depth > 0:
                return _spec(inner, depth - 1, left)
            case {"$": str(name), **rest} if not rest:
                return Parameter(name)
        raise BadQuery('a value is no object, except {"query": ...} and {"$": "name"}')
    return value


def _value(value: Any) -> Any:
    """A value as JSON can hold it: lists as tuples, moments as ISO 8601."""
    spec = getattr(value, "spec", value)
    if isinstance(spec, Spec | Parameter):
        return spec
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    key = getattr(value, "id", None)
    if isinstance(key, str | int):  # a row stands for its id
        return key
    if isinstance(value, Iterable):
        return tuple(_value(one) for one in value)
    if hasattr(value, "item"):  # a number of numpy's
        return value.item()
    raise BadQuery(f"a condition cannot compare with a {type(value).__name__}")


def _filled(q: Q, values: Mapping[str, Any]) -> Q:
    def fill(value: Any) -> Any:
        if isinstance(value, Parameter):
            if value.name not in values:
                raise BadQuery(f"the query needs a value for {value.name}")
            return _value(values[value.name])
        if isinstance(value, tuple):
            return tuple(fill(one) for one in value)
        return value.filled(values) if isinstance(value, Spec) else value

    return _q(
        q.op,
        (
            _filled(part, values)
            if isinstance(part, Q)
            else Leaf(part.field, fill(part.value))
            for part in q.parts
        ),
    )


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadQuery(f"{name} is a text")
    return value


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise BadQuery(f"{name} is a list of fields")
    return tuple(_text(one, name) for one in value)


def _number(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadQuery(f"{name} is a whole number from 0 on")
    return value
