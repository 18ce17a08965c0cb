"""DICOM data sets as elements whose values stay bytes until somebody needs them.

De-identification keeps most values as they are, drops many, and looks into few. So a
data set is cut into `Element`s whose value is a slice of the file; sequences of defined
length are cut only when asked for. Two things follow: pixel data are never copied into
other types, and an element that is dropped is never decoded, so that its damage is
nobody's trouble.

A damaged element that is private or unknown is passed over: the parser looks for the
next header that can only be one (an ascending tag of the dictionary with its own VR,
and a length that fits). A damaged element of the standard is `Damaged`.

Little endian only; `part10` brings the other encodings into it. PS3.5 section 7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, cast

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import get_entry

UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA: Final = 0x7FE00010
_PIXELS: Final = 0x7FE0
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_DELIMITER: Final = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_MAX_DEPTH: Final = 64

LONG_VRS: Final = frozenset(
    ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]
)
SHORT_VRS: Final = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FL",
        "FD",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "TM",
        "UI",
        "UL",
        "US",
    ]
)
_PADDED_BY_SPACES: Final = frozenset(
    SHORT_VRS - {"AT", "FD", "FL", "SL", "SS", "UI", "UL", "US"} | {"UC", "UR", "UT"}
)
_VR_OF_BYTES: Final = {vr.encode(): vr for vr in LONG_VRS | SHORT_VRS}

_HEADER: Final = struct.Struct("<HH2sH")
_TAG_LENGTH: Final = struct.Struct("<HHL")
_LONG: Final = struct.Struct("<L")


class Damaged(Exception):
    """The bytes are no DICOM elements from some point on."""

    before: tuple[Element, ...] = ()
    """The elements of the data set that stand before the damage."""


@dataclass(slots=True)
class Element:
    """One element. Either `value` or `items` is set; `items` belong to a sequence.

    `vr` is what the file says, and empty in implicit VR. `fragments` tells encapsulated
    pixel data, whose `value` is everything up to and with the sequence delimiter.
    """

    tag: int
    vr: str
    value: bytes = b""
    items: list[list[Element]] | None = None
    fragments: bool = False

    @property
    def is_private(self) -> bool:
        return bool(self.tag >> 16 & 1)


@dataclass
class Parsed:
    """A data set, and the tags of damaged elements that were passed over."""

    elements: list[Element]
    damaged: list[int] = field(default_factory=list)


@lru_cache(maxsize=16384)
def dictionary_vr(tag: int) -> str:
    """The dictionary's VR of a public element; empty for what it does not know."""
    entry = DicomDictionary.get(tag)
    if entry is None:
        if tag >> 24 not in (0x50, 0x60) or tag >> 16 & 1:
            return ""
        try:
            entry = get_entry(tag)
        except KeyError:
            return ""
    return entry[0].split(" or ")[0]


@lru_cache(maxsize=16384)
def dictionary_vrs(tag: int) -> frozenset[str]:
    """All VRs that the dictionary lets a public element have."""
    entry = DicomDictionary.get(tag)
    vrs = entry[0] if entry is not None else dictionary_vr(tag)
    return frozenset(vrs.split(" or "))


@lru_cache(maxsize=16384)
def most_values(tag: int) -> int | None:
    """How many values a public element may have; None where that is open."""
    entry = DicomDictionary.get(tag)
    most = entry[1].split("-")[-1] if entry is not None else "n"
    return int(most) if most.isdigit() else None


def vr_of(element: Element) -> str:
    """The VR to read an element's value with: the file's own, else the dictionary's."""
    if element.vr and element.vr != "UN":
        return element.vr
    return dictionary_vr(element.tag) or element.vr


def parse(buffer: bytes, *, explicit: bool, start: int = 0) -> Parsed:
    """Cut the data set that begins at `start` into elements.

    Raises
    ------
    Damaged
        Where an element of the standard cannot be cut out.
    """
    parsed = Parsed([])
    parser = _Parser(buffer, parsed.damaged)
    parsed.elements, _ = parser.data_set(start, len(buffer), explicit, 0)
    return parsed


def parse_items(element: Element, *, explicit: bool) -> list[list[Element]]:
    """The items of a sequence; cut now where the file gives its length."""
    if element.items is None:
        inner = explicit and element.vr != "UN"
        parser = _Parser(element.value, [])
        element.items, _ = parser.items(0, len(element.value), inner, 1)
        element.value = b""
    return element.items


