"""Code strings: which are terms, and which could be anybody's name.

PS3.15 leaves attributes of VR CS alone, for they hold defined terms. Scanners and
people write what they like into some of them (a body part, the last values of an image
type), and a name in capitals is a valid code string (PS3.5 6.2). So a code is kept only
where each of its words is of `data/code_terms.txt` (the defined terms and enumerated
values of PS3.3 and what the large makers add) or of the vocabulary; where it has one or
two letters; or where it is letters with a short number, as in `SOM5`. Any other becomes
`REMOVED`, in its place, so that a type 1 attribute stays valid.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib import resources
from typing import Final

from theatrum.deidentify.words import vocabulary

UNKNOWN: Final = "REMOVED"

_PARTS: Final = re.compile(r"[^\W_]+")
_ALLOWED: Final = re.compile(r"[\w .+/&:#()^-]*", re.ASCII)
_WITH_NUMBER: Final = re.compile(r"\d{1,4}|\d{1,3}[a-z]{1,2}|[a-z]{1,4}\d{1,2}[a-z]?")
_SHORT: Final = 2
_LONG_WORD: Final = 4


@cache
def terms() -> frozenset[str]:
    """Words and terms of code strings; lower case."""
    folder = resources.files(__package__) / "data"
    return frozenset((folder / "code_terms.txt").read_text("utf-8").split())


@lru_cache(maxsize=8192)
def is_term(code: str) -> bool:
    """Whether a single value of VR CS can be a term, in whatever case."""
    lower = code.strip(" \0").lower()
    if _ALLOWED.fullmatch(lower) is None:
        return False
    return lower in terms() or all(map(_is_word, _PARTS.findall(lower)))


def _is_word(word: str) -> bool:
    if len(word) <= _SHORT or _known(word) or _WITH_NUMBER.fullmatch(word):
        return True
    cuts = range(_LONG_WORD, len(word) - _LONG_WORD + 1)
    return any(_known(word[:at]) and _known(word[at:]) for at in cuts)


def _known(word: str) -> bool:
    return word in terms() or word in vocabulary()


def cleared(codes: str, identifiers: frozenset[str]) -> str:
    """The values of a CS (with backslashes), what is no term replaced.

    `identifiers` are single case-folded words of the package; a code that has one is
    none of the terms, whatever the list says.
    """
    return "\\".join(
        code if is_term(code) and not _holds(code, identifiers) else UNKNOWN
        for code in codes.split("\\")
    )


def _holds(code: str, identifiers: frozenset[str]) -> bool:
    return any(word in identifiers for word in _PARTS.findall(code.casefold()))
