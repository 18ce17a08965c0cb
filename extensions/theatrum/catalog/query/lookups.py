"""What a value can be compared by: each lookup as SQL, alike on both databases.

Text is compared code point by code point, never by a database's own idea of an order.
`i...` lookups go by small letters of all alphabets. A lookup on a path into JSON looks
at values of the kind that it compares with: `attrs__age__gte=3` passes over a text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    Integer,
    String,
    Text,
    and_,
    any_,
    case,
    cast,
    collate,
    false,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from theatrum.catalog.errors import BadQuery, UnknownField, near
from theatrum.catalog.query import patterns
from theatrum.catalog.tables.base import Moment

MANY = 500
"""More values than this go to the database as one."""
_LARGEST = 2**63 - 1

Condition = ColumnElement[bool]
# Any: a column of any type
Expression = ColumnElement[Any]


@dataclass(frozen=True)
class Target:
    """What a lookup compares: a column, or a place in a JSON column."""

    column: Expression
    dialect: str
    path: tuple[str, ...] = ()
    """Into JSON; empty for the column itself."""

    @property
    def is_json(self) -> bool:
        return self.kind == "json" or bool(self.path)

    @property
    def kind(self) -> str:
        """text, number, bool, moment, json"""
        type_ = self.column.type
        if isinstance(type_, Moment):
            return "moment"
        if isinstance(type_, Boolean):
            return "bool"
        if isinstance(type_, Integer | Float):
            return "number"
        return "text" if isinstance(type_, String) else "json"


class Lookup(Protocol):
    """How a target is compared with a value."""

    # Any: a value as a query holds it
    def __call__(self, target: Target, value: Any) -> Condition:
        """The condition; raises BadQuery where the value does not fit."""


def compare(target: Target, lookup: str, value: Any) -> Condition:
    """The condition that a target's lookup is true of a value."""
    return LOOKUPS[lookup](target, value)


# Values


def _coerced(target: Target, value: Any) -> Any:
    """The value as the column holds it: numbers can come as text (from an address)."""
    kind = _kind_of(value) if target.is_json else target.kind
    try:
        return _AS[kind](value)
    except (TypeError, ValueError, OverflowError) as err:
        name = getattr(target.column, "name", "the field")
        raise BadQuery(f"{name} is a {kind}, which {value!r} is not") from err


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else "text"


def _as_number(value: Any) -> float | int:
    if isinstance(value, str):
        value = int(value) if value.strip().lstrip("-+").isdigit() else float(value)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    if abs(value) > _LARGEST:
        raise OverflowError
    return value


def _as_bool(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}[value.lower()]
    if value not in (True, False):
        raise ValueError
    return bool(value)


def _as_moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError
    return datetime.fromisoformat(value)


def _as_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    text = str(value)
    text.encode()  # no half of a surrogate pair
    if "\0" in text:
        raise ValueError
    return text


def _flag(value: Any) -> bool:
    try:
        return _as_bool(value)
    except (KeyError, ValueError) as err:
        raise BadQuery(f"isnull is true or false, not {value!r}") from err


def _bool_or_type_error(value: Any) -> bool:
    try:
        return _as_bool(value)
    except KeyError as err:
        raise ValueError from err


_AS: dict[str, Callable[[Any], Any]] = {
    "number": _as_number,
    "bool": _bool_or_type_error,
    "moment": _as_moment,
    "text": _as_text,
}


# Places in JSON


def _json_path(keys: Sequence[str]) -> str:
    """A path as SQLite writes it."""
    return "$" + "".join(f'."{key}"' for key in keys)


def _json_value(target: Target) -> Expression:
    """The place as SQL: of SQLite its own value, of PostgreSQL JSONB."""
    if target.dialect == "sqlite":
        return func.json_extract(target.column, _json_path(target.path))
    return cast(target.column, JSONB).op("#>")(cast(list(target.path), ARRAY(Text)))


def _json_type(target: Target) -> Expression:
    """The name of the kind of value at the place; NULL where there is nothing."""
    if target.dialect == "sqlite":
        named = func.json_type(target.column, _json_path(target.path))
        return case(
            (named.in_(["integer", "real"]), "number"),
            (named.in_(["true", "false"]), "boolean"),
            (named == "text", "string"),
            else_=named,
        )
    return func.jsonb_typeof(_json_value(target))


