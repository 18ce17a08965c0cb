"""Where originals are kept: as they lie, or in the home under their checksum.

A file that a person named stays where it is. What was unpacked, fetched, received or
de-identified is moved into the home, into a folder named by the SHA-256 of its content,
so that the same bytes lie there once. A series whose files lie among others gets such a
folder too, of hard links where the file system has them: the tile service opens a scan
by the folder that holds its files and no others.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theatrum.catalog.zarr_store import file_digest
from tile_server.readers.dicom_files import is_dicom

ORIGINALS: Final = "originals"
"""Below the home's folder of images."""


@dataclass(frozen=True)
class Checked:
    """The files of an item with their checksums.

    Attributes
    ----------
    digest
        Of all of them: the file's own where there is one, else that of their list.
    """

    files: Mapping[Path, str]
    digest: str
    size: int


def check(paths: Sequence[Path]) -> Checked:
    """Read every file once for its SHA-256."""
    return again({path: file_digest(path) for path in paths})


def again(files: Mapping[Path, str]) -> Checked:
    """The same for files whose checksums are known."""
    if len(files) == 1:
        digest = next(iter(files.values()))
    else:
        # By content alone: the same series under other names is the same.
        listed = sorted(files.values())
        digest = hashlib.sha256("\n".join(listed).encode()).hexdigest()
    return Checked(files, digest, sum(path.stat().st_size for path in files))


def lies_alone(paths: Sequence[Path]) -> bool:
    """Whether the folder of a series' files holds them and no other DICOM files."""
    folders = {path.parent for path in paths}
    if len(folders) != 1:
        return False
    mine = {path.name for path in paths}
    with os.scandir(folders.pop()) as entries:
        others = [one for one in entries if one.is_file() and one.name not in mine]
    return not any(
        is_dicom(Path(one.path)) for one in others if not one.name.startswith(".")
    )


def keep(
    images: Path, checked: Checked, names: Mapping[Path, Path], *, move: bool
) -> dict[Path, Path]:
    """Put files into the home's store; where each lies now.

    Parameters
    ----------
    images
        The home's folder of images.
    checked
        The files; their digest names the folder.
    names
        What each is called there, relative, `/` between folders.
    move
        Whether they are ours to move; else they are linked or copied.
    """
    folder = images / ORIGINALS / checked.digest[:2] / checked.digest
    kept = {path: folder / names[path] for path in checked.files}
    if all(one.is_file() for one in kept.values()):
        return kept
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.partial")
    try:
        for path in checked.files:
            target = staging / names[path]
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _bring(path, target, move=move)
        if folder.exists():  # left by a run that was cut off between two of its names
            shutil.rmtree(folder)
        staging.rename(folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return kept


def _bring(path: Path, target: Path, *, move: bool) -> None:
    if move:
        try:
            path.rename(target)
        except OSError:  # another file system
            shutil.copyfile(path, target)
    else:
        try:
            os.link(path, target)
            return
        except OSError:
            shutil.copyfile(path, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
