"""The folder in which received instances are kept: whole files only, once each.

A file is written beside its place, synced, checked, and then linked under its name,
which is made of digests of its UIDs. So a name that is there is a whole file on disk,
whoever dies when; two senders of one instance cannot harm each other; and what has been
stored is never overwritten.

    incoming/<digest of the series>/<digest of the instance>.dcm
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from services.dicom_client.arrivals import (
    Arrival,
    arrival_of,
    instance_key,
    series_key,
    sync_folder,
)
from services.dicom_client.headers import Header, Unreadable, read_header

_PART = ".part"
_CHUNK_BYTES = 1 << 20
_DIGITS = 32
_COUNT_AGAIN_S = 5.0


class Full(OSError):
    """The quota is used up, or the disk nearly full."""


class Different(ValueError):
    """Another object of the same SOP Instance UID is here already."""


@dataclass(frozen=True)
class Quota:
    """How much may be staged."""

    most_bytes: int = 200 << 30
    """All staged files together."""
    free_bytes: int = 2 << 30
    """What stays free of the file system for everybody else."""


class Staging:
    """One such folder; safe to share between threads, and between processes."""

    def __init__(self, folder: Path, quota: Quota) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._quota = quota
        self._lock = threading.Lock()
        self._used = 0
        self._counted = -_COUNT_AGAIN_S

    def room_for(self, size: int) -> None:
        """Raise Full unless so many bytes more may be staged."""
        free = shutil.disk_usage(self.folder).free - size
        with self._lock:
            now = time.monotonic()
            if now - self._counted >= _COUNT_AGAIN_S:
                # Others remove files when a case is done: count what is there.
                self._used, self._counted = _bytes_below(self.folder), now
            if self._used + size > self._quota.most_bytes:
                raise Full("the staging folder holds as much as it may")
        if free < self._quota.free_bytes:
            raise Full("the disk of the staging folder is nearly full")

    def keep(self, pieces: Iterable[bytes], check: Header | None = None) -> Arrival:
        """Write an instance and return it when it is safe on disk.

        An instance that is here already is left as it is.

        Parameters
        ----------
        pieces
            The file's content.
        check
            What the file must say of itself, as far as it was announced: empty
            values fit everything.

        Raises
        ------
        headers.Unreadable
            It is no instance, or (`mismatch`) not the announced one.
        Different
            Another object of the same UID is here; that one stays.
        OSError
            It cannot be written.
        """
        part, handle = self._new_part()
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                header = read_header(part)
                if check is not None and not _fits(header, check):
                    raise Unreadable("mismatch")
                os.fsync(file.fileno())
                return self._place(part, header)
        finally:
            part.unlink(missing_ok=True)

    def _new_part(self) -> tuple[Path, int]:
        """A fresh file, locked as long as its writer has it open."""
        while True:
            part = self.folder / f"{token_hex(16)}{_PART}"
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if part.exists():
                return part, handle
            # Swept before it was locked.
            os.close(handle)

    def path_of(self, header: Header) -> Path:
        """Where an instance is, or would be."""
        series = series_key(header.series)[:_DIGITS]
        return (
            self.folder / series / f"{instance_key(header.sop_instance)[:_DIGITS]}.dcm"
        )

    def staged(self) -> Iterator[Arrival]:
        """Everything that is here, for a start after a crash."""
        yield from _arrivals(self.folder.glob("*/*.dcm"))

    def of_series(self, series: str) -> Iterator[Arrival]:
        """Everything of one series that is here."""
        folder = self.folder / series_key(series)[:_DIGITS]
        yield from _arrivals(folder.glob("*.dcm"))

    def sweep(self) -> int:
        """Remove half-written files of processes that died; returns how many.

        Whoever still writes one holds its lock, on whatever machine.
        """
        removed = 0
        for part in self.folder.glob(f"*{_PART}"):
            with suppress(FileNotFoundError, BlockingIOError), part.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                removed += 1
        return removed

    def _place(self, part: Path, header: Header) -> Arrival:
        target = self.path_of(header)
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True, mode=0o700)
            sync_folder(self.folder)
        try:
            os.link(part, target)
        except FileExistsError:
            if not _same_object(part, target):
                raise Different(str(target.name)) from None
        sync_folder(target.parent)
        stat = target.stat()
        with self._lock:
            self._used += stat.st_size
        return Arrival(target, stat.st_size, stat.st_mtime_ns, header)


def _arrivals(paths: Iterable[Path]) -> Iterator[Arrival]:
    for path in sorted(paths):
        with suppress(FileNotFoundError):  # its case was done meanwhile
            yield arrival_of(path)


def _fits(header: Header, check: Header) -> bool:
    pairs = (
        (check.sop_class, header.sop_class),
        (check.sop_instance, header.sop_instance),
        (check.study, header.study),
        (check.series, header.series),
    )
    return all(wanted in ("", found) for wanted, found in pairs)


def _same_object(one: Path, other: Path) -> bool:
    """Whether two files hold the same data set; their file meta may differ."""
    with one.open("rb") as first, other.open("rb") as second:
        first.seek(_data_set_at(first.read(144)))
        second.seek(_data_set_at(second.read(144)))
        while True:
            left, right = first.read(_CHUNK_BYTES), second.read(_CHUNK_BYTES)
            if left != right:
                return False
            if not left:
                return True


def _data_set_at(first: bytes) -> int:
    """Where the data set begins: group 2 opens with its own length (PS3.10 7.1)."""
    if first[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return 0
    return 144 + int.from_bytes(first[140:144], "little")


def _bytes_below(folder: Path) -> int:
    used, folders = 0, [os.fspath(folder)]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with suppress(FileNotFoundError):
                        used += entry.stat(follow_symlinks=False).st_size
    return used
