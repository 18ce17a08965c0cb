"""Archives that people upload: unpacked under new names, or refused as a whole.

A zip file can name files outside its folder, hold links, or unpack to far more than it
weighs. Its names are therefore checked and then not used: files are written as
`1.dcm`, `2.dcm`, ... What its directory says of sizes is checked before anything is
written and again while it is unpacked, for it need not be true.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from services.dicom_client.arrivals import sync_folder
from services.dicom_client.errors import BadRequest

_CHUNK_BYTES = 1 << 20
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class ZipLimits:
    """How much an archive may hold."""

    members: int = 20_000
    member_bytes: int = 1 << 30
    total_bytes: int = 16 << 30
    ratio: float = 200.0
    """Unpacked to packed size of a member; images rarely reach 20."""
    small_bytes: int = 1 << 20
    """Members up to this size may have any ratio: empty slices pack well."""


def unpack(
    archive: Path,
    folder: Path,
    limits: ZipLimits,
    *,
    progress: Callable[[float], None] = lambda _share: None,
    check: Callable[[], None] = lambda: None,
    room: Callable[[int], None] = lambda _size: None,
) -> list[Path]:
    """Write an archive's files into an empty folder of ours, on disk when it returns.

    Parameters
    ----------
    progress
        Told the share of bytes that are unpacked, 0 to 1.
    check
        Called for every file; what it raises stops the work.
    room
        Called once with the bytes that all files will have; raises where they have no
        room.

    Raises
    ------
    BadRequest
        It is no zip file, or not a safe one; nothing of it stays in `folder`.
    """
    written: list[Path] = []
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(opened.infolist(), limits)
            wanted = sum(member.file_size for member in members)
            room(wanted)
            total = 0
            for number, member in enumerate(members, start=1):
                check()
                target = folder / f"{number}.dcm"
                written.append(target)
                left = limits.total_bytes - total
                total += _write(opened, member, target, min(left, limits.member_bytes))
                progress(total / wanted if wanted else 1.0)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        ValueError,
    ) as err:
        _remove(written)
        raise BadRequest("This is no whole zip file; pack it again.") from err
    except BaseException:
        _remove(written)
        raise
    sync_folder(folder)
    return written


def _checked(
    members: list[zipfile.ZipInfo], limits: ZipLimits
) -> list[zipfile.ZipInfo]:
    if len(members) > limits.members:
        raise BadRequest(f"The archive holds more than {limits.members} files.")
    files = [member for member in members if not member.is_dir()]
    for member in members:
        _check_name(member)
    for member in files:
        if member.flag_bits & _ENCRYPTED:
            raise BadRequest("The archive has a password; pack it without one.")
        if member.file_size > limits.member_bytes:
            raise BadRequest("A file in the archive is too large.")
        packed = max(member.compress_size, 1)
        if member.file_size > max(limits.small_bytes, packed * limits.ratio):
            raise BadRequest("A file in the archive unpacks to far more than it holds.")
    if sum(member.file_size for member in files) > limits.total_bytes:
        raise BadRequest("The archive unpacks to too much; send it in parts.")
    return files


def _check_name(member: zipfile.ZipInfo) -> None:
    name = member.filename
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    # `orig_filename` is the name as written, before zipfile cut it at a NUL.
    strange = "\\" in name or ":" in name or "\0" in member.orig_filename
    if strange or path.is_absolute() or ".." in path.parts:
        raise BadRequest("The archive names files outside its own folder.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadRequest("The archive holds a link or a device; pack plain files.")


def _write(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int
) -> int:
    size = 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file, opened.open(member) as source:
        while chunk := source.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > most:
                raise BadRequest("The archive unpacks to more than it says.")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
