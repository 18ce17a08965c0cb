"""Regular expressions on SQLite, which has none of its own, in time that is bounded.

Python's own may take for ever for a pattern such as `(a+)+$`, and hold the whole
process while they do (CWE-1333); a question comes from anybody who may look. So what is
more than a simple pattern is looked for by RE2, whose time grows with the text alone;
it knows no look-around and no references back. PostgreSQL looks for itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from theatrum.catalog.errors import BadQuery

_REPEATS = "*+?{"


def check(pattern: str, dialect: str) -> None:
    """Raise BadQuery where the database could not look for the pattern."""
    try:
        re.compile(pattern)
        if dialect == "sqlite":
            _search(pattern)
    except (re.error, ValueError) as err:
        reason = str(err).removeprefix("Invalid regular expression: ")
        raise BadQuery(f"{pattern!r} is no regular expression here: {reason}") from err


def found(pattern: str, value: object) -> bool | None:
    """Whether the pattern is found in a text; None where there is no text."""
    return _search(pattern)(value) if isinstance(value, str) else None


@functools.lru_cache(64)
def _search(pattern: str) -> Callable[[str], bool]:
    """How to look for a pattern; raises ValueError."""
    # One repeat of one character takes at most the square of the text's length.
    if "(" not in pattern and sum(map(pattern.count, _REPEATS)) <= 1:
        own = re.compile(pattern)
        return lambda value: own.search(value) is not None
    import pyarrow as pa
    import pyarrow.compute as pc

    def search(value: str) -> bool:
        text = pa.scalar(value, pa.string())
        return bool(pc.match_substring_regex(text, pattern=pattern).as_py())

    search("")
    return search
