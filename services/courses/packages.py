"""Packages: folders that travel as zip archives, taken in whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from services.courses.errors import BadPackageError, NotFoundError

PACKAGE_BYTES = 100_000_000
PACKAGE_FILES = 2_000
_STAGING = ".new-"
_OLD = ".replaced"
_BAD_PATHS = {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


def pack(folder: Path, *, leave_out: Collection[str] = ()) -> bytes:
    """A folder's regular files as a zip archive.

    Files and folders whose names match a pattern of `leave_out` stay behind.
    """
    if not folder.is_dir():
        raise NotFoundError("there is nothing by these names")
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False
    ) as archive:
        for path in _regular_files(folder, leave_out):
            archive.write(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


def _regular_files(folder: Path, leave_out: Collection[str]) -> Iterator[Path]:
    def stays(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in leave_out)

    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not stays(name))
        for name in sorted(name for name in files if not stays(name)):
            path = Path(parent) / name
            # A link could point at what its maker may not read.
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def unpack(
    package: bytes, target: Path, more: Mapping[str, bytes] | None = None
) -> None:
    """Store a package as the folder `target`, whole or not at all.

    `more` are further files, by name, that go into the folder with it.

    Raises
    ------
    BadPackageError
        Where it is no zip archive, too large, or a path in it leads elsewhere.
    """
    staging = target.with_name(f"{_STAGING}{secrets.token_hex(8)}")
    staging.mkdir(parents=True, mode=0o700)
    try:
        _extract(package, staging)
        for name, content in (more or {}).items():
            if (staging / name).is_dir():
                raise BadPackageError(f"{name} must not be a folder")
            (staging / name).unlink(missing_ok=True)
            _write(staging / name, content)
        _sync_folders(staging)
        _swap(staging, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def recover(root: Path) -> None:
    """Finish what a process that died had begun below `root`.

    A folder that was being replaced comes back where its successor had not arrived;
    what was half written is removed. Only for a time when nobody else writes there.
    """
    for old in list(root.rglob(f"*{_OLD}")):
        target = old.with_name(old.name.removeprefix(".").removesuffix(_OLD))
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)
    for staging in list(root.rglob(f"{_STAGING}*")):
        shutil.rmtree(staging, ignore_errors=True)


def remove(target: Path) -> None:
    """Take a stored folder away; it is gone to readers at once."""
    going = target.with_name(f"{_STAGING}{secrets.token_hex(8)}")
    target.rename(going)
    shutil.rmtree(going)


def _extract(package: bytes, folder: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check(entries)
            for entry in entries:
                path = folder / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, _content(archive, entry))
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as err:
        raise BadPackageError("the package is not a readable zip archive") from err
    except OSError as err:
        if err.errno not in _BAD_PATHS:
            raise
        raise BadPackageError(
            "a path in the package is too long, or two are in each other's way"
        ) from err


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry's bytes; no more than it said, whatever it inflates to."""
    with archive.open(entry) as file:
        content = file.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise BadPackageError("a file in the package is not of the size that it says")
    return content


def _check(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > PACKAGE_FILES:
        raise BadPackageError(f"a package may hold at most {PACKAGE_FILES} files")
    if sum(entry.file_size for entry in entries) > PACKAGE_BYTES:
        raise BadPackageError(
            f"a package may hold at most {PACKAGE_BYTES // 1_000_000} MB"
        )
    for entry in entries:
        path = PurePosixPath(entry.filename)
        plain = not path.is_absolute() and ".." not in path.parts
        if not plain or "\\" in entry.filename or "\0" in entry.filename:
            raise BadPackageError("a file's path leads out of the package")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BadPackageError("a package must not hold symbolic links")


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(staging: Path, target: Path) -> None:
    """Put `staging` in the place of `target`; `recover` finishes what is cut off."""
    if not target.exists():
        staging.rename(target)
        return
    old = target.with_name(f".{target.name}{_OLD}")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    staging.rename(target)
    shutil.rmtree(old)


def _sync_folders(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        _sync(Path(parent))


def _sync(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
