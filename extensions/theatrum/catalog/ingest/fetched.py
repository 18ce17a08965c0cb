"""Files that come over a network: bounded, whole, under harmless names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from theatrum.catalog.ingest.errors import SourceFailed

MOST_BYTES = 1 << 40
"""Of one source."""
MOST_FILES = 1_000_000


class Arriving:
    """Writes what arrives into a folder, and stops what is too much."""

    def __init__(
        self, folder: Path, *, bytes: int = MOST_BYTES, files: int = MOST_FILES
    ) -> None:
        self.folder = folder
        self._bytes = bytes
        self._files = files
        self.count = 0

    def write(self, name: str, blocks: Iterable[bytes]) -> Path:
        """A file out of its blocks, synced; raises SourceFailed where it is too much.

        `name` may hold folders; what would lead out of the folder is taken off.
        """
        self.count += 1
        if self.count > self._files:
            raise SourceFailed(f"The source holds more than {self._files} files.")
        parts = [
            part.replace("\\", "_").replace("\0", "_")[:200]
            for part in PurePosixPath(name).parts
            if part not in ("/", "..", ".", "")
        ]
        target = self.folder.joinpath(*(parts or [f"{self.count:06d}"]))
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{target.name[:200]}.partial")
        with staging.open("wb") as file:
            for block in blocks:
                self._bytes -= len(block)
                if self._bytes < 0:
                    raise SourceFailed("The source sends more bytes than are taken in.")
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(target)
        return target


def shown_address(uri: str) -> str:
    """An address for reports: without name, password, query or fragment."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"
