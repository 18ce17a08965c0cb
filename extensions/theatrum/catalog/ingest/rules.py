"""Classification rules: patterns on names and headers that say what an item is.

A rule is a row of `file_rule`. Its `pattern` is a regular expression that is searched
for in the item's name (relative to its source, with `/`); its `fields` say what to set:

    {"subject__label": "{animal}", "sample__stain": "HE",
     "criteria": {"modality": "MR", "description": "(?i)t1.*mprage",
                  "protocol.echo_time_ms": "<5"}}

A value may hold groups of the pattern in braces. A key that names a group itself may
stand for the field that the group is written to: `{"animal": "subject__label"}`. All
`criteria` have to hold: regular expressions on texts of the header, comparisons on
numbers. The rule with the smallest priority is tried first, and the first one that
holds decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from theatrum.catalog.ingest.errors import BadRule
from theatrum.catalog.ingest.fields import require_known
from theatrum.catalog.tables import FileRule

_MOST_PATTERN: Final = 500
_COMPARISON: Final = re.compile(r"\s*(<=|>=|<|>|==)\s*(-?[\d.]+(?:[eE]-?\d+)?)\s*$")
_GROUP: Final = re.compile(r"\{(\w+)\}")
# A repeat within a repeat takes for ever on a name that nearly fits.
_NESTED: Final = re.compile(r"\([^()]*[+*][^()]*\)[+*{]")
CRITERIA: Final = "criteria"


@dataclass(frozen=True)
class Rule:
    """One rule, ready to be used; made by `parse`."""

    name: str
    pattern: re.Pattern[str]
    templates: Mapping[str, Any]
    criteria: Mapping[str, str]
    priority: int = 100

    def fields(
        self, item_name: str, header: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """What the rule says of an item; None where it does not hold."""
        match = self.pattern.search(item_name)
        if match is None:
            return None
        for key, wanted in self.criteria.items():
            if not _holds(_looked_up(header, key), wanted):
                return None
        groups = match.groupdict(default="")
        return {
            name: _GROUP.sub(lambda one: groups[one[1]], value)
            if isinstance(value, str)
            else value
            for name, value in self.templates.items()
        }


def parse(
    name: str, pattern: str, fields: Mapping[str, Any], priority: int = 100
) -> Rule:
    """A rule out of its row; raises BadRule with what is wrong with it."""
    if len(pattern) > _MOST_PATTERN or _NESTED.search(pattern):
        raise BadRule(
            f"The pattern of {name} is too long, or repeats a repetition: write it "
            "without one in the other."
        )
    compiled = _compiled(name, pattern)
    criteria = fields.get(CRITERIA, {})
    if not isinstance(criteria, Mapping):
        raise BadRule(f"The criteria of {name} are no pairs of a field and a pattern.")
    for key, wanted in criteria.items():
        if not _COMPARISON.match(str(wanted)):
            _compiled(f"{name}, {key}", str(wanted))
    templates: dict[str, Any] = {}
    for key, value in fields.items():
        if key == CRITERIA:
            continue
        if key in compiled.groupindex and isinstance(value, str):
            templates[value] = f"{{{key}}}"
        else:
            templates[key] = value
    require_known(templates)
    for value in templates.values():
        for group in _GROUP.findall(str(value)):
            if group not in compiled.groupindex:
                raise BadRule(f"The pattern of {name} has no group {group}.")
    return Rule(
        name,
        compiled,
        templates,
        {key: str(value) for key, value in criteria.items()},
        priority,
    )


def rules_of(session: Session, project_id: int) -> tuple[list[Rule], list[str]]:
    """A project's rules, the first one to try first, and what is wrong with others.

    One that cannot be understood is left out, and stops nothing: rules are looked at
    when they are written, but an older one may be there, or come from elsewhere.
    """
    query = select(FileRule).where(
        FileRule.project_id == project_id, FileRule.deleted_at.is_(None)
    )
    rows = session.scalars(query.order_by(FileRule.priority, FileRule.id))
    rules, faults = [], []
    for row in rows:
        try:
            rules.append(parse(row.name, row.pattern, row.fields, row.priority))
        except BadRule as error:
            faults.append(f"The rule {row.name} was left out: {error}")
    return rules, faults


def classify(
    rules: Sequence[Rule], item_name: str, header: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The name of the first rule that holds, and what it says; ("", {}) if none."""
    for rule in rules:
        found = rule.fields(item_name, header)
        if found is not None:
            return rule.name, found
    return "", {}


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadRule(
            f"The pattern of {name} is no regular expression: {error}."
        ) from error


def _looked_up(header: Mapping[str, Any], key: str) -> Any:
    """A fact by its dotted name: `device.maker`, or DICOM's name of a few."""
    found: Any = header
    for part in _DICOM.get(key, key).split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


_DICOM: Final = {
    "SeriesDescription": "description",
    "Modality": "modality",
    "BodyPartExamined": "body_part",
    "Laterality": "laterality",
    "Manufacturer": "device.maker",
    "ManufacturerModelName": "device.model",
    "MagneticFieldStrength": "device.field_strength_t",
    "ProtocolName": "protocol.protocol",
    "EchoTime": "protocol.echo_time_ms",
    "RepetitionTime": "protocol.repetition_time_ms",
    "InversionTime": "protocol.inversion_time_ms",
    "FlipAngle": "protocol.flip_angle_deg",
    "KVP": "protocol.tube_voltage_kv",
    "ConvolutionKernel": "protocol.kernel",
    "ImageType": "protocol.image_type",
    "SequenceName": "protocol.sequence_name",
    "SliceThickness": "protocol.slice_thickness_mm",
}


def _holds(found: Any, wanted: str) -> bool:
    comparison = _COMPARISON.match(wanted)
    if comparison is not None:
        try:
            value = float(found)
        except (TypeError, ValueError):
            return False
        bound = float(comparison[2])
        return {
            "<": value < bound,
            "<=": value <= bound,
            ">": value > bound,
            ">=": value >= bound,
            "==": value == bound,
        }[comparison[1]]
    if found is None:
        return False
    text = "\\".join(map(str, found)) if isinstance(found, list) else str(found)
    return re.search(wanted, text) is not None
