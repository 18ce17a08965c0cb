"""De-identification on the way in, by `theatrum.deidentify`: scans only.

A series is given out file by file into staging; what is held or refused there is not
taken in, with the reason. Other formats have no profile: see `bare.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub.home import Home, private_key
from theatrum.catalog.ingest.errors import IngestError
from theatrum.deidentify.errors import DeidentifyError
from theatrum.deidentify.package import Deidentifier
from theatrum.deidentify.profile import load_profile
from theatrum.deidentify.pseudonyms import read_key

_KEY: Final = "deidentify.key"


@dataclass(frozen=True)
class Given:
    """What came out of a series: its files, and why others did not."""

    files: tuple[Path, ...]
    reasons: tuple[str, ...]


class Deidentification:
    """A profile with the home's key; for one thread."""

    def __init__(self, profile: str, key: bytes) -> None:
        try:
            self._worker = Deidentifier(load_profile(profile), key)
        except DeidentifyError as error:
            raise IngestError(str(error)) from error

    def give_out(self, files: Sequence[Path], target: Path) -> Given:
        """De-identify a series into a new folder."""
        try:
            package = self._worker.package(files, target)
        except DeidentifyError as error:
            return Given((), (str(error),))
        reasons = {
            f"{one.detail} ({one.reason})"
            for one in (*package.report.held, *package.report.refused)
        }
        given = tuple(target / name for name in sorted(package.names.values()))
        return Given(given, tuple(sorted(reasons)))


def key_of(home: Home, key_file: Path | None) -> bytes:
    """The secret of pseudonyms: from a file, or the home's own, made once."""
    if key_file is not None:
        try:
            return read_key(key_file)
        except DeidentifyError as error:
            raise IngestError(str(error)) from error
    return private_key(home.catalog / _KEY, secrets.token_bytes(32))
