"""DICOM values as something that can be compared: by what they are, not how written.

PS3.5, clause 6.2, says what each value representation holds. A date is compared as a
date, so `20240101` is before `20240131`; an age in days, so `024M` is older than
`001Y`; a time to the microsecond, with what is left out taken as zero.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

Kind = Literal["text", "number", "date", "time", "moment", "age"]
As = Literal["type", "text", "number"]
Comparable = str | float | tuple[int, ...]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        ("FL", "FD", "SL", "SS", "UL", "US", "SV", "UV", "IS", "DS"), "number"
    ),
    "DA": "date",
    "TM": "time",
    "DT": "moment",
    "AS": "age",
}
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?")
_MOMENT = re.compile(
    r"(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\d{2})?(?:\.(\d{1,6}))?([+-]\d{4})?"
)
_AGE = re.compile(r"(\d{3})([DWMY])")
# PS3.5 gives no length of a month or a year; these are those of the calendar's mean.
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.436875, "Y": 365.2425}


class BadValue(ValueError):
    """A value is not of the kind that its element is; the message says how it looks."""


def kind_of(vr: str | None, compared_as: As) -> Kind:
    """As what values of an element are compared."""
    if compared_as != "type":
        return compared_as
    # "US or SS" and the like: numbers either way.
    return _KINDS.get((vr or "")[:2], "text")


def comparable(value: str | float, kind: Kind) -> Comparable:
    """Turn one value into what its kind compares; BadValue if it is none of it."""
    text = str(value).strip(" \0")
    match kind:
        case "text":
            return text
        case "number":
            return _number(text)
        case "date":
            return _fields(_DATE, text, "a date, as 20240131")
        case "time":
            return _time(text)
        case "moment":
            return _moment(text)
        case "age":
            return _age(text)


def values_of(element: DataElement) -> list[str]:
    """The values of an element as text, one by one; none of an empty one."""
    value = element.value
    if value is None or value == "" or element.VR == "SQ":
        return []
    if isinstance(value, bytes):
        return [value.decode("ascii", "replace").strip(" \0")]
    many = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [_text(one) for one in many]


def written(element: DataElement) -> str:
    """The whole value as one text, as both older clients compared it."""
    return str(element.value)


def _text(value: Any) -> str:  # Any: what pydicom makes of a value
    original = getattr(value, "original_string", None)
    return str(value if original is None else original).strip(" \0")


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as err:
        raise BadValue(f"{text[:32]!r} is no number") from err
    if not math.isfinite(number):
        raise BadValue(f"{text[:32]!r} is no finite number")
    return number


def _fields(form: re.Pattern[str], text: str, what: str) -> tuple[int, ...]:
    found = form.fullmatch(text)
    if not found:
        raise BadValue(f"{text[:32]!r} is not {what}")
    year, month, day = (int(part) for part in found.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise BadValue(f"{text[:32]!r} is not {what}")
    return year, month, day


def _time(text: str) -> tuple[int, ...]:
    found = _TIME.fullmatch(text)
    if not found or int(found[1]) > 23 or int(found[2] or 0) > 59:
        raise BadValue(f"{text[:32]!r} is not a time, as 134500")
    return (
        int(found[1]),
        int(found[2] or 0),
        int(found[3] or 0),
        int((found[4] or "").ljust(6, "0")),
    )


def _moment(text: str) -> tuple[int, ...]:
    """A date with time in universal time where the offset is given."""
    found = _MOMENT.fullmatch(text)
    if not found:
        raise BadValue(f"{text[:32]!r} is not a date with time, as 20240131134500")
    year, month, day, hour, minute, second = (
        int(found[at] or first)
        for at, first in zip(range(1, 7), (1, 1, 1, 0, 0, 0), strict=True)
    )
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59):
        raise BadValue(f"{text[:32]!r} is not a date with time, as 20240131134500")
    offset = found[8] or "+0000"
    minutes = int(offset[:3]) * 60 + int(offset[0] + offset[3:])
    # Days of a common length suffice for an order within a day's offset.
    whole = ((year * 12 + month) * 31 + day) * 1440 + hour * 60 + minute - minutes
    return whole, second, int((found[7] or "").ljust(6, "0"))


def _age(text: str) -> float:
    found = _AGE.fullmatch(text)
    if not found:
        raise BadValue(f"{text[:32]!r} is not an age, as 034Y")
    return int(found[1]) * _DAYS[found[2]]
