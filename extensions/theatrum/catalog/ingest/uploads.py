"""Uploads in parts, each with its checksum, that go on where they were cut off.

    uploads = Uploads(home.images / ".uploads")
    key = uploads.begin("series.zip", size=5_000_000, owner="ann")
    uploads.part(key, 0, first_bytes, sha256=digest)
    uploads.status(key).missing        # ((1000000, 5000000),)
    path = uploads.complete(key, sha256=digest_of_all)

A part counts once it is on the disk and its checksum is right; sent twice it is one.
Parts may come in any order and from several connections. State lies in files only, so
every worker process of a service sees the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub.home import write_private
from theatrum.catalog.ingest.errors import BadUpload
from theatrum.catalog.zarr_store import file_digest

PART_BYTES: Final = 64 * 2**20
"""The longest part; a longer one costs more when it is cut off."""
UPLOAD_BYTES: Final = 1 << 40
LIFE_S: Final = 7 * 24 * 3600
"""An upload that nothing was added to for so long is removed."""
_KEY: Final = re.compile(r"[0-9a-f]{32}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_STATE: Final = "state.json"
_CONTENT: Final = "content"


@dataclass(frozen=True)
class Status:
    """How far an upload is.

    Attributes
    ----------
    received
        Bytes that are here.
    missing
        Ranges that are not, each from a first byte to the one after the last.
    """

    key: str
    name: str
    size: int
    owner: str
    received: int
    missing: tuple[tuple[int, int], ...]


class Uploads:
    """The uploads of a folder; may be used from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, name: str, *, size: int, owner: str) -> str:
        """Announce an upload; its key. Raises BadUpload for an impossible one."""
        if not 0 < size <= UPLOAD_BYTES:
            raise BadUpload(f"An upload has 1 to {UPLOAD_BYTES} bytes.")
        plain = _NOT_IN_NAME.sub("_", Path(name.replace("\\", "/")).name)[-128:]
        plain = plain.lstrip(".") or "upload"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.expire()
        if shutil.disk_usage(self._folder).free < size:
            raise BadUpload("There is no room for it: ask who runs this service.")
        key = secrets.token_hex(16)
        folder = self._folder / key
        folder.mkdir(mode=0o700)
        with (folder / _CONTENT).open("xb") as file:
            file.truncate(size)  # sparse: what is missing costs nothing
        self._write(folder, plain, size, owner, [])
        return key

    def part(self, key: str, offset: int, content: bytes, *, sha256: str) -> Status:
        """Add a part.

        Raises BadUpload where the checksum is another, or the part lies outside.
        """
        if not content or len(content) > PART_BYTES:
            raise BadUpload(f"A part has 1 to {PART_BYTES} bytes.")
        if hashlib.sha256(content).hexdigest() != sha256.lower():
            raise BadUpload("The part's checksum is another: send it again.")
        with self._locked(key) as folder:
            status = self._status(key, folder)
            if offset < 0 or offset + len(content) > status.size:
                raise BadUpload(f"The part lies outside of the {status.size} bytes.")
            with (folder / _CONTENT).open("r+b") as file:
                file.seek(offset)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            held = _joined([*self._held(folder), (offset, offset + len(content))])
            self._write(folder, status.name, status.size, status.owner, held)
            return self._status(key, folder)

    def status(self, key: str) -> Status:
        """How far it is; raises BadUpload where there is none of that key."""
        with self._locked(key) as folder:
            return self._status(key, folder)

    def complete(self, key: str, *, sha256: str) -> Path:
        """The whole file under its own name, in its folder; the caller moves it away.

        Raises BadUpload where something is missing, or the checksum is another: then
        nothing is lost but the upload has to be sent again.
        """
        if not _SHA256.fullmatch(sha256.lower()):
            raise BadUpload("Say the SHA-256 of the whole file, 64 hexadecimal digits.")
        with self._locked(key) as folder:
            status = self._status(key, folder)
            target = folder / "whole" / status.name
            if target.is_file():
                return target
            if status.missing:
                first, last = status.missing[0]
                raise BadUpload(f"Bytes {first} to {last} have not been sent.")
            if file_digest(folder / _CONTENT) != sha256.lower():
                self._write(folder, status.name, status.size, status.owner, [])
                raise BadUpload(
                    "The file's checksum is another: send all parts of it again."
                )
            target.parent.mkdir(exist_ok=True)
            (folder / _CONTENT).rename(target)
            return target

    def abandon(self, key: str) -> None:
        """Remove an upload, whatever is there of it."""
        shutil.rmtree(self._place(key), ignore_errors=True)

    def expire(self, older_s: float = LIFE_S) -> int:
        """Remove what nothing was added to for long; how many that were."""
        gone = 0
        if not self._folder.is_dir():
            return 0
        for folder in self._folder.iterdir():
            state = folder / _STATE
            try:
                age = time.time() - state.stat().st_mtime
            except OSError:
                continue
            if _KEY.fullmatch(folder.name) and age > older_s:
                shutil.rmtree(folder, ignore_errors=True)
                gone += 1
        return gone

    def _place(self, key: str) -> Path:
        if not _KEY.fullmatch(key) or not (self._folder / key).is_dir():
            raise BadUpload("There is no such upload: begin one.")
        return self._folder / key

    @contextmanager
    def _locked(self, key: str) -> Iterator[Path]:
        folder = self._place(key)
        with (folder / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield folder

    def _status(self, key: str, folder: Path) -> Status:
        state = json.loads((folder / _STATE).read_text())
        size = int(state["size"])
        held = [(int(one), int(two)) for one, two in state["held"]]
        edges = [0, *(edge for pair in held for edge in pair), size]
        gaps = tuple(
            (first, last)
            for first, last in zip(edges[::2], edges[1::2], strict=True)
            if first < last
        )
        received = sum(last - first for first, last in held)
        return Status(key, state["name"], size, state["owner"], received, gaps)

    def _held(self, folder: Path) -> list[tuple[int, int]]:
        state = json.loads((folder / _STATE).read_text())
        return [(int(one), int(two)) for one, two in state["held"]]

    def _write(
        self,
        folder: Path,
        name: str,
        size: int,
        owner: str,
        held: list[tuple[int, int]],
    ) -> None:
        state = {"name": name, "size": size, "owner": owner, "held": held}
        write_private(folder / _STATE, json.dumps(state).encode())


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order, with neighbours and overlaps made one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found
