"""Rules, their order, and the one template that they choose for a series.

{"name": "Breast, deep breath", "template": "breast", "priority": 10,
 "any_of": [{"all_of": [{"tag": "Modality", "op": "eq", "value": "CT"}]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from services.dicom_client.rules.conditions import (
    BadRule,
    Condition,
    condition_from_json,
    condition_to_json,
)
from services.dicom_client.rules.evaluation import Trace, evaluate

NAME_LENGTH = 100


@dataclass(frozen=True)
class Rule:
    """One rule: where its condition holds, its template is the one to use."""

    name: str
    template: str
    condition: Condition
    priority: int = 0
    """Of several rules that hold, those with the highest priority count."""
    enabled: bool = True
    description: str = ""


@dataclass(frozen=True)
class Choice:
    """What the rules say of one series.

    `template` is None where none holds (`unmatched`) or where rules of the same
    priority name different templates (`ambiguous`): a person decides then.
    """

    template: str | None
    matched: tuple[str, ...]
    traces: tuple[tuple[Rule, Trace], ...]

    @property
    def ambiguous(self) -> bool:
        return self.template is None and bool(self.matched)


def choose(rules: Sequence[Rule], header: Dataset) -> Choice:
    """Try every enabled rule on a series' header and return what they choose."""
    traces = tuple(
        (rule, evaluate(rule.condition, header)) for rule in rules if rule.enabled
    )
    held = [rule for rule, trace in traces if trace.holds]
    if not held:
        return Choice(None, (), traces)
    highest = max(rule.priority for rule in held)
    first = [rule for rule in held if rule.priority == highest]
    templates = {rule.template for rule in first}
    template = templates.pop() if len(templates) == 1 else None
    return Choice(template, tuple(rule.name for rule in first), traces)


def rules_from_json(text: str | bytes) -> list[Rule]:
    """Read exported rules; BadRule says which one is wrong and where."""
    try:
        said = json.loads(text)
    except ValueError as err:
        raise BadRule(f"this is no JSON: {err}") from err
    listed = said.get("rules") if isinstance(said, dict) else said
    if not isinstance(listed, list):
        raise BadRule('write {"rules": [...]} or a list of rules')
    rules = [_rule(one, f"rules[{at}]") for at, one in enumerate(listed)]
    _check_names(rules)
    return rules


def rules_to_json(rules: Iterable[Rule]) -> str:
    """Write rules so that they read back as the same."""
    return json.dumps({"rules": [_as_json(rule) for rule in rules]}, indent=2) + "\n"


def _as_json(rule: Rule) -> dict[str, Any]:
    said: dict[str, Any] = {"name": rule.name, "template": rule.template}
    if rule.description:
        said["description"] = rule.description
    if rule.priority:
        said["priority"] = rule.priority
    if not rule.enabled:
        said["enabled"] = False
    condition = condition_to_json(rule.condition)
    # A single test stands beside the rule's own members only within a list.
    return said | (condition if "tag" not in condition else {"all_of": [condition]})


def _rule(said: Any, where: str) -> Rule:  # Any: JSON
    if not isinstance(said, dict):
        raise BadRule(f"{where}: a rule is an object")
    own = {"name", "template", "description", "priority", "enabled"}
    condition = {name: value for name, value in said.items() if name not in own}
    name = _text(said.get("name"), f"{where}.name")
    priority = said.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise BadRule(f"{where}.priority: write a whole number")
    enabled = said.get("enabled", True)
    if not isinstance(enabled, bool):
        raise BadRule(f"{where}.enabled: write true or false")
    return Rule(
        name,
        _text(said.get("template"), f"{where}.template"),
        condition_from_json(condition, where),
        priority,
        enabled,
        str(said.get("description", "")),
    )


def _text(said: Any, where: str) -> str:
    if not isinstance(said, str) or not 0 < len(said.strip()) <= NAME_LENGTH:
        raise BadRule(f"{where}: write a name of at most {NAME_LENGTH} characters")
    return said.strip()


def _check_names(rules: Sequence[Rule]) -> None:
    seen: set[str] = set()
    for rule in rules:
        if rule.name in seen:
            raise BadRule(f"two rules have the name {rule.name!r}: rename one")
        seen.add(rule.name)
