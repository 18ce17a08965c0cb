"""What to do with each attribute of one kind of file: the table, compiled.

`Rules` belongs to a profile, a modality and a SOP class. It answers with a `Do` for a
tag at a path (the tags of the sequences above it), and remembers the answer, so that a
thousand slices ask the table once.

Where Annex E leaves a choice (X/Z, X/D, X/Z/D, Z/D, X/Z/U*) the attribute's type in the
IOD decides, at that path: 1 and 1C take the dummy, 2 and 2C the empty value, 3 the
removal. A SOP class that the table does not know is treated as if everything were of
type 1, which keeps it valid and shows nothing.

Outside the table everything is closed unless something opens it: numbers and codes of
the dictionary are kept; text only from `keep_list.json`; dates go the way of dates; a
UID is replaced unless the standard registers it; what the dictionary does not know
goes.
"""

from __future__ import annotations

import json
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any, Final

from pydicom.datadict import tag_for_keyword

from theatrum.deidentify.annex_e import (
    AttributeRule,
    Option,
    attribute_rules,
    canonical,
)
from theatrum.deidentify.elements import dictionary_vr
from theatrum.deidentify.profile import Profile

TEXT_VRS: Final = frozenset(["LO", "SH", "ST", "LT", "UT", "UC", "UR"])
DATE_VRS: Final = frozenset(["DA", "DT", "TM"])

_PIXELS: Final = 0x7FE0
# Offset tables, and pixels as whole numbers; other kinds may only stand alone.
_PIXEL_TAGS: Final = frozenset(
    _PIXELS << 16 | number for number in (1, 2, 3, 8, 9, 0x10)
)
PATIENT_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020
OVERLAY_DATA: Final = 0x60003000
TEXT_VALUE: Final = 0x0040A160  # of a content item: the row of ContentSequence rules it
_DATE_OPTIONS: Final = {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES}


class Do(Enum):
    """What happens to an element."""

    KEEP = "keep, if the value can be one of its VR"
    KEEP_TEXT = "keep text, without known identifiers"
    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "replace by a dummy"
    UID = "replace the UID"
    SHIFT = "move the date"
    CLEAN = "keep the words of the vocabulary"
    INSIDE = "keep the sequence, and go inside"
    PATIENT_NAME = "the patient's pseudonym as a name"
    PATIENT_ID = "the patient's pseudonym"