def _typed(target: Target, kind: str) -> Expression:
    """What is compared: the column, or the place's value where it is of the kind."""
    if not target.is_json:
        return target.column
    value = _json_value(target)
    if target.dialect == "sqlite":
        plain: Expression = value
    else:
        text = cast(target.column, JSONB).op("#>>")(
            cast(list(target.path), ARRAY(Text))
        )
        readings: dict[str, Expression] = {
            "number": cast(text, Float(53)),
            "bool": cast(cast(text, Boolean), Integer),
            "text": cast(text, Text),
        }
        plain = readings[kind]
    name = {"number": "number", "bool": "boolean", "text": "string"}[kind]
    return case((_json_type(target) == name, plain))


def _text_of(target: Target, lookup: str) -> Expression:
    if target.is_json or target.kind == "text":
        return _typed(target, "text")
    raise BadQuery(
        f"{getattr(target.column, 'name', 'the field')} is a {target.kind}: {lookup} "
        "looks at text"
    )


def _lower(target: Target, text: Expression) -> Expression:
    if target.dialect == "sqlite":
        return func.theatrum_lower(text)
    # The collation of the server may know ASCII only.
    return func.lower(collate(text, "und-x-icu"))


# Lookups


def _exact(target: Target, value: Any) -> Condition:
    if value is None:
        return _isnull(target, True)
    value = _coerced(target, value)
    kind = _kind_of(value)
    left = _typed(target, kind)
    same: Condition = left == (
        int(value) if target.is_json and kind == "bool" else value
    )
    return same


def _iexact(target: Target, value: Any) -> Condition:
    text = _lower(target, _text_of(target, "iexact"))
    same: Condition = text == _as(_as_text, value).lower()
    return same


