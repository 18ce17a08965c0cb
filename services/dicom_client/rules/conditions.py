"""The conditions of a rule: tests of elements, joined by all, any and not.

In JSON a test is `{"tag": "Modality", "op": "eq", "value": "CT"}` and the rest is
`{"all_of": [...]}`, `{"any_of": [...]}`, `{"not": {...}}`, to any depth. `all_of`
nothing is true, `any_of` nothing is false.

An element with several values passes when one of them does; with `"values": "all"`
all of them have to. Values are compared as what the element is: numbers as numbers,
dates and times and ages in their order, the rest as text. `"as": "text"` or
`"as": "number"` compares the whole element as it is written instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dicom_client.rules.tags import BadPath, Path, path
from services.dicom_client.rules.values import As, BadValue, comparable, kind_of

PRESENCE = ("exists", "missing")
ORDERED = ("lt", "le", "gt", "ge", "between")
TEXTUAL = ("contains", "starts", "regex")
OPERATORS = (*PRESENCE, "eq", "ne", *ORDERED, "in", *TEXTUAL)
EITHER_CASE = ("eq", "ne", "in", *TEXTUAL)
"""These also come with an `i` before them, which takes A and a for the same letter."""

DEPTH = 16
SIZE = 500
VALUE_LENGTH = 256

Value = str | float


class BadRule(ValueError):
    """A rule makes no sense; the message says where and what to write instead."""


@dataclass(frozen=True)
class Test:
    """One element compared with one value, a pair (`between`) or a list (`in`)."""

    __test__ = False  # no test case of pytest's

    where: Path
    operator: str
    value: tuple[Value, ...] = ()
    either_case: bool = False
    every_value: bool = False
    compared_as: As = "type"


@dataclass(frozen=True)
class AllOf:
    """True where all of these are."""

    of: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """True where at least one of these is."""

    of: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """True where this is not."""

    of: Condition


Condition = Test | AllOf | AnyOf | Not
NEVER = AnyOf(())


def condition_from_json(said: Any, where: str = "rule") -> Condition:  # Any: JSON
    """Read a condition; BadRule names the place of what is wrong."""
    return _Reader().read(said, where, 0)


def condition_to_json(condition: Condition) -> dict[str, Any]:
    """Write a condition so that it reads back as the same."""
    match condition:
        case AllOf(of):
            return {"all_of": [condition_to_json(one) for one in of]}
        case AnyOf(of):
            return {"any_of": [condition_to_json(one) for one in of]}
        case Not(of):
            return {"not": condition_to_json(of)}
        case Test():
            return _test_to_json(condition)


def _test_to_json(test: Test) -> dict[str, Any]:
    said: dict[str, Any] = {
        "tag": str(test.where),
        "op": f"i{test.operator}" if test.either_case else test.operator,
    }
    if test.operator in {"between", "in"}:
        said["value"] = list(test.value)
    elif test.operator not in PRESENCE:
        said["value"] = test.value[0]
    if test.every_value:
        said["values"] = "all"
    if test.compared_as != "type":
        said["as"] = test.compared_as
    return said


class _Reader:
    """Counts what it read, so that no rule can be made to take the service's time."""

    def __init__(self) -> None:
        self._read = 0

    def read(self, said: Any, where: str, depth: int) -> Condition:
        self._read += 1
        if depth > DEPTH or self._read > SIZE:
            raise BadRule(
                f"{where}: a rule has at most {SIZE} conditions, {DEPTH} deep; "
                "make two rules of it"
            )
        if not isinstance(said, Mapping):
            raise BadRule(f"{where}: a condition is an object with all_of, any_of, ...")
        kinds = [kind for kind in ("all_of", "any_of", "not", "tag") if kind in said]
        if len(kinds) != 1:
            raise BadRule(f"{where}: write exactly one of all_of, any_of, not and tag")
        if kinds[0] == "tag":
            return _test(said, where)
        if len(said) != 1:
            extra = ", ".join(sorted(set(map(str, said)) - set(kinds)))
            raise BadRule(f"{where}: {extra} does not belong beside {kinds[0]}")
        inner = said[kinds[0]]
        if kinds[0] == "not":
            return Not(self.read(inner, f"{where}.not", depth + 1))
        if not isinstance(inner, Sequence) or isinstance(inner, str):
            raise BadRule(f"{where}.{kinds[0]}: write a list of conditions")
        read = tuple(
            self.read(one, f"{where}.{kinds[0]}[{at}]", depth + 1)
            for at, one in enumerate(inner)
        )
        return AllOf(read) if kinds[0] == "all_of" else AnyOf(read)


