"""What somebody wants to come in, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theatrum.catalog.ingest import archives, look


@dataclass(frozen=True)
class Wishes:
    """How things are to come in.

    Attributes
    ----------
    project
        Its name; made where there is none.
    actor
        The human for whom it is done.
    copy
        Keep originals in the home; else local files stay where they are.
    profile
        Of de-identification: `basic`, `autosegmentation`, a file; "" for none.
    key_file
        Its secret; without one the home has its own.
    fields
        What holds for every item, over rules: `{"experiment__name": "Pilot"}`.
    received_from
        Where it came from, for the record.
    """

    project: str
    actor: str
    copy: bool = False
    profile: str = ""
    key_file: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    received_from: str = ""
    limits: look.Limits = field(default_factory=look.Limits)
    archive_limits: archives.Limits = field(default_factory=archives.Limits)


@dataclass(frozen=True)
class Step:
    """How far an ingest is, for a progress bar."""

    phase: str
    done: int
    total: int
    name: str = ""


Progress = Callable[[Step], None]
