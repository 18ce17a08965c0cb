"""Zip and tar archives, unpacked into a folder; one that means harm is refused whole.

Nothing of an archive is believed. Refused are: names that lead out of the folder, links
and devices, two members of one name, more files or bytes than allowed, and more bytes
than the archive can hold honestly (a bomb). An archive in an archive is not unpacked.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, Protocol

from theatrum.catalog.ingest.errors import HostileArchive

_STEP: Final = 2**20
_TAR_ENDINGS: Final = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz",
)  # fmt: skip
_DAMAGED: Final = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError,
    RuntimeError, ValueError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes
    ----------
    files
        Members.
    bytes
        Of all together.
    ratio
        Bytes unpacked for each packed one. Images pack by 2 to 5; of black ones more.
    honest_bytes
        Below this much the ratio is not looked at.
    """

    files: int = 200_000
    bytes: int = 512 * 2**30
    ratio: float = 200.0
    honest_bytes: int = 64 * 2**20

    def most(self, packed: int) -> int:
        """Bytes that an archive of so many may unpack to."""
        return min(self.bytes, max(int(packed * self.ratio), self.honest_bytes))


class _Member(Protocol):
    name: str
    size: int


@dataclass(frozen=True)
class _Found:
    name: PurePosixPath
    size: int
    key: object


def is_archive(path: Path) -> bool:
    """Whether a file is called as archives are that are unpacked here."""
    name = path.name.lower()
    return name.endswith((".zip", *_TAR_ENDINGS)) and not name.endswith(".zarr.zip")


def unpack(path: Path, folder: Path, limits: Limits | None = None) -> list[Path]:
    """Unpack an archive into a folder that is there and empty; the files.

    Raises HostileArchive, with nothing but the folder's own content left behind, which
    the caller removes.
    """
    bounds = limits or Limits()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                found = list(_zip_members(path, zipped))
                return _write(
                    path, folder, found, lambda one: zipped.open(str(one.key)), bounds
                )
        with tarfile.open(path) as tar:
            listed = list(_tar_members(path, tar, bounds))

            def opened(one: _Found) -> IO[bytes]:
                if not isinstance(one.key, tarfile.TarInfo):
                    raise HostileArchive(f"{path.name} has a member without content.")
                stream = tar.extractfile(one.key)
                if stream is None:
                    raise HostileArchive(f"{path.name} has a member without content.")
                return stream

            return _write(path, folder, listed, opened, bounds)
    except HostileArchive:
        raise
    except _DAMAGED as error:
        raise HostileArchive(
            f"{path.name} is no archive that can be unpacked: it is damaged, or "
            "encrypted. Pack it again."
        ) from error


def _zip_members(path: Path, zipped: zipfile.ZipFile) -> Iterator[_Found]:
    for one in zipped.infolist():
        if one.is_dir():
            continue
        mode = one.external_attr >> 16
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise HostileArchive(
                f"{path.name} holds a link or a device. Pack plain files only."
            )
        if one.flag_bits & 1:
            raise HostileArchive(f"{path.name} is encrypted. Pack it without password.")
        yield _Found(_safe(path, one.filename), one.file_size, one.filename)


def _tar_members(path: Path, tar: tarfile.TarFile, limits: Limits) -> Iterator[_Found]:
    for number, one in enumerate(tar):
        if number > limits.files:
            raise HostileArchive(f"{path.name} holds more than {limits.files} files.")
        if one.isdir():
            continue
        if not one.isreg():
            raise HostileArchive(
                f"{path.name} holds a link or a device. Pack plain files only."
            )
        yield _Found(_safe(path, one.name), one.size, one)


def _safe(path: Path, name: str) -> PurePosixPath:
    """A member's name that stays in the folder; raises HostileArchive."""
    plain = PurePosixPath(name.replace("\\", "/"))
    parts = plain.parts
    if (
        plain.is_absolute()
        or not parts
        or ".." in parts
        or "\0" in name
        or ":" in parts[0]
        or len(parts) > 64
        or any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in parts)
    ):
        raise HostileArchive(
            f"{path.name} holds a file whose name leads out of its folder. It was not "
            "unpacked."
        )
    return plain


def _write(
    path: Path,
    folder: Path,
    members: list[_Found],
    opened: object,
    limits: Limits,
) -> list[Path]:
    if len(members) > limits.files:
        raise HostileArchive(f"{path.name} holds more than {limits.files} files.")
    names = [one.name for one in members]
    if len({str(one).casefold() for one in names}) < len(names):
        raise HostileArchive(f"{path.name} holds two files of one name.")
    most = limits.most(path.stat().st_size)
    if sum(one.size for one in members) > most:
        raise HostileArchive(f"{path.name} unpacks to more than {most >> 20} MiB.")
    written: list[Path] = []
    left = most
    for one in members:
        target = folder / one.name
        target.parent.mkdir(parents=True, exist_ok=True)
        # What a header says of a size is not believed either.
        with opened(one) as stream, target.open("xb") as file:  # type: ignore[operator]
            while block := stream.read(_STEP):
                left -= len(block)
                if left < 0:
                    raise HostileArchive(
                        f"{path.name} unpacks to more than {most >> 20} MiB."
                    )
                file.write(block)
        written.append(target)
    return written