def _test(said: Mapping[str, Any], where: str) -> Test:
    unknown = set(said) - {"tag", "op", "value", "values", "as"}
    if unknown:
        raise BadRule(f"{where}: {', '.join(sorted(map(str, unknown)))} is not known")
    try:
        looked_at = path(str(said["tag"]))
    except BadPath as err:
        raise BadRule(f"{where}: {err}") from err
    operator, either_case = _operator(said.get("op"), where)
    compared_as = _one_of(said.get("as", "type"), ("type", "text", "number"), where)
    values = _one_of(said.get("values", "any"), ("any", "all"), where)
    test = Test(
        looked_at,
        operator,
        _value(operator, said, where),
        either_case=either_case,
        every_value=values == "all",
        compared_as=compared_as,
    )
    _check(test, where)
    return test


def _operator(said: Any, where: str) -> tuple[str, bool]:
    if said in OPERATORS:
        return str(said), False
    if isinstance(said, str) and said[:1] == "i" and said[1:] in EITHER_CASE:
        return said[1:], True
    known = ", ".join([*OPERATORS, *(f"i{name}" for name in EITHER_CASE)])
    raise BadRule(f"{where}: {str(said)[:32]!r} is no operator; there are {known}")


def _one_of(said: Any, allowed: tuple[str, ...], where: str) -> Any:
    if said not in allowed:
        raise BadRule(f"{where}: {str(said)[:32]!r} is not one of {', '.join(allowed)}")
    return said


def _value(operator: str, said: Mapping[str, Any], where: str) -> tuple[Value, ...]:
    value = said.get("value")
    if operator in PRESENCE:
        if value is not None:
            raise BadRule(f"{where}: {operator} takes no value")
        return ()
    listed = value if operator in {"between", "in"} else [value]
    if not isinstance(listed, list) or not listed:
        raise BadRule(f"{where}: {operator} takes a list of values")
    if operator == "between" and len(listed) != 2:
        raise BadRule(f"{where}: between takes the lowest and the highest value")
    for one in listed:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise BadRule(f"{where}: a value is a text or a number")
        if len(str(one)) > VALUE_LENGTH:
            raise BadRule(f"{where}: a value has at most {VALUE_LENGTH} characters")
    return tuple(listed)


def _check(test: Test, where: str) -> None:
    """Refuse what could never be true: an operator or a value that does not fit."""
    if test.operator in PRESENCE:
        return
    vr = test.where.vr
    kind = kind_of(vr, test.compared_as)
    if vr == "SQ":
        raise BadRule(
            f"{where}: {test.where} is a sequence; name an element in it, as "
            f"{test.where}.CodeValue, or ask whether it exists"
        )
    if test.operator in TEXTUAL and kind != "text":
        raise BadRule(
            f"{where}: {test.operator} compares text, and {test.where} ({vr}) is a "
            f'{kind}; add "as": "text" to compare what is written'
        )
    if test.operator in ORDERED and kind == "text":
        raise BadRule(
            f"{where}: {test.operator} needs an order, and {test.where} ({vr}) is "
            'text; add "as": "number" if it holds a number'
        )
    if test.operator == "regex":
        _check_pattern(str(test.value[0]), where)
        return
    for value in test.value:
        try:
            comparable(value, kind)
        except BadValue as err:
            raise BadRule(f"{where}: {err}") from err


# What makes a search take exponential time: a repeat inside a repeat.
_NESTED = re.compile(r"[+*}]\)?\)[+*{]")


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as err:
        raise BadRule(f"{where}: {pattern[:64]!r} is no pattern: {err}") from err
    if _NESTED.search(pattern):
        raise BadRule(f"{where}: a repeat inside a repeat could search for ever")
