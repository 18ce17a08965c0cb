"""Whether a condition holds for a dataset, and why: the dry run shows every step."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.dataelem import DataElement

from services.dicom_client.rules.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Not,
    Test,
)
from services.dicom_client.rules.tags import elements
from services.dicom_client.rules.values import (
    BadValue,
    Comparable,
    Kind,
    comparable,
    kind_of,
    values_of,
    written,
)

SEARCHED = 1024
"""Characters of a value that a pattern sees: a header's text can be a novel."""


@dataclass(frozen=True)
class Trace:
    """How one condition came out; `values` are the element's, which can be a name."""

    condition: Condition
    holds: bool
    values: tuple[str, ...] = field(default=(), repr=False)
    inner: tuple[Trace, ...] = ()


def evaluate(condition: Condition, dataset: Dataset) -> Trace:
    """Try a condition on the header of one instance.

    An element that is missing or empty fails every test but `missing`: also `ne`.
    Nothing is cut short, so that a person sees every value.
    """
    match condition:
        case AllOf(of):
            inner = tuple(evaluate(one, dataset) for one in of)
            return Trace(condition, all(one.holds for one in inner), inner=inner)
        case AnyOf(of):
            inner = tuple(evaluate(one, dataset) for one in of)
            return Trace(condition, any(one.holds for one in inner), inner=inner)
        case Not(of):
            only = evaluate(of, dataset)
            return Trace(condition, not only.holds, inner=(only,))
        case Test():
            return _test(condition, dataset)


def _test(test: Test, dataset: Dataset) -> Trace:
    found = list(elements(dataset, test.where))
    if test.compared_as != "type" and not test.every_value:
        # The whole of each element as it is written, not value by value.
        values = [written(one) for one in found if one.VR != "SQ"]
    else:
        values = [value for one in found for value in values_of(one)]
    shown = tuple(values)
    if test.operator == "exists":
        return Trace(test, any(_has_value(one) for one in found), shown)
    if test.operator == "missing":
        return Trace(test, not any(_has_value(one) for one in found), shown)
    if not values:
        return Trace(test, holds=False, values=shown)
    vr = test.where.vr or (found[0].VR if found else None)
    kind = kind_of(vr, test.compared_as)
    # Not equal means that none is: the opposite of one being equal.
    every = test.every_value != (test.operator == "ne")
    passed = (_passes(test, value, kind) for value in values)
    return Trace(test, all(passed) if every else any(passed), shown)


def _has_value(element: DataElement) -> bool:
    value = element.value
    return bool(value) if element.VR == "SQ" else value not in (None, "", b"")


def _passes(test: Test, value: str, kind: Kind) -> bool:
    if test.operator == "regex":
        flags = re.IGNORECASE if test.either_case else 0
        return re.search(str(test.value[0]), value[:SEARCHED], flags) is not None
    try:
        have = comparable(value, kind)
        wanted = [comparable(one, kind) for one in test.value]
    except BadValue:
        # The header holds something else than its kind of value: no test passes.
        return False
    if test.either_case:
        have, wanted = _folded(have), [_folded(one) for one in wanted]
    return _compare(test.operator, have, wanted)


def _folded(value: Comparable) -> Comparable:
    return value.casefold() if isinstance(value, str) else value


# Both sides are of one kind, which the type checker cannot know.
def _compare(operator: str, have: Comparable, wanted: list[Comparable]) -> bool:
    first = wanted[0]
    match operator:
        case "eq":
            return have == first
        case "ne":
            return have != first
        case "in":
            return have in wanted
        case "lt":
            return have < first  # type: ignore[operator]
        case "le":
            return have <= first  # type: ignore[operator]
        case "gt":
            return have > first  # type: ignore[operator]
        case "ge":
            return have >= first  # type: ignore[operator]
        case "between":
            return first <= have <= wanted[1]  # type: ignore[operator]
        case "contains":
            return str(first) in str(have)
        case "starts":
            return str(have).startswith(str(first))
    raise AssertionError(operator)
