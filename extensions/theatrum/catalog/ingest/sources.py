"""Places that images come from: each gives a folder of files, some of them ours.

A local path is taken as it lies. Everything else is brought into a staging folder in
the home first, whole, and only then looked at; what is not taken is removed with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from theatrum.catalog.ingest.archives import Limits, is_archive, unpack
from theatrum.catalog.ingest.errors import SourceFailed


@dataclass(frozen=True)
class Gathered:
    """Files that are on this machine now.

    Attributes
    ----------
    root
        Their folder, or the one file.
    ours
        Whether they lie in staging: they are moved, and the rest is removed.
    label
        For reports and `received_from`: never a secret, never a name in a file system
        of others.
    """

    root: Path
    ours: bool
    label: str


@contextmanager
def gathered(
    source: str,
    staging: Path,
    *,
    limits: Limits | None = None,
) -> Iterator[Gathered]:
    """The files of a source: a path, or an archive.

    Raises
    ------
    SourceFailed
        Where there is nothing, or it does not answer.
    HostileArchive
        Where an archive is refused.
    """
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise SourceFailed(f"There is no {path.name}: name a file, folder or address.")
    if path.is_file() and is_archive(path):
        unpack(path, staging, limits)
        yield Gathered(staging, True, path.name)
        return
    yield Gathered(path, False, path.name)
