"""Versions of the API: `major.minor`, two whole numbers, never a decimal number.

So 1.10 is newer than 1.9. A tuple of the two compares as it should.
"""

from __future__ import annotations

import re

Version = tuple[int, int]

OLDEST: Version = (1, 5)
CASES: Version = (1, 9)
QUALITY_CONTROL: Version = (1, 10)
ITEM_LISTS: Version = (1, 6)
"""From here on, the content of a primitive result is a list of items."""


def parse_version(text: str) -> Version:
    """Read "1.10"; raises ValueError for anything else."""
    found = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", text)
    if found is None:
        raise ValueError(f"{text!r} is not a version: say major.minor, such as 1.10")
    return int(found[1]), int(found[2])


def version_text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
