"""Text: which words say nothing of a person, and how text is cleared of those that do.

Two strengths. `clean` (the C of descriptors) lets only words of the shipped vocabulary
through, with short numbers and units: an allow-list, since no list of names is ever
complete. `scrub` is for text that Annex E keeps: it takes out the identifiers that the
package itself shows (names, ids, dates, ...) and addresses, and leaves the rest.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?", re.UNICODE)
_PIECE: Final = re.compile(r"[^\s\\^=,;:()\[\]{}/_+|&\"-]+")
_NUMBER: Final = re.compile(
    r"\d{1,3}(?:[.,]\d{1,2})?(?:mm|cm|ml|s|ms|kv|ma|t|hz|min|sec|d|x|%|mg|g|gy)?"
    r"|[a-z]\d{1,2}[a-z]?|\d{1,2}[a-z]|\d+(?:x\d+)+(?:mm)?"
)
_ADDRESS: Final = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|https?://\S+|www\.\S+|\b\d{3}-\d{2}-\d{4}\b"
)


@cache
def vocabulary() -> frozenset[str]:
    """Words that describe anatomy, technique and files; lower case."""
    folder = resources.files(__package__) / "data"
    return frozenset((folder / "vocabulary.txt").read_text("utf-8").split())


def says_nothing(word: str) -> bool:
    """Whether a word may stand anywhere: of the vocabulary, or a short number."""
    lower = word.casefold()
    return lower in vocabulary() or _NUMBER.fullmatch(lower) is not None


def clean(text: str, identifiers: frozenset[str] = frozenset()) -> str:
    """The words of `text` that say nothing of a person, with single spaces.

    A word that is also an identifier of the package (`identifiers`, case-folded) goes,
    even where the vocabulary has it.
    """
    kept = [
        piece
        for piece in _PIECE.findall(text)
        if says_nothing(piece.strip(".")) and piece.casefold() not in identifiers
    ]
    return " ".join(kept)


def scrub(text: str, words: frozenset[str], phrases: tuple[str, ...]) -> str:
    """`text` without the identifiers given, and without addresses.

    `words` are single case-folded words, `phrases` case-folded strings with other
    characters in them. What is taken out leaves no mark; text that held nothing of
    them comes back as it was.
    """
    lower = text.casefold()
    cleared = text
    if len(lower) == len(text):
        for phrase in phrases:
            at = lower.find(phrase)
            while at >= 0:
                cleared = cleared[:at] + cleared[at + len(phrase) :]
                lower = cleared.casefold()
                at = lower.find(phrase)
    if _ADDRESS.search(cleared):
        cleared = _ADDRESS.sub("", cleared)
    if words and any(word.casefold() in words for word in WORD.findall(cleared)):
        cleared = WORD.sub(
            lambda found: "" if found[0].casefold() in words else found[0], cleared
        )
    return text if cleared == text else " ".join(cleared.split())
