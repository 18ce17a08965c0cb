"""Rules of the two older clients, with exactly the meaning that they had there.

The first client: a set holds where all its rules do, each an exact comparison of
texts; an element is found by its name without spaces, so that names with an
apostrophe were never found. The second: groups of sets of rules, folded strictly from
left to right, each with the combination of the one before; the last combination is
unused. In both a missing element fails every comparison.

Both compared what is written (`"as": "text"`), the second also numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydicom._dicom_dict import DicomDictionary

from services.dicom_client.rules.conditions import (
    NEVER,
    AllOf,
    AnyOf,
    BadRule,
    Condition,
    Not,
    Test,
)
from services.dicom_client.rules.rule import Rule
from services.dicom_client.rules.tags import BadPath, Path, path

_NUMERIC = {
    "GREATER_THAN": "gt",
    "LESS_THAN": "lt",
    "GREATER_THAN_OR_EQUAL_TO": "ge",
    "LESS_THAN_OR_EQUAL_TO": "le",
}
_TEXTUAL: dict[str, tuple[str, bool]] = {
    "EQUALS": ("eq", False),
    "NOT_EQUALS": ("ne", False),
    "CASE_SENSITIVE_STRING_EXACT_MATCH": ("eq", False),
    "CASE_INSENSITIVE_STRING_EXACT_MATCH": ("eq", True),
    "CASE_SENSITIVE_STRING_CONTAINS": ("contains", False),
    "CASE_INSENSITIVE_STRING_CONTAINS": ("contains", True),
}
_NEGATED: dict[str, bool] = {
    "CASE_SENSITIVE_STRING_DOES_NOT_CONTAIN": False,
    "CASE_INSENSITIVE_STRING_DOES_NOT_CONTAIN": True,
}
OPERATORS = frozenset({*_NUMERIC, *_TEXTUAL, *_NEGATED})
"""The operators of the second client."""

Said = Mapping[str, Any]


def rules_from_v1(said: Any) -> list[Rule]:  # Any: JSON
    """Rules of the first client.

    `said` is `{"rule_sets": [{"name", "template", "description"?, "rules": [{"tag",
    "value"}]}]}`, the fields of its tables.
    """
    return [
        Rule(
            _name(one, where),
            str(one.get("template") or _name(one, where)),
            AllOf(
                tuple(
                    _v1_test(rule, f"{where}.rules[{number}]")
                    for number, rule in enumerate(_list(one, "rules", where))
                )
            )
            if _list(one, "rules", where)
            else NEVER,
            description=str(one.get("description") or ""),
        )
        for where, one in _each(said, "rule_sets")
    ]


def rules_from_v2(said: Any) -> list[Rule]:
    """Rules of the second client, one for each of its rule groups.

    `said` is `{"rule_groups": [{"name", "template", "rule_sets": [SET]}]}` with SET
    `{"order", "combination", "rules": [RULE]}` and RULE `{"order", "tag", "operator",
    "value", "combination"}`.
    """
    rules = []
    for where, group in _each(said, "rule_groups"):
        name = _name(group, where)
        sets = _list(group, "rule_sets", where)
        condition = _folded(sets, f"{where}.rule_sets", _v2_set)
        rules.append(Rule(name, str(group.get("template") or name), condition))
    return rules


def _v2_set(rule_set: Said, where: str) -> Condition:
    return _folded(_list(rule_set, "rules", where), f"{where}.rules", _v2_test)


def _folded(
    listed: list[Said], where: str, read: Callable[[Said, str], Condition]
) -> Condition:
    """Fold from the left: ((first c1 second) c2 third), and false for nothing."""
    folded: Condition = NEVER
    members = _in_order(listed)
    for at, member in enumerate(members):
        condition = read(member, f"{where}[{at}]")
        if at == 0:
            folded = condition
            continue
        before = str(members[at - 1].get("combination") or "AND").upper()
        if before not in {"AND", "OR"}:
            raise BadRule(f"{before[:16]!r} is no combination: AND and OR are")
        pair = (folded, condition)
        folded = AllOf(pair) if before == "AND" else AnyOf(pair)
    return folded


def _v1_test(rule: Said, where: str) -> Condition:
    name = str(rule.get("tag") or "").replace(" ", "")
    found = _BY_NAME.get(name)
    if found is None:
        # Never found there either: an apostrophe in the name, or no such element.
        return NEVER
    value = str(rule.get("value") or "")
    return Test(_path(found, where), "eq", (value,), compared_as="text")


def _v2_test(rule: Said, where: str) -> Condition:
    looked_at = _v2_path(str(rule.get("tag") or ""), where)
    if looked_at.vr == "SQ":
        return NEVER  # sequences were skipped
    value = str(rule.get("value") or "")
    operator = str(rule.get("operator") or "")
    if operator in _NUMERIC:
        try:
            float(value)
        except ValueError:
            return NEVER  # what is no number fails the comparison there
        return Test(looked_at, _NUMERIC[operator], (value,), compared_as="number")
    if operator in _TEXTUAL:
        name, either_case = _TEXTUAL[operator]
        return Test(
            looked_at, name, (value,), either_case=either_case, compared_as="text"
        )
    if operator in _NEGATED:
        contains = Test(
            looked_at,
            "contains",
            (value,),
            either_case=_NEGATED[operator],
            compared_as="text",
        )
        # Whatever is there contains nothing, also where it is empty.
        there = Test(looked_at, "contains", ("",), compared_as="text")
        return AllOf((there, Not(contains)))
    raise BadRule(
        f"{where}: {operator[:48]!r} is no operator of the second client; there are "
        f"{', '.join(sorted(OPERATORS))}"
    )


def _v2_path(tag: str, where: str) -> Path:
    """An element by its name in the dictionary, its keyword or its number."""
    by_name = _FULL_NAMES.get(tag.strip())
    return _path(by_name or tag, where)


def _path(text: str, where: str) -> Path:
    try:
        return path(text)
    except BadPath as err:
        raise BadRule(f"{where}: {err}") from err


# (VR, VM, name, retired, keyword) by number; pydicom gives no public way to a number
# from the full name, which is what both clients stored.
_FULL_NAMES = {entry[2]: entry[4] for entry in DicomDictionary.values() if entry[4]}
_BY_NAME = {name.replace(" ", ""): keyword for name, keyword in _FULL_NAMES.items()}


def _each(said: Any, member: str) -> list[tuple[str, Said]]:
    listed = said.get(member) if isinstance(said, dict) else said
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadRule(f"write a list of objects under {member}")
    return [(f"{member}[{at}]", one) for at, one in enumerate(listed)]


def _list(said: Said, member: str, where: str) -> list[Said]:
    listed = said.get(member)
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadRule(f"{where}.{member}: write a list of objects")
    return listed


def _in_order(members: list[Said]) -> list[Said]:
    try:
        return sorted(members, key=lambda one: int(one.get("order") or 0))
    except (TypeError, ValueError) as err:
        raise BadRule("an order is a whole number") from err


def _name(said: Said, where: str) -> str:
    name = str(said.get("name") or "").strip()
    if not name:
        raise BadRule(f"{where}.name: write a name")
    return name
