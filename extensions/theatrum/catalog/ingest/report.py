"""What was taken in and what was not, with the reason for each: a JSON file.

A report names files as they were named where they came from, relative to what was
asked for; with de-identification it names them by number, since a name can be a
person's.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from hub.home import write_private

Status = Literal["taken", "known", "refused", "waiting"]
FORMAT: Final = 1


@dataclass(frozen=True)
class Entry:
    """One item: a file, or the files of one series.

    Attributes
    ----------
    files
        Names relative to the source.
    status
        `taken`; `known`, where the same bytes are in the project already; `waiting`,
        where it lies in the inbox; `refused`.
    reason
        Why it was refused; "" otherwise.
    images
        `project/name` of each image that it is now.
    warnings
        What a person should know: gaps, duplicates, tilt.
    """

    source: str
    files: tuple[str, ...]
    status: Status
    reason: str = ""
    format: str = ""
    images: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    size: int = 0
    seconds: float = 0.0


@dataclass
class Report:
    """All of one ingest; `interrupted` where somebody stopped it half-way."""

    project: str
    entries: list[Entry] = field(default_factory=list)
    interrupted: bool = False
    started: str = ""
    ended: str = ""
    warnings: list[str] = field(default_factory=list)
    """What is wrong beyond single items, such as a rule that cannot be used."""

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def counts(self) -> dict[str, int]:
        """How many items there are of each status."""
        found = Counter(one.status for one in self.entries)
        return {
            name: found.get(name, 0)
            for name in ("taken", "known", "waiting", "refused")
        }

    @property
    def images(self) -> list[str]:
        """`project/name` of every image, in the order they came."""
        return [name for one in self.entries for name in one.images]

    @property
    def refused(self) -> Sequence[Entry]:
        return [one for one in self.entries if one.status == "refused"]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON holds it: a list of items for each status."""
        return {
            "format": FORMAT,
            "project": self.project,
            "started": self.started,
            "ended": self.ended,
            "interrupted": self.interrupted,
            "counts": self.counts,
            "warnings": self.warnings,
            **{
                status: [asdict(one) for one in self.entries if one.status == status]
                for status in self.counts
            },
        }

    def write(self, path: Path) -> None:
        """Write it whole or not at all, for its owner's eyes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        write_private(path, text.encode("utf-8", "surrogateescape") + b"\n")


def shown(path: Path, root: Path) -> str:
    """A file's name in a report: relative to what was asked for, with `/`."""
    try:
        relative = path.relative_to(root)
    except ValueError:
        relative = Path(path.name)
    text = relative.as_posix() if relative != Path() else path.name
    # A name that is no text would make the report none.
    return os.fsencode(text).decode("utf-8", "replace")
