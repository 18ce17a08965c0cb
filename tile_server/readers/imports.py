"""Copies of images that cannot be served as they lie, made once and kept in a folder.

A plain PNG has to be decoded whole before any part of it can be shown, a compressed
volume unpacked; that is done once, into a folder of the service's own, never beside the
original. A copy is named by path, size and time of its original, so a changed original
gets a new one; the copies used least recently go when the folder is full.

A copy that is open stays readable when it goes: readers hold it by descriptor. A copy
in the making has a lock of the operating system, so that of several processes one makes
it; what a process left that ended half-way has none, and is made anew, or goes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tile_server.errors import UnreadableSlide

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows: two processes may make the same copy there
    fcntl = None

log = logging.getLogger(__name__)

_MAKING = ".making"
IMPORT_BYTES = 8 * 2**30
# The folder's name within that of the tile cache.
IMPORTS = "imports"


class Imports:
    """The folder of copies; may be used from several threads and processes."""

    def __init__(self, folder: Path, most_bytes: int = IMPORT_BYTES) -> None:
        """Keep copies in `folder`, which is made if need be, up to `most_bytes`.

        The copy just made stays even if it alone is larger.
        """
        # Copies are images, which not everybody on this machine may see.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._most_bytes = most_bytes
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def copy(self, original: Path, suffix: str, make: Callable[[Path], None]) -> Path:
        """The copy of `original`, written by `make(staging name)` if there is none.

        `suffix` tells kinds of copies apart. Who wants the same copy, in this process
        or another, waits for the first. Raises what `make` raises, and UnreadableSlide
        where the folder has no room.
        """
        try:
            status = original.stat()
        except OSError as error:
            raise UnreadableSlide(f"{original.name} is not there.") from error
        text = f"{status.st_size}-{status.st_mtime_ns}\0{original.resolve()}"
        key = hashlib.blake2b(
            text.encode("utf-8", "surrogateescape"), digest_size=16
        ).hexdigest()
        path = self._folder / f"{key}{suffix}"
        with self._lock:
            making = self._making.setdefault(path.name, threading.Lock())
        with making:
            try:
                if path.exists():
                    os.utime(path)
                else:
                    self._make(path, make)
            except OSError as error:
                kind = type(error).__name__
                log.error("an import cannot be kept: %s", kind)
                raise UnreadableSlide(
                    f"{original.name} cannot be imported: there is no room for its "
                    "copy. Ask who runs this service."
                ) from error
        return path

    def _make(self, path: Path, make: Callable[[Path], None]) -> None:
        with _alone(path.with_name(path.name + _MAKING)) as staging:
            if path.exists():
                staging.unlink()
                return  # another process made it meanwhile
            try:
                make(staging)
                with staging.open("rb") as file:
                    os.fsync(file.fileno())
                staging.replace(path)
            except BaseException:
                staging.unlink(missing_ok=True)
                raise
        self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        kept = []
        for path in self._folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process made room at the same time
            kept.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self._most_bytes:
                return
            if path != newest and not _is_being_made(path):
                path.unlink(missing_ok=True)
                total -= size


@contextmanager
def _alone(staging: Path) -> Iterator[Path]:
    """Wait until no other process works on `staging`; then it is there, and empty."""
    while True:
        descriptor = os.open(staging, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, staging):
                os.ftruncate(descriptor, 0)
                yield staging
                return
            # Who had the lock is done, and the name stands for no file or another.
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_being_made(path: Path) -> bool:
    if path.suffix != _MAKING or fcntl is None:
        return path.suffix == _MAKING
    try:
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
