"""One data set through the rules: every element, at every depth.

The engine walks the elements as they lie in the file, asks the `Rules` what to do with
each, and puts the answer in place. Bytes that are kept stay the same bytes. What cannot
be understood is dropped and counted, never a reason to refuse the file.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from theatrum.deidentify import codes, dates
from theatrum.deidentify.annex_e import BASIC_CODE, CODES, Option
from theatrum.deidentify.elements import (
    PIXEL_DATA,
    Damaged,
    Element,
    dictionary_vr,
    parse_items,
    vr_of,
)
from theatrum.deidentify.identifiers import (
    BIRTH_DATE,
    CHARACTER_SET,
    Identifiers,
    decode,
    encodings_of,
    is_character_set,
    is_registered,
    spelled,
)
from theatrum.deidentify.pseudonyms import Pseudonyms
from theatrum.deidentify.rules import TEXT_VRS, Do, Rules
from theatrum.deidentify.safe_private import SafeList
from theatrum.deidentify.values import (
    dummy,
    fits,
    has_room,
    is_of_its_kind,
)
from theatrum.deidentify.words import clean, scrub

_UID: Final = re.compile(r"[\d.]{6,}")
_OURS: Final = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})


@dataclass(frozen=True)
class Patient:
    """Who a data set is of, as far as pseudonyms go."""

    issuer: str
    patient_id: str
    code: str
    shift_days: int


@dataclass
class Scrubber:
    """What is taken out of text that is kept; remembers texts seen before."""

    words: frozenset[str]
    phrases: tuple[str, ...]
    uids: frozenset[str] = frozenset()
    _seen: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, identifiers: Identifiers) -> Scrubber:
        """A scrubber for the identifiers of a whole package."""
        phrases = identifiers.phrases | spelled(identifiers)
        ordered = tuple(sorted(phrases, key=len, reverse=True))
        words = identifiers.words | identifiers.dates
        return cls(frozenset(words), ordered, frozenset(identifiers.uids))

    def scrub(self, text: str) -> str:
        """`text` without what the package identifies people by."""
        done = self._seen.get(text)
        if done is None:
            # A package has as many UIDs as files: they are looked up, not tried.
            without = _UID.sub(
                lambda found: "" if found[0].strip(".") in self.uids else found[0], text
            )
            done = scrub(without, self.words, self.phrases)
            self._seen[text] = done
        return done


@dataclass
class Outcome:
    """What became of a data set's elements."""

    elements: list[Element]
    dates: dict[str, str] = field(default_factory=dict)
    """Dates that moved: the new by the original, as eight digits."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many elements were removed, emptied, ..., and dropped as not understood."""


@dataclass
class Engine:
    """Applies the rules to data sets of one patient."""

    rules: Rules
    pseudonyms: Pseudonyms
    scrubber: Scrubber
    safe_private: SafeList

    def run(
        self, elements: list[Element], patient: Patient, *, explicit: bool
    ) -> Outcome:
        """De-identify a data set; its own elements stay untouched."""
        outcome = Outcome([])
        walk = _Walk(self, patient, explicit, outcome)
        kept = walk.data_set(elements, (), ["latin-1"])
        kept = [element for element in kept if element.tag not in _OURS]
        have = {element.tag for element in kept}
        kept += [
            Element(tag, dictionary_vr(tag))
            for tag in self.rules.profile.ensure_present
            if tag not in have
        ]
        kept += self._required()
        kept.sort(key=lambda element: element.tag)
        outcome.elements = kept
        return outcome

    def _required(self) -> list[Element]:
        """The attributes that say that the data set is de-identified (PS3.15 E.1.1)."""
        options = self.rules.options
        profile = self.rules.profile
        if Option.RETAIN_FULL_DATES in options:
            time = b"UNMODIFIED"
        elif Option.RETAIN_MODIFIED_DATES in options:
            time = b"MODIFIED"
        else:
            time = b"REMOVED"
        codes = [BASIC_CODE, *(CODES[o] for o in Option if o in options)]
        items = [
            [
                Element(0x00080100, "SH", value.encode()),
                Element(0x00080102, "SH", b"DCM"),
                Element(0x00080104, "LO", meaning.encode()),
            ]
            for value, meaning in codes
        ]
        method = f"Theatrum, profile {profile.name} {profile.version}"[:64]
        return [
            Element(0x00120062, "CS", b"YES"),
            Element(0x00120063, "LO", method.encode()),
            Element(0x00120064, "SQ", items=items),
            Element(0x00280303, "CS", time),
        ]