class _Parser:
    def __init__(self, buffer: bytes, damaged: list[int]) -> None:
        self.buffer = buffer
        self.damaged = damaged

    def data_set(
        self,
        start: int,
        end: int,
        explicit: bool,
        depth: int,
        *,
        delimited: bool = False,
    ) -> tuple[list[Element], int]:
        """Elements of [start, end), and where they end."""
        if depth > _MAX_DEPTH:
            raise Damaged("sequences are nested deeper than any real file's")
        buffer, at = self.buffer, start
        found: list[Element] = []
        last = -1
        while at + 8 <= end:
            group, number, vr_bytes, short = _HEADER.unpack_from(buffer, at)
            tag = group << 16 | number
            if group == 0xFFFE:
                if tag == _ITEM_END and delimited:
                    return found, at + 8
                raise Damaged("a delimiter stands where an element should")
            vr = ""
            if not explicit:
                length = _LONG.unpack_from(buffer, at + 4)[0]
                value = at + 8
            elif (vr := _VR_OF_BYTES.get(vr_bytes, "")) and vr not in LONG_VRS:
                length, value = short, at + 8
            elif vr and at + 12 <= end:
                length, value = _LONG.unpack_from(buffer, at + 8)[0], at + 12
            else:
                vr = "UN"
                length, value = self._length_of_unknown_vr(at, end, tag)
            try:
                if length == UNDEFINED:
                    element, at_next = self._undefined(
                        tag, vr, value, end, explicit, depth
                    )
                elif value + length > end:
                    raise Damaged("a value is longer than the file")
                else:
                    at_next = value + length
                    element = Element(tag, vr, self._value(group, value, at_next))
            except Damaged as err:
                if not (group & 1) and dictionary_vr(tag):
                    err.before = tuple(found)
                    raise
                self.damaged.append(tag)
                resumed = self._next_header(at + 8, end, max(tag, last), explicit)
                if resumed is None:
                    return found, end
                at = resumed
                continue
            found.append(element)
            last = tag
            at = at_next
        if delimited:
            raise Damaged("an item has no end")
        return found, end

    def _value(self, group: int, start: int, end: int) -> bytes:
        if group != _PIXELS:
            return self.buffer[start:end]
        # A view, not a copy: pixels are only measured, searched and written.
        return cast("bytes", memoryview(self.buffer)[start:end])

    def _undefined(
        self, tag: int, vr: str, value: int, end: int, explicit: bool, depth: int
    ) -> tuple[Element, int]:
        if tag >> 16 == _PIXELS and vr in ("OB", "OW", "UN", ""):
            stop = self._fragments(value, end)
            content = self._value(_PIXELS, value, stop)
            return Element(tag, vr, content, fragments=True), stop
        if vr not in ("SQ", "UN", ""):
            raise Damaged("only sequences may leave their length open")
        items, stop = self.items(
            value, end, explicit and vr != "UN", depth + 1, open_=True
        )
        return Element(tag, vr, items=items), stop

    def items(
        self, start: int, end: int, explicit: bool, depth: int, *, open_: bool = False
    ) -> tuple[list[list[Element]], int]:
        """The items of a sequence's value, and where it ends."""
        at = start
        found: list[list[Element]] = []
        while at + 8 <= end:
            group, number, length = _TAG_LENGTH.unpack_from(self.buffer, at)
            tag = group << 16 | number
            at += 8
            if tag == _SEQUENCE_END:
                return found, at
            if tag != _ITEM:
                raise Damaged("a sequence holds something that is no item")
            if length == UNDEFINED:
                item, at = self.data_set(at, end, explicit, depth, delimited=True)
            elif at + length > end:
                raise Damaged("an item is longer than its sequence")
            else:
                item, _ = self.data_set(at, at + length, explicit, depth)
                at += length
            found.append(item)
        if open_:
            raise Damaged("a sequence has no end")
        return found, end

    def _fragments(self, start: int, end: int) -> int:
        at = start
        while at + 8 <= end:
            group, number, length = _TAG_LENGTH.unpack_from(self.buffer, at)
            tag = group << 16 | number
            at += 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM or length == UNDEFINED:
                raise Damaged("compressed pixel data are cut into no fragments")
            at += length
        raise Damaged("compressed pixel data have no end")

    def _length_of_unknown_vr(self, at: int, end: int, tag: int) -> tuple[int, int]:
        """Length and start of a value whose VR no edition of PS3.5 knows.

        PS3.5 7.1.2 gives VRs to come a 32-bit length after two reserved bytes; some
        writers leave the VR out altogether, or give 16 bits. What fits is taken.
        """
        choices: list[tuple[int, int]] = []
        if at + 12 <= end:
            choices.append((_LONG.unpack_from(self.buffer, at + 8)[0], at + 12))
        choices.append((_LONG.unpack_from(self.buffer, at + 4)[0], at + 8))
        choices.append((struct.unpack_from("<H", self.buffer, at + 6)[0], at + 8))
        for length, value in choices:
            if length != UNDEFINED and self._may_follow(value + length, end, tag):
                return length, value
        return end, at + 8  # does not fit: damaged

    def _may_follow(self, at: int, end: int, tag: int) -> bool:
        if at == end:
            return True
        if at + 8 > end:
            return False
        group, number, vr_bytes, _ = _HEADER.unpack_from(self.buffer, at)
        following = group << 16 | number
        return following == _ITEM_END or (following > tag and vr_bytes in _VR_OF_BYTES)

    def _next_header(
        self, start: int, end: int, tag: int, explicit: bool
    ) -> int | None:
        """Where a header of the standard stands after a damaged element, if at all."""
        buffer = self.buffer
        for at in range(start, end - 8):
            group = buffer[at] | buffer[at + 1] << 8
            if group & 1 or (group << 16 <= tag & 0xFFFF0000 and group < 8):
                continue
            found = group << 16 | buffer[at + 2] | buffer[at + 3] << 8
            if found <= tag or found not in DicomDictionary:
                continue
            if explicit:
                vr = _VR_OF_BYTES.get(buffer[at + 4 : at + 6])
                if vr is None or vr not in DicomDictionary[found][0]:
                    continue
                if vr in LONG_VRS:
                    if at + 12 > end or buffer[at + 6 : at + 8] != b"\0\0":
                        continue
                    length, value = _LONG.unpack_from(buffer, at + 8)[0], at + 12
                else:
                    length, value = buffer[at + 6] | buffer[at + 7] << 8, at + 8
            else:
                length, value = _LONG.unpack_from(buffer, at + 4)[0], at + 8
            if length != UNDEFINED and value + length > end:
                continue
            if (
                length != UNDEFINED
                and not explicit
                and not self._ascends(value + length, end, found)
            ):
                continue
            return at
        return None

    def _ascends(self, at: int, end: int, tag: int) -> bool:
        if at == end:
            return True
        if at + 8 > end:
            return False
        group, number, _ = _TAG_LENGTH.unpack_from(self.buffer, at)
        return int(group << 16 | number) > tag


