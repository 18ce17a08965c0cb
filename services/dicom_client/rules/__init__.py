"""Rules that choose a template for a series by what its headers say."""

from services.dicom_client.rules.conditions import (
    AllOf,
    AnyOf,
    BadRule,
    Condition,
    Not,
    Test,
    condition_from_json,
    condition_to_json,
)
from services.dicom_client.rules.evaluation import Trace, evaluate
from services.dicom_client.rules.imported import rules_from_v1, rules_from_v2
from services.dicom_client.rules.rule import (
    Choice,
    Rule,
    choose,
    rules_from_json,
    rules_to_json,
)

__all__ = [
    "AllOf",
    "AnyOf",
    "BadRule",
    "Choice",
    "Condition",
    "Not",
    "Rule",
    "Test",
    "Trace",
    "choose",
    "condition_from_json",
    "condition_to_json",
    "evaluate",
    "rules_from_json",
    "rules_from_v1",
    "rules_from_v2",
    "rules_to_json",
]