class _Walk:
    def __init__(
        self, engine: Engine, patient: Patient, explicit: bool, outcome: Outcome
    ) -> None:
        self.engine = engine
        self.rules = engine.rules
        self.patient = patient
        self.explicit = explicit
        self.outcome = outcome

    def data_set(
        self, elements: list[Element], path: tuple[int, ...], encodings: list[str]
    ) -> list[Element]:
        encodings = encodings_of(elements, encodings)
        answers, decide = self.rules.at(path), self.rules.do
        counts = self.outcome.counts
        kept: list[Element] = []
        for element in elements:
            tag = element.tag
            if tag >> 16 & 1:
                continue
            do = answers.get(tag) or decide(tag, path)
            if do is Do.KEEP:
                done = self._keep(element, encodings)
            elif do is Do.REMOVE:
                counts["removed"] += 1
                continue
            elif do is Do.INSIDE:
                done = self._inside(element, path, encodings)
            else:
                done = self._changed(do, element, encodings)
                counts[do.name.lower()] += 1
            if done is None:
                counts["not_understood"] += 1
            else:
                kept.append(done)
        if any(element.is_private for element in elements):
            self._private(elements, path, kept, encodings)
        return kept

    def _private(
        self,
        elements: list[Element],
        path: tuple[int, ...],
        kept: list[Element],
        encodings: list[str],
    ) -> None:
        safe: list[Element] = []
        if Option.RETAIN_SAFE_PRIVATE in self.rules.options:
            for element, vr in self.engine.safe_private.safe_of(elements):
                done: Element | None = element
                if vr == "SQ":
                    done = self._inside(element, path, encodings)
                elif vr == "UI" and Option.RETAIN_UIDS not in self.rules.options:
                    done = self._uid(element)
                elif vr == "CS":
                    coded = self._code(element, encodings)
                    done = coded if coded is element else None
                elif vr in TEXT_VRS:
                    done = self._text(element, encodings)
                if done is not None:
                    safe.append(done)
            kept += safe
            kept.sort(key=lambda element: element.tag)
        private = sum(element.is_private for element in elements)
        self.outcome.counts["private_removed"] += private - len(safe)

    def _keep(self, element: Element, encodings: list[str]) -> Element | None:
        if element.fragments:
            return element if element.tag == PIXEL_DATA else None
        if element.items is not None:
            return None  # a sequence where the dictionary has a plain value
        vr = dictionary_vr(element.tag)
        if element.vr != vr and element.vr not in ("", "UN"):
            if not is_of_its_kind(element):
                return None
            vr = element.vr
        if element.tag == CHARACTER_SET and not is_character_set(element.value):
            return None
        if vr == "CS" and element.tag != CHARACTER_SET:
            return self._code(element, encodings)
        if not fits(element, vr) or not has_room(element, vr):
            return None
        return element

    def _code(self, element: Element, encodings: list[str]) -> Element:
        """A code string, with what is no term replaced."""
        text = decode(element.value, encodings)
        cleared = codes.cleared(text, self.engine.scrubber.words)
        if cleared == text:
            return element
        self.outcome.counts["codes_removed"] += 1
        return Element(element.tag, element.vr, cleared.encode())

    def _inside(
        self, element: Element, path: tuple[int, ...], encodings: list[str]
    ) -> Element | None:
        try:
            items = parse_items(element, explicit=self.explicit)
        except Damaged:
            return None
        below = (*path, element.tag)
        walked = [self.data_set(item, below, encodings) for item in items]
        return Element(element.tag, element.vr, items=walked)

    def _changed(
        self, do: Do, element: Element, encodings: list[str]
    ) -> Element | None:
        match do:
            case Do.EMPTY:
                items: list[list[Element]] | None = None
                if dictionary_vr(element.tag) == "SQ":
                    items = []
                return Element(element.tag, element.vr, items=items)
            case Do.DUMMY:
                return self._dummy(element, encodings)
            case Do.UID:
                return self._uid(element)
            case Do.SHIFT:
                return self._shift(element)
            case Do.KEEP_TEXT:
                return self._text(element, encodings)
            case Do.CLEAN:
                return self._clean(element, encodings)
            case Do.PATIENT_NAME:
                form = self.rules.profile.patient_name
            case _:
                form = self.rules.profile.patient_id
        text = form.replace("{code}", self.patient.code)
        return Element(element.tag, element.vr, text.encode())

    def _dummy(self, element: Element, encodings: list[str]) -> Element:
        if element.items is not None or vr_of(element) == "SQ":
            return Element(element.tag, element.vr, items=[])
        vr = vr_of(element)
        original = element.value.strip(b" \0")
        if original and vr in TEXT_VRS and vr != "UR":
            text = decode(original, encodings)
            value = self.engine.pseudonyms.code(text).encode()
        else:
            value = dummy(element)
        return Element(element.tag, element.vr, value)

    def _uid(self, element: Element) -> Element | None:
        if element.items is not None or element.fragments:
            return None
        uids = [
            part.strip(" \0") for part in element.value.decode("latin-1").split("\\")
        ]
        mapped = [
            uid if not uid or is_registered(uid) else self.engine.pseudonyms.uid(uid)
            for uid in uids
        ]
        return Element(element.tag, element.vr, "\\".join(mapped).encode("latin-1"))

    def _shift(self, element: Element) -> Element | None:
        vr = dictionary_vr(element.tag)
        if element.items is not None or element.fragments:
            return None
        if vr == "TM":
            return element if fits(element, "TM") else self._empty(element)
        move = dates.shift_date if vr == "DA" else dates.shift_date_time
        moved: list[str] = []
        for part in element.value.decode("latin-1").split("\\"):
            one = move(part, self.patient.shift_days)
            if one is None:
                return self._empty(element)
            self._remember(part, one)
            moved.append(one)
        return Element(element.tag, element.vr, "\\".join(moved).encode())

    def _remember(self, original: str, moved: str) -> None:
        before = original.strip(" \0").replace(".", "").replace("-", "")[:8]
        after = moved.replace(".", "").replace("-", "")[:8]
        if len(before) == 8:
            self.outcome.dates[before] = after

    def _empty(self, element: Element) -> Element:
        self.outcome.counts["not_understood"] += 1
        return Element(element.tag, element.vr)

    def _text(self, element: Element, encodings: list[str]) -> Element:
        if element.items is not None or element.fragments:
            return self._empty(element)
        text = decode(element.value, encodings)
        cleared = self.engine.scrubber.scrub(text)
        if cleared == text:
            return element
        self.outcome.counts["scrubbed"] += 1
        return Element(element.tag, element.vr, _encoded(cleared, encodings))

    def _clean(self, element: Element, encodings: list[str]) -> Element:
        if element.items is not None or element.fragments:
            return self._empty(element)
        text = clean(decode(element.value, encodings), self.engine.scrubber.words)
        return Element(element.tag, element.vr, _encoded(text, encodings))