def _as(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except (TypeError, ValueError, OverflowError) as err:
        raise BadQuery(f"{value!r} cannot be looked for here") from err


def _inside(target: Target, text: Expression, wanted: str) -> Condition:
    find = func.instr if target.dialect == "sqlite" else func.strpos
    return find(text, wanted) > 0


def _contains(target: Target, value: Any) -> Condition:
    if target.kind == "json" and not target.path:
        return _has_item(target, value)
    text = _text_of(target, "contains")
    wanted = _as(_as_text, value)
    return text.is_not(None) if not wanted else _inside(target, text, wanted)


def _has_item(target: Target, value: Any) -> Condition:
    """Whether a JSON list holds a value."""
    if not isinstance(value, str | int | float):
        raise BadQuery("a list contains a text or a number")
    if target.dialect == "sqlite":
        items = func.json_each(target.column).table_valued("value")
        return literal(value).in_(select(items.c.value))
    return cast(target.column, JSONB).op("@>")(cast([value], JSONB))


def _icontains(target: Target, value: Any) -> Condition:
    text = _text_of(target, "icontains")
    wanted = _as(_as_text, value).lower()
    return (
        text.is_not(None)
        if not wanted
        else _inside(target, _lower(target, text), wanted)
    )


def _startswith(target: Target, value: Any) -> Condition:
    text = _text_of(target, "startswith")
    wanted = _as(_as_text, value)
    if not wanted:
        return text.is_not(None)
    if target.dialect == "sqlite":
        # From it on and before the next: an index serves that.
        after = _after(wanted)
        from_it_on = text >= wanted
        return from_it_on if after is None else and_(from_it_on, text < after)
    return text.startswith(wanted, autoescape=True)


def _after(text: str) -> str | None:
    """The first text that is larger than all that begin with this; None: no such."""
    while text:
        last = ord(text[-1]) + 1
        if last == 0xD800:  # surrogates are no characters
            last = 0xE000
        if last <= 0x10FFFF:
            return text[:-1] + chr(last)
        text = text[:-1]
    return None


def _istartswith(target: Target, value: Any) -> Condition:
    text = _lower(target, _text_of(target, "istartswith"))
    wanted = _as(_as_text, value).lower()
    same: Condition = func.substr(text, 1, len(wanted)) == wanted
    return same


def _ending(target: Target, text: Expression, wanted: str) -> Condition:
    if not wanted:
        return text.is_not(None)
    if target.dialect == "sqlite":
        return func.substr(text, -len(wanted)) == wanted
    return func.right(text, len(wanted)) == wanted


def _endswith(target: Target, value: Any) -> Condition:
    return _ending(target, _text_of(target, "endswith"), _as(_as_text, value))


def _iendswith(target: Target, value: Any) -> Condition:
    text = _lower(target, _text_of(target, "iendswith"))
    return _ending(target, text, _as(_as_text, value).lower())


def _in(target: Target, value: Any) -> Condition:
    if not isinstance(value, tuple):
        raise BadQuery("in takes a list of values, or a query")
    given = [_coerced(target, one) for one in value if one is not None]
    parts: list[Condition] = []
    if len(given) < len(value):
        parts.append(_isnull(target, True))
    if target.is_json:
        parts += [_exact(target, one) for one in given]
    elif given:
        parts.append(_one_of(target, given))
    return or_(false(), *parts)


def _one_of(target: Target, values: list[Any]) -> Condition:
    column = target.column
    if len(values) <= MANY or target.kind == "moment":
        return column.in_(values)
    if target.dialect == "sqlite":
        import json

        each = func.json_each(json.dumps(values)).table_valued("value")
        return column.in_(select(each.c.value))
    if isinstance(column.type, Integer):
        values = [one for one in values if one == int(one)]
        return column == any_(cast(values, ARRAY(BigInteger)))
    item = Float(53) if isinstance(column.type, Float) else Text()
    return column == any_(cast(values, ARRAY(item)))


def _isnull(target: Target, value: Any) -> Condition:
    absent = _flag(value)
    if target.is_json and target.path:
        kind = func.coalesce(_json_type(target), "null")
        return kind == "null" if absent else kind != "null"
    return target.column.is_(None) if absent else target.column.is_not(None)


def _ordered(name: str, op: Callable[[Expression, Any], Condition]) -> Lookup:
    def lookup(target: Target, value: Any) -> Condition:
        if value is None:
            raise BadQuery(f"{name} compares with a value: use isnull for none")
        wanted = _coerced(target, value)
        kind = _kind_of(wanted)
        if kind == "bool":
            raise BadQuery(f"{name} does not compare true and false")
        return op(_sortable(target, _typed(target, kind)), wanted)

    return lookup


def _sortable(target: Target, value: Expression) -> Expression:
    """Text in the order of its code points, on every database."""
    text = target.is_json or target.kind == "text"
    if text and target.dialect != "sqlite" and isinstance(value.type, String):
        return collate(value, "C")
    return value


_gte = _ordered("gte", lambda left, right: left >= right)
_lte = _ordered("lte", lambda left, right: left <= right)


def _range(target: Target, value: Any) -> Condition:
    if not isinstance(value, tuple) or len(value) != 2:
        raise BadQuery("range takes the smallest and the largest")
    return and_(_gte(target, value[0]), _lte(target, value[1]))


def _regex(target: Target, value: Any) -> Condition:
    pattern = _as(_as_text, value)
    patterns.check(pattern, target.dialect)
    return _text_of(target, "regex").regexp_match(pattern)


def _has_key(target: Target, value: Any) -> Condition:
    if not target.is_json:
        raise BadQuery("has_key looks into JSON, such as attrs")
    key = _as(_as_text, value)
    if '"' in key:
        raise BadQuery("a key has no quotation mark")
    inside = Target(target.column, target.dialect, (*target.path, key))
    return _json_type(inside).is_not(None)


LOOKUPS: dict[str, Lookup] = {
    "exact": _exact,
    "iexact": _iexact,
    "contains": _contains,
    "icontains": _icontains,
    "startswith": _startswith,
    "istartswith": _istartswith,
    "endswith": _endswith,
    "iendswith": _iendswith,
    "in": _in,
    "isnull": _isnull,
    "lt": _ordered("lt", lambda left, right: left < right),
    "lte": _lte,
    "gt": _ordered("gt", lambda left, right: left > right),
    "gte": _gte,
    "range": _range,
    "regex": _regex,
    "has_key": _has_key,
}


def unknown_lookup(name: str, field: str) -> UnknownField:
    """The error for a lookup that there is not."""
    hint = near(name, LOOKUPS) or f" There are {', '.join(LOOKUPS)}."
    return UnknownField(f"{field} has no lookup {name!r}.{hint}")
