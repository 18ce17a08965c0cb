"""Moving dates by whole days, in the three forms in which DICOM writes them.

DA is `YYYYMMDD` (`YYYY.MM.DD` in ACR-NEMA), DT may end after any part, TM is a time of
day and does not move when the shift is a whole number of days.
"""

from __future__ import annotations

import datetime
import re
from typing import Final

_DA: Final = re.compile(r"(\d{4})([.-]?)(\d{2})\2(\d{2})")
_DT: Final = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2,6}(?:\.\d{1,6})?)?([+-]\d{4})?")


def shift_date(text: str, days: int) -> str | None:
    """A DA moved by `days`; None where it is no date. Empty stays empty."""
    text = text.strip(" \0")
    if not text:
        return ""
    found = _DA.fullmatch(text)
    if found is None:
        return None
    moved = _moved(int(found[1]), int(found[3]), int(found[4]), days)
    return (
        None
        if moved is None
        else moved.strftime(f"%Y{found[2]}%m{found[2]}%d").zfill(len(text))
    )


def shift_date_time(text: str, days: int) -> str | None:
    """A DT moved by `days`, as exact as it was; None where it is none.

    The offset from UTC is dropped, as TimezoneOffsetFromUTC is: it tells a place.
    """
    text = text.strip(" \0")
    if not text:
        return ""
    found = _DT.fullmatch(text)
    if found is None:
        return None
    year, month, day, time, _ = found.groups()
    moved = _moved(int(year), int(month or 1), int(day or 1), days)
    if moved is None:
        return None
    whole = moved.strftime("%Y%m%d").zfill(8)
    return whole[: 4 + 2 * bool(month) + 2 * bool(day)] + (time or "")


def _moved(year: int, month: int, day: int, days: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day) + datetime.timedelta(days=days)
    except (ValueError, OverflowError):
        return None


def spellings(text: str) -> set[str]:
    """A date as it may stand in other text: the usual orders and separators."""
    found = re.match(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})", text.strip(" \0"))
    if found is None:
        return set()
    year, month, day = found.groups()
    return {
        f"{year}{month}{day}",
        *(f"{year}{s}{month}{s}{day}" for s in "-./"),
        *(f"{day}{s}{month}{s}{year}" for s in "-./"),
        *(f"{month}{s}{day}{s}{year}" for s in "-./"),
    }
