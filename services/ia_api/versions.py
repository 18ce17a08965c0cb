"""Versions of the IA-API: pairs of whole numbers, so that 1.10 is newer than 1.9."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.ia_api.errors import VersionTooOld

_FORM = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.\d+)*")


@dataclass(frozen=True, order=True)
class Version:
    """One version of the interface, ordered by its numbers."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def parse(text: str) -> Version:
    """Read `1.10`; ValueError if it is no version."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text[:20]!r} is no version: two numbers as in 1.10 are one")
    return Version(int(found[1]), int(found[2]))


OLDEST = Version(1, 5)
"""The first version with a flat slide info; a server that has no `/info` speaks it."""
CASES = Version(1, 9)
"""From here the images of a case can be listed."""
NEWEST = QUALITY_CONTROL = Version(1, 10)
"""From here a slide's quality control can be read and written."""
LISTED_CONTENT = Version(1, 6)
"""From here the content of a primitive result is a list."""


def negotiate(
    server: Version | None, oldest: Version = OLDEST, newest: Version = NEWEST
) -> Version:
    """Return the version to speak with a server (None: it has no `/info`).

    Raises VersionTooOld where the server is older than what the app needs.
    """
    spoken = OLDEST if server is None else server
    if spoken < oldest:
        raise VersionTooOld(
            f"the server speaks version {spoken}; this app needs {oldest} or later"
        )
    return min(spoken, newest)
