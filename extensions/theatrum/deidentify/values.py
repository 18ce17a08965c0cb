"""Single values: whether a kept one can be of its VR, and dummies.

Numbers and codes are kept without a look at what they mean, and so they must be numbers
and codes: a name in an element of VR DS is not kept because DS is harmless.
"""

from __future__ import annotations

import re
from typing import Final

from theatrum.deidentify.elements import Element, vr_of

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


def is_code(text: str) -> bool:
    """Whether text could be a defined term of VR CS but for its case."""
    return re.fullmatch(r"[\w .+\\/-]*", text, re.ASCII) is not None


def dummy(element: Element) -> bytes:
    """A value that says nothing and is valid for the element's VR."""
    vr = vr_of(element)
    width = _WIDTH.get(vr)
    if width is not None:
        return bytes(width)
    return _DUMMIES.get(vr, b"\0\0" if vr in ("OB", "UN") else b"REMOVED")
