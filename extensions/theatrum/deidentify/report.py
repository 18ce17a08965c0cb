"""What became of a package, as JSON that may lie beside it.

The report goes where the package goes, and so it holds no value of any file. The name
of a held or refused file is shown where each of its words is of the vocabulary or a
short number; any other part of a path could be somebody's name and is shown as a keyed
code. `number` is the file's place in the sorted list of the input, by which its owner
finds it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from theatrum.deidentify.pseudonyms import Pseudonyms
from theatrum.deidentify.words import says_nothing, vocabulary

_PART: Final = re.compile(r"[^\W\d_]+|\d+", re.UNICODE)
_SHORT_DIGITS: Final = 5


@dataclass(frozen=True)
class Entry:
    """One file that stays inside."""

    number: int
    file: str
    reason: str
    detail: str


@dataclass
class Report:
    """Counts, and every held or refused file with its reason."""

    profile: dict[str, str]
    files: int = 0
    given_out: int = 0
    held: list[Entry] = field(default_factory=list)
    refused: list[Entry] = field(default_factory=list)
    series: dict[str, int] = field(default_factory=dict)
    """Files given out by their new SeriesInstanceUID."""
    elements: dict[str, int] = field(default_factory=dict)
    """How many elements were removed, emptied, replaced, ..."""
    tables: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """The report as it is written to `report.json`."""
        # Any: JSON of several shapes.
        content: dict[str, Any] = {
            "format": 1,
            "profile": self.profile,
            "tables": self.tables,
            "counts": {
                "files": self.files,
                "given_out": self.given_out,
                "held": len(self.held),
                "refused": len(self.refused),
            },
            "held": [entry.__dict__ for entry in self.held],
            "refused": [entry.__dict__ for entry in self.refused],
            "series": self.series,
            "elements": self.elements,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def shown(path: PurePath, pseudonyms: Pseudonyms) -> str:
    """A path of the input as a report may show it."""
    return "/".join(_shown_part(part, pseudonyms) for part in path.parts)


def _shown_part(part: str, pseudonyms: Pseudonyms) -> str:
    pieces = _PART.findall(part)
    # Other signs than printable ones are nobody's word, and cannot always be written.
    plain = part.isascii() and part.isprintable()
    if plain and all(_is_harmless(piece) for piece in pieces):
        return part
    suffix = PurePath(part).suffix
    shows_suffix = suffix[1:].casefold() in vocabulary()
    return f"~{pseudonyms.code(part)}{suffix if shows_suffix else ''}"


def _is_harmless(piece: str) -> bool:
    if piece.isdigit():
        return len(piece) <= _SHORT_DIGITS
    lower = piece.casefold()
    if len(lower) == 1 or says_nothing(lower):
        return True
    words = vocabulary()
    return any(
        lower[:at] in words and lower[at:] in words for at in range(2, len(lower) - 1)
    )