class Rules:
    """The actions for files of one SOP class under one profile."""

    def __init__(self, profile: Profile, modality: str, sop_class: str) -> None:
        self.profile = profile
        self.options, self._overrules = profile.for_modality(modality)
        self._rows = _rows()
        self._types = _types_of(sop_class)
        self._keep_text, self._class_uids = _keep_list()
        self._keep_text = self._keep_text | frozenset(profile.keep_text)
        self._answers: dict[tuple[int, ...], dict[int, Do]] = {}

    def at(self, path: tuple[int, ...]) -> dict[int, Do]:
        """The answers given so far at a path; `do` fills it."""
        return self._answers.setdefault(path, {})

    def do(self, tag: int, path: tuple[int, ...]) -> Do:
        """What to do with a public element below the sequences of `path`."""
        answers = self.at(path)
        answer = answers.get(tag)
        if answer is None:
            answer = answers[tag] = self._decide(tag, path)
        return answer

    def _decide(self, tag: int, path: tuple[int, ...]) -> Do:
        vr = dictionary_vr(tag)
        if tag >> 16 == _PIXELS and (path or tag not in _PIXEL_TAGS):
            return Do.REMOVE  # nested pixels are icons, and nobody looks at them
        if tag < 0x00080000 or not vr or tag & 0xFFFF == 0 or tag == 0xFFFCFFFC:
            return Do.REMOVE  # group lengths are retired, padding may hold anything
        row = self._rows.get(canonical(tag))
        letter: str | None = self._overrules.get(tag)
        if letter is None and row is not None:
            letter = self._letter(row)
        if letter is not None:
            return self._act(letter, tag, vr, path)
        return self._outside_the_table(tag, vr, path)

    def _letter(self, row: AttributeRule) -> str:
        """The table's action under the options: K before C before the profile's."""
        cells = {row.options[option] for option in self.options & row.options.keys()}
        return "K" if "K" in cells else "C" if "C" in cells else row.basic

    def _act(self, letter: str, tag: int, vr: str, path: tuple[int, ...]) -> Do:
        if "/" in letter:
            letter = self._by_type(letter, tag, path)
        if tag == PATIENT_NAME and letter in "ZDC":
            return Do.PATIENT_NAME
        if tag == PATIENT_ID and letter in "ZDC":
            return Do.PATIENT_ID
        match letter:
            case "X":
                return Do.REMOVE
            case "Z":
                required = self._type(tag, path) in ("1", "1C")
                return Do.DUMMY if required else Do.EMPTY
            case "D":
                return Do.INSIDE if vr == "SQ" else Do.DUMMY
            case "U":
                return Do.INSIDE if vr == "SQ" else Do.UID
            case "K":
                return _kept(vr)
            case _:
                return self._clean(tag, vr)

    def _clean(self, tag: int, vr: str) -> Do:
        if vr == "SQ":
            return Do.INSIDE
        if vr in DATE_VRS:
            return Do.SHIFT
        if vr in TEXT_VRS and dictionary_vr(tag) != "UR":
            return Do.CLEAN
        return Do.UID if vr == "UI" else Do.REMOVE

    def _by_type(self, letters: str, tag: int, path: tuple[int, ...]) -> str:
        kind = self._type(tag, path)
        if letters == "X/Z/U*":
            return "X" if kind == "3" else "U"
        if kind in ("1", "1C"):
            return "D"
        if kind in ("2", "2C"):
            return "Z" if "Z" in letters else "D"
        return letters[0]

    def _type(self, tag: int, path: tuple[int, ...]) -> str:
        if self._types is None:
            return "1"
        return self._types.get((*path, tag), "3")

    def _outside_the_table(self, tag: int, vr: str, path: tuple[int, ...]) -> Do:
        if vr == "SQ":
            return Do.INSIDE
        if vr == "UI":
            return Do.KEEP if tag in self._class_uids else Do.UID
        if vr in TEXT_VRS and tag in self._keep_text:
            return Do.KEEP_TEXT
        if vr in DATE_VRS and self.options & _DATE_OPTIONS:
            kept = Option.RETAIN_FULL_DATES in self.options
            return Do.KEEP if kept else Do.SHIFT
        if tag == TEXT_VALUE and Option.CLEAN_STRUCTURED_CONTENT in self.options:
            return Do.CLEAN
        if vr in TEXT_VRS or vr in DATE_VRS or vr in ("PN", "AE", "UN"):
            return self._act("X/Z/D", tag, vr, path)
        if self._overlay_goes(tag):
            return Do.REMOVE
        return Do.KEEP

    def _overlay_goes(self, tag: int) -> bool:
        """Whether an overlay's description goes because its bits go."""
        return (
            tag >> 24 == 0x60
            and tag != OVERLAY_DATA
            and (self.do(OVERLAY_DATA, ()) is Do.REMOVE)
        )


def _kept(vr: str) -> Do:
    if vr == "SQ":
        return Do.INSIDE
    return Do.KEEP_TEXT if vr in TEXT_VRS else Do.KEEP


@cache
def _rows() -> dict[int, AttributeRule]:
    return {rule.tag: rule for rule in attribute_rules()}


def load_data(name: str) -> Any:
    """One of the JSON tables that ship; each has its own shape, hence Any."""
    folder = resources.files(__package__) / "data"
    return json.loads((folder / name).read_text("utf-8"))


@cache
def _keep_list() -> tuple[frozenset[int], frozenset[int]]:
    """Tags of text that is kept, and of UIDs that name classes."""
    table = load_data("keep_list.json")

    def tags(keywords: list[str]) -> frozenset[int]:
        return frozenset(tag for tag in map(tag_for_keyword, keywords) if tag)

    return tags(table["text"]), tags(table["class_uids"])


@cache
def _iod_tables() -> Any:
    return load_data("iod_types.json")


@cache
def _types_of(sop_class: str) -> dict[tuple[int, ...], str] | None:
    """The type of each attribute with a choice, by path; None for unknown classes."""
    tables = _iod_tables()
    iod = tables["sop_classes"].get(sop_class)
    if iod not in tables["iods"]:
        return None
    types: dict[tuple[int, ...], str] = {}
    for module in tables["iods"][iod]:
        for text, kind in tables["modules"][module].items():
            path = tuple(int(part, 16) for part in text.split("."))
            types[path] = min(kind, types.get(path, "3"))
    return types
