"""The identifiers that a file holds: what the scrubbing and the canary look for.

Collected from the input before anything is written, at every depth: names (whole and
word for word), ids, addresses and every other text that table E.1-1 removes without the
descriptors' option, UIDs that the standard does not register, and dates. Values that
an option of the profile keeps are no identifiers, nor are words of the vocabulary, nor
what a device or an institution shares with the device's model name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from pydicom._uid_dict import UID_dictionary
from pydicom.charset import convert_encodings, decode_bytes, python_encoding

from theatrum.deidentify.annex_e import Option, attribute_rules
from theatrum.deidentify.dates import spellings
from theatrum.deidentify.elements import Damaged, Element, dictionary_vr, parse_items
from theatrum.deidentify.rules import PATIENT_ID, PATIENT_NAME, TEXT_VRS, Do, Rules
from theatrum.deidentify.words import WORD, clean, vocabulary

CHARACTER_SET: Final = 0x00080005
# The standard's own numbers are short: a date or a person's number is not.
_REGISTERED: Final = re.compile(r"1\.2\.840\.10008(\.\d{1,4}){1,8}", re.ASCII)
BIRTH_DATE: Final = 0x00100030
_MODELS: Final = frozenset({0x00080070, 0x00081090, 0x00181020})
_DELIMITERS: Final = {ord(one) for one in "\\^=\n\r\t\f"}
MIN_WORD: Final = 3
_PLAIN: Final = frozenset(
    [
        "anon",
        "anonymous",
        "anonymized",
        "anonymised",
        "unknown",
        "none",
        "null",
        "test",
        "patient",
        "phantom",
    ]
)


@dataclass
class Identifiers:
    """What must not come out, of one file or of a package."""

    words: set[str] = field(default_factory=set)
    """Single words, case-folded, three characters or more."""
    phrases: set[str] = field(default_factory=set)
    """Whole values with other characters than letters and digits in them."""
    uids: set[str] = field(default_factory=set)
    dates: set[str] = field(default_factory=set)
    """Dates as eight digits."""
    birth_dates: set[str] = field(default_factory=set)
    raw: set[bytes] = field(default_factory=set)
    """Values that are not ASCII, as they are encoded in the file."""

    def add(self, other: Identifiers) -> None:
        """Take another file's identifiers in."""
        self.words |= other.words
        self.phrases |= other.phrases
        self.uids |= other.uids
        self.dates |= other.dates
        self.birth_dates |= other.birth_dates
        self.raw |= other.raw


def is_registered(uid: str) -> bool:
    """Whether a UID is the standard's own and so says nothing of an instance."""
    return _REGISTERED.fullmatch(uid) is not None or uid in UID_dictionary


@cache
def _kinds() -> dict[int, str]:
    """Which attributes of the table hold identity: `name`, `text`, `uid`, `date`."""
    kinds: dict[int, str] = {}
    for rule in attribute_rules():
        vr = dictionary_vr(rule.tag)
        if vr == "PN":
            kinds[rule.tag] = "name"
        elif vr == "UI":
            kinds[rule.tag] = "uid"
        elif vr in ("DA", "DT"):
            kinds[rule.tag] = "date"
        elif Option.RETAIN_PATIENT_CHARACTERISTICS in rule.options:
            continue
        elif Option.CLEAN_DESCRIPTORS in rule.options:
            kinds[rule.tag] = "descriptor"
        elif vr in TEXT_VRS or vr == "AE":
            kinds[rule.tag] = "text"
    return kinds


def encodings_of(elements: Iterable[Element], inherited: list[str]) -> list[str]:
    """Python's codecs for the character set of a data set."""
    for element in elements:
        if element.tag == CHARACTER_SET:
            if not is_character_set(element.value):
                return ["latin-1"]
            names = element.value.decode("latin-1").strip(" \0").split("\\")
            try:
                return list(convert_encodings(names))
            except (LookupError, ValueError):
                return ["latin-1"]
        if element.tag > CHARACTER_SET:
            break
    return inherited


def is_character_set(value: bytes) -> bool:
    """Whether a value names character sets; pydicom's warnings quote what is none."""
    names = value.decode("latin-1").strip(" \0").split("\\")
    return all(name.strip() in python_encoding for name in names)