def _encoded(text: str, encodings: list[str]) -> bytes:
    from pydicom.charset import encode_string

    if text.isascii():
        return text.encode()
    return encode_string(text, encodings)


def patient_of(elements: list[Element], pseudonyms: Pseudonyms) -> Patient:
    """The patient of a data set: its id with the issuer, else what else tells one.

    Files without a patient id get a pseudonym by name and birth date, and where these
    are empty too by study, so that no two people ever share one.
    """
    wanted = {0x00100010, 0x00100020, 0x00100021, BIRTH_DATE, 0x0020000D, 0x00080018}
    encodings = encodings_of(elements, ["latin-1"])
    found = {
        element.tag: decode(element.value, encodings).strip(" \0")
        for element in elements
        if element.tag in wanted and element.items is None
    }
    issuer, patient_id = found.get(0x00100021, ""), found.get(0x00100020, "")
    if not patient_id:
        name, birth = found.get(0x00100010, ""), found.get(BIRTH_DATE, "")
        study = found.get(0x0020000D, "") or found.get(0x00080018, "")
        issuer, patient_id = "\0no id", f"{name}\0{birth}" if name else study
    return Patient(
        issuer,
        patient_id,
        pseudonyms.patient_code(issuer, patient_id),
        pseudonyms.shift_days(issuer, patient_id),
    )
