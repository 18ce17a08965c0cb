"""Table E.1-1 of PS3.15 as values: what each attribute's action is, and per option.

The table of edition 2024b is `data/confidentiality_profile_attributes.json` (from
innolitics/dicom-standard, MIT); the attributes that came with edition 2026c are
`data/additions_2026c.json`, with the basic action and, where an older row shows it, the
options. Both are read once. Tags are integers, `group << 16 | element`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Final


class Option(StrEnum):
    """The options of Annex E; the value is the name used in profiles."""

    CLEAN_PIXEL_DATA = "clean_pixel_data"
    CLEAN_VISUAL_FEATURES = "clean_recognizable_visual_features"
    CLEAN_GRAPHICS = "clean_graphics"
    CLEAN_STRUCTURED_CONTENT = "clean_structured_content"
    CLEAN_DESCRIPTORS = "clean_descriptors"
    RETAIN_FULL_DATES = "retain_longitudinal_full_dates"
    RETAIN_MODIFIED_DATES = "retain_longitudinal_modified_dates"
    RETAIN_PATIENT_CHARACTERISTICS = "retain_patient_characteristics"
    RETAIN_DEVICE_IDENTITY = "retain_device_identity"
    RETAIN_UIDS = "retain_uids"
    RETAIN_SAFE_PRIVATE = "retain_safe_private"
    RETAIN_INSTITUTION_IDENTITY = "retain_institution_identity"


# CID 7050 of PS3.16. Ten options are columns of the table; the two on pixels (clean
# pixel data, clean recognizable visual features) concern no attribute.
CODES: Final = {
    Option.CLEAN_PIXEL_DATA: ("113101", "Clean Pixel Data Option"),
    Option.CLEAN_VISUAL_FEATURES: (
        "113102",
        "Clean Recognizable Visual Features Option",
    ),
    Option.CLEAN_GRAPHICS: ("113103", "Clean Graphics Option"),
    Option.CLEAN_STRUCTURED_CONTENT: ("113104", "Clean Structured Content Option"),
    Option.CLEAN_DESCRIPTORS: ("113105", "Clean Descriptors Option"),
    Option.RETAIN_FULL_DATES: (
        "113106",
        "Retain Longitudinal Temporal Information Full Dates Option",
    ),
    Option.RETAIN_MODIFIED_DATES: (
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    Option.RETAIN_PATIENT_CHARACTERISTICS: (
        "113108",
        "Retain Patient Characteristics Option",
    ),
    Option.RETAIN_DEVICE_IDENTITY: ("113109", "Retain Device Identity Option"),
    Option.RETAIN_UIDS: ("113110", "Retain UIDs Option"),
    Option.RETAIN_SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
    Option.RETAIN_INSTITUTION_IDENTITY: (
        "113112",
        "Retain Institution Identity Option",
    ),
}
BASIC_CODE: Final = ("113100", "Basic Application Confidentiality Profile")

_COLUMNS: Final = {
    "cleanGraphOpt": Option.CLEAN_GRAPHICS,
    "cleanStructContOpt": Option.CLEAN_STRUCTURED_CONTENT,
    "cleanDescOpt": Option.CLEAN_DESCRIPTORS,
    "rtnLongFullDatesOpt": Option.RETAIN_FULL_DATES,
    "rtnLongModifDatesOpt": Option.RETAIN_MODIFIED_DATES,
    "rtnPatCharsOpt": Option.RETAIN_PATIENT_CHARACTERISTICS,
    "rtnDevIdOpt": Option.RETAIN_DEVICE_IDENTITY,
    "rtnUIDsOpt": Option.RETAIN_UIDS,
    "rtnSafePrivOpt": Option.RETAIN_SAFE_PRIVATE,
    "rtnInstIdOpt": Option.RETAIN_INSTITUTION_IDENTITY,
}

CURVE_DATA: Final = 0x50000000
OVERLAY_DATA: Final = 0x60003000
OVERLAY_COMMENTS: Final = 0x60004000
_REPEATING: Final = {
    "50xxxxxx": CURVE_DATA,
    "60xx3000": OVERLAY_DATA,
    "60xx4000": OVERLAY_COMMENTS,
}


@dataclass(frozen=True)
class AttributeRule:
    """One row of the table.

    `basic` is the action as printed (`X`, `Z/D`, ...). A repeating group is kept under
    its first tag; `canonical` maps the others to it.
    """

    tag: int
    name: str
    basic: str
    options: dict[Option, str] = field(default_factory=dict)


def canonical(tag: int) -> int:
    """The tag under which the table keeps an attribute of a repeating group."""
    high = tag >> 24
    if high == 0x60 and tag & 0xFFFF in (0x3000, 0x4000):
        return 0x60000000 | tag & 0xFFFF
    if high == 0x50:
        return CURVE_DATA
    return tag


@cache
def attribute_rules() -> tuple[AttributeRule, ...]:
    """Every row of both editions, without the one for private attributes."""
    folder = resources.files(__package__) / "data"
    rules: list[AttributeRule] = []
    for name in ("confidentiality_profile_attributes.json", "additions_2026c.json"):
        for row in json.loads((folder / name).read_text("utf-8")):
            if "odd" in row["id"]:
                continue
            tag = _REPEATING.get(row["id"]) or int(row["id"], 16)
            options = {
                option: row[column]
                for column, option in _COLUMNS.items()
                if column in row
            }
            rules.append(AttributeRule(tag, row["name"], row["basicProfile"], options))
    return tuple(rules)