def decode(value: bytes, encodings: list[str]) -> str:
    """Text of a value; bytes that are not of its character set as Latin-1."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    try:
        return decode_bytes(value, encodings, _DELIMITERS)
    except (LookupError, ValueError):
        return value.decode("latin-1")


def collect(elements: list[Element], rules: Rules, *, explicit: bool) -> Identifiers:
    """The identifiers of one data set, at every depth."""
    found = Identifiers()
    _Collector(found, rules, explicit).walk(elements, (), ["latin-1"])
    return found


class _Collector:
    def __init__(self, found: Identifiers, rules: Rules, explicit: bool) -> None:
        self.found = found
        self.rules = rules
        self.explicit = explicit
        self.models: set[str] = set()

    def walk(
        self, elements: list[Element], path: tuple[int, ...], encodings: list[str]
    ) -> None:
        encodings = encodings_of(elements, encodings)
        if not path:
            self.models = {
                decode(element.value, encodings).strip(" \0").casefold()
                for element in elements
                if element.tag in _MODELS
            }
        kinds = _kinds()
        for element in elements:
            tag = element.tag
            if element.items is not None or element.vr == "SQ" or _has_items(element):
                self._inside(element, path, encodings)
                continue
            kind = kinds.get(tag)
            if kind is None:
                vr = dictionary_vr(tag)
                if vr == "SQ" and not element.fragments:
                    self._inside(element, path, encodings)
                    continue
                kind = {"PN": "name", "UI": "uid"}.get(vr) or (
                    {"PN": "name", "UI": "uid"}.get(element.vr) if not vr else None
                )
            if kind is not None and len(element.value) > 1:
                self._value(kind, element, path, encodings)

    def _inside(
        self, element: Element, path: tuple[int, ...], encodings: list[str]
    ) -> None:
        safe_private = Option.RETAIN_SAFE_PRIVATE in self.rules.options
        if element.is_private and element.items is None and not safe_private:
            return  # dropped undecoded
        try:
            items = parse_items(element, explicit=self.explicit)
        except Damaged:
            return  # the engine drops it
        for item in items:
            self.walk(item, (*path, element.tag), encodings)

    def _value(
        self, kind: str, element: Element, path: tuple[int, ...], encodings: list[str]
    ) -> None:
        if not element.is_private and self._is_kept(element.tag, path):
            return
        keeps_uids = Option.RETAIN_UIDS in self.rules.options
        if element.is_private and kind == "uid" and keeps_uids:
            return
        text = decode(element.value, encodings).strip(" \0")
        if not text or len(text) > 10_000:
            return
        if kind == "uid":
            self.found.uids |= {
                uid
                for part in text.split("\\")
                if len(uid := part.strip(" \0")) > 5 and not is_registered(uid)
            }
            return
        if kind == "date":
            dates = {
                s[:8] for s in text.replace(".", "").split("\\") if s[:8].isdigit()
            }
            dates = {date for date in dates if len(date) == 8}
            self.found.dates |= dates
            if element.tag == BIRTH_DATE:
                self.found.birth_dates |= dates
            return
        if not element.value.isascii() and kind != "descriptor":
            self.found.raw |= {
                part
                for part in element.value.replace(b"=", b"^").strip(b" \0").split(b"^")
                if len(part) >= 4
            }
        for part in text.split("\\"):
            self._text(kind, part.strip(" \0"), element.tag)

    def _is_kept(self, tag: int, path: tuple[int, ...]) -> bool:
        return self.rules.do(tag, path) in (Do.KEEP, Do.KEEP_TEXT)

    def _text(self, kind: str, part: str, tag: int) -> None:
        lower = part.casefold()
        if kind == "name":
            for word in WORD.findall(part):
                self._word(word.casefold())
            if len(part) >= 5 and not part.isalnum():
                self._phrase(lower)
            return
        if kind == "descriptor":
            # A description is an identifier where it says more than technique does.
            if len(part) >= 8 and clean(part) != " ".join(part.split()):
                self._phrase(lower)
            return
        if lower in self.models and tag not in (PATIENT_ID, PATIENT_NAME):
            return
        if part.isalnum():
            self._word(lower)
        elif len(part) >= MIN_WORD:
            self._phrase(lower)

    def _word(self, word: str) -> None:
        if len(word) >= MIN_WORD and word not in vocabulary() and word not in _PLAIN:
            self.found.words.add(word)

    def _phrase(self, phrase: str) -> None:
        said = [word.casefold() for word in WORD.findall(phrase)]
        if len(phrase) < 4 or phrase in self.models:
            return
        if any(word not in vocabulary() and word not in _PLAIN for word in said):
            self.found.phrases.add(phrase)


def _has_items(element: Element) -> bool:
    """Whether a private value without a VR of its own is a sequence, by its bytes."""
    return (
        element.is_private
        and element.vr in ("", "UN")
        and element.value[:4] == b"\xfe\xff\x00\xe0"
    )


def spelled(identifiers: Identifiers) -> set[str]:
    """The birth dates in every spelling that text uses."""
    return {text for date in identifiers.birth_dates for text in spellings(date)}
