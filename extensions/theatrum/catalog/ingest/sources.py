"""Places that images come from: each gives a folder of files, some of them ours.

A local path is taken as it lies. Everything else is brought into a staging folder in
the home first, whole, and only then looked at; what is not taken is removed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theatrum.catalog.ingest.archives import is_archive
from theatrum.catalog.ingest.errors import SourceFailed

Tell = Callable[[int, int], None]
"""Told how many bytes, or files, came of how many; 0 in all where nobody knows."""
Unpack = Callable[[Path, Path], None]
"""Unpacks an archive into a folder, in a process of its own: `look.Looker.unpack`."""
_SCHEMES: Final = ("dicomweb+http://", "dicomweb+https://")


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
    unpack: Unpack,
    tell: Tell = lambda _done, _all: None,
) -> Iterator[Gathered]:
    """The files of a source: a path, an archive, or an address.

    Addresses: `s3://`, `http(s)://` and whatever fsspec opens; `dicomweb+https://` with
    the path of a study or a series; a `.tcia` manifest or an IDC one (`.s5cmd`).

    Raises
    ------
    SourceFailed
        Where there is nothing, or it does not answer.
    HostileArchive
        Where an archive is refused.
    """
    if source.startswith(_SCHEMES):
        from theatrum.catalog.ingest.dicomweb import fetch_dicomweb

        label = fetch_dicomweb(source.removeprefix("dicomweb+"), staging, tell=tell)
        yield Gathered(staging, True, label)
        return
    if "://" in source:
        from theatrum.catalog.ingest.remote import fetch

        label = fetch(source, staging, tell=tell)
        _unpack_alone(staging, unpack)
        yield Gathered(staging, True, label)
        return
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise SourceFailed(f"There is no {path.name}: name a file, folder or address.")
    if path.is_file() and path.suffix.lower() in (".tcia", ".s5cmd"):
        from theatrum.catalog.ingest.manifests import fetch_manifest

        yield Gathered(
            staging, True, fetch_manifest(path, staging, unpack=unpack, tell=tell)
        )
        return
    if path.is_file() and is_archive(path):
        unpack(path, staging)
        yield Gathered(staging, True, path.name)
        return
    yield Gathered(path, False, path.name)


def _unpack_alone(folder: Path, unpack: Unpack) -> None:
    """An archive that came by itself is unpacked in its place."""
    files = [one for one in folder.rglob("*") if one.is_file()]
    if len(files) != 1 or not is_archive(files[0]):
        return
    archive = files[0].rename(folder.with_name("archive"))
    named = archive.with_name(files[0].name)
    archive.rename(named)
    unpack(named, folder)
    named.unlink()
