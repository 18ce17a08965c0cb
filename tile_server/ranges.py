"""Parts of an answer (RFC 9110, section 14): what `Range` and `If-Range` ask for.

One part at a time is given. A request for several, or one that is not understood, is
answered with the whole, as the RFC allows: who asks for several can take the whole.
"""

from __future__ import annotations

import re

from tile_server.errors import OutsideTheBody

# Eighteen digits are more bytes than there are anywhere.
_ONE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


def part(wanted: str, length: int) -> range | None:
    """The bytes that a `Range` header asks for of `length`; None for all of them.

    Raises OutsideTheBody where there are none of those that it asks for.
    """
    found = _ONE.fullmatch(wanted)
    if found is None or found[0].count("-") != 1:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(length - int(last), 0), length
    else:
        start, end = int(first), length if not last else int(last) + 1
        if last and end <= start:
            return None  # not a range, says the RFC
    if start >= length or end <= start:
        raise OutsideTheBody(length)
    return range(start, min(end, length))


def still_holds(condition: str | None, etag: str | None, date: str | None) -> bool:
    """True where an `If-Range` condition lets a part be given, or where there is none.

    Tags are compared strongly and dates exactly: a part of one state joined to a part
    of another would be neither.
    """
    if condition is None:
        return True
    condition = condition.strip()
    if condition.startswith(('"', "W/")):
        return condition == etag and not condition.startswith("W/")
    return date is not None and condition == date