def encode(elements: Iterable[Element], *, explicit: bool) -> list[bytes]:
    """The elements as pieces of bytes, in the order given, lengths all defined."""
    pieces: list[bytes] = []
    for element in elements:
        _encode_one(element, explicit, pieces)
    return pieces


def _encode_one(element: Element, explicit: bool, pieces: list[bytes]) -> None:
    vr, value = element.vr, element.value
    if element.items is not None:
        inside = explicit and vr != "UN"
        value = _encode_items(element.items, inside)
    length = UNDEFINED if element.fragments else len(value)
    if len(value) & 1:
        padded = vr or dictionary_vr(element.tag)
        pad = b" " if padded in _PADDED_BY_SPACES else b"\0"  # PS3.5 6.2
        value = bytes(value) + pad
        length += 1
    group, number = element.tag >> 16, element.tag & 0xFFFF
    if not explicit:
        pieces.append(_TAG_LENGTH.pack(group, number, length))
    else:
        vr = vr or dictionary_vr(element.tag) or "UN"
        if vr not in LONG_VRS and length > 0xFFFF:
            vr = "UN"  # PS3.5 6.2.2: what does not fit 16 bits is written as UN
        if vr in LONG_VRS:
            pieces.append(_HEADER.pack(group, number, vr.encode(), 0))
            pieces.append(_LONG.pack(length))
        else:
            pieces.append(_HEADER.pack(group, number, vr.encode(), length))
    pieces.append(value)


def _encode_items(items: Sequence[Sequence[Element]], explicit: bool) -> bytes:
    pieces: list[bytes] = []
    for item in items:
        content = b"".join(encode(item, explicit=explicit))
        pieces.append(_TAG_LENGTH.pack(0xFFFE, 0xE000, len(content)))
        pieces.append(content)
    return b"".join(pieces)
