"""Single values: whether a kept one can be of its VR, and dummies.

Numbers and codes are kept without a look at what they mean, and so they must be numbers
and codes: a name in an element of VR DS is not kept because DS is harmless.
"""

from __future__ import annotations

from typing import Final

from theatrum.deidentify.elements import (
    Element,
    dictionary_vrs,
    most_values,
    vr_of,
)

_ALLOWED: Final = {
    "DS": b"0123456789+-.eE \\\0",
    "IS": b"0123456789+-. \\\0",
    "AS": b"0123456789DWMY \\\0",
    "CS": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ \\\0",
    "UI": b"0123456789.\\ \0",
    "DA": b"0123456789.- \\\0",
    "TM": b"0123456789.:- \\\0",
    "DT": b"0123456789.+- \\\0",
}
_WIDTH: Final = {
    **dict.fromkeys(("US", "SS", "OW"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "AT", "OF", "OL"), 4),
    **dict.fromkeys(("FD", "UV", "SV", "OD", "OV"), 8),
}

_NUMBERS: Final = frozenset(("US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"))
_DIGITS: Final = frozenset(("DS", "IS"))
_TIMES: Final = frozenset(("DA", "DT", "TM"))

_DUMMIES: Final = {
    "AE": b"REMOVED",
    "AS": b"000Y",
    "CS": b"REMOVED",
    "DA": b"19000101",
    "DS": b"0",
    "DT": b"19000101000000",
    "IS": b"0",
    "PN": b"ANON",
    "TM": b"000000",
    "UR": b"urn:removed",
}


def fits(element: Element, vr: str) -> bool:
    """Whether a value can be one of `vr`; any other kind of value always does."""
    value = element.value
    allowed = _ALLOWED.get(vr)
    if allowed is not None:
        return not value.translate(None, allowed)
    return len(value) % _WIDTH.get(vr, 1) == 0


def is_of_its_kind(element: Element) -> bool:
    """Whether an element's VR, where it is not the dictionary's, is one of its kind.

    Numbers may be written as other numbers, and numbers in digits stand for codes and
    numbers too; bytes of any meaning (OB, OW, ...) stand for nothing else.
    """
    wanted = dictionary_vrs(element.tag)
    if element.vr in wanted or element.vr in ("", "UN"):
        return True
    if element.vr in _DIGITS:
        return bool(wanted & (_DIGITS | _NUMBERS | {"CS"}))
    return any(element.vr in kind and wanted & kind for kind in (_NUMBERS, _TIMES))


def has_room(element: Element, vr: str) -> bool:
    """Whether a binary number has no more values than the standard gives it."""
    most = most_values(element.tag) if vr in _NUMBERS else None
    return most is None or len(element.value) <= most * _WIDTH[vr]


def dummy(element: Element) -> bytes:
    """A value that says nothing and is valid for the element's VR."""
    vr = vr_of(element)
    width = _WIDTH.get(vr)
    if width is not None:
        return bytes(width)
    return _DUMMIES.get(vr, b"\0\0" if vr in ("OB", "UN") else b"REMOVED")
