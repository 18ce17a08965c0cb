"""A slide's files, streamed to a folder of the job.

A file is written under a staging name, synced, renamed, and noted in the journal; when
all are there the journal becomes the manifest. The manifest, and nothing else, says
that a download is complete: a folder that merely holds files may be half a slide.

After a break a file that the journal holds is compared as it passes and not written
again, and a single file goes on where it stopped if the server can give the rest
(RFC 9110, clause 14) of the very same file (If-Range).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from services.ia_api.errors import DiskFull, TooManyBytes, Transient, is_disk_full
from services.ia_api.filenames import safe_name, unused_name
from services.ia_api.multipart import file_name_of, is_multipart, parts
from services.ia_api.pathology_server import PathologyServer

MANIFEST = "manifest.json"
_JOURNAL = ".journal.jsonl"
_ETAG = ".etag"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class DownloadLimits:
    """What a download may take."""

    slide_bytes: int = 20 << 30
    """All files of one slide together; a larger slide fails at once."""
    free_bytes: int = 5 << 30
    """What has to stay free on the disk; below it the job waits."""


@dataclass(frozen=True)
class StoredFile:
    """One complete file: its name in the folder, its bytes, its SHA-256."""

    name: str
    size: int
    sha256: str


Check = Callable[[], None]
Progress = Callable[[int, int | None], None]


def nothing_to_check() -> None:
    """For downloads that nobody can cancel."""


def nobody_to_tell(_done: int, _of: int | None) -> None:
    """For downloads that nobody watches."""


def download(
    server: PathologyServer,
    slide_id: str,
    folder: Path,
    *,
    limits: DownloadLimits = DownloadLimits(),
    check: Check = nothing_to_check,
    progress: Progress = nobody_to_tell,
) -> tuple[StoredFile, ...]:
    """Fetch all files of a slide into `folder` and return what it holds then.

    A folder whose manifest is there is only read. `check` is called between pieces
    and stops the download by what it raises; `progress` gets bytes done and to do.
    """
    if (complete := manifest(folder)) is not None:
        return complete
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keeper = _Keeper(folder, limits, check, progress)
    keeper.check_disk(0)
    with server.files(slide_id, keeper.continuation()) as answer:
        kind = answer.headers.get("Content-Type", "application/octet-stream")
        keeper.expect(answer)
        if is_multipart(kind):
            for part in parts(answer.iter_raw(), kind):
                # A part without a file name is no file of the slide.
                if part.file_name is not None:
                    keeper.take(part.file_name, part.chunks)
        else:
            keeper.take_single(answer)
    return keeper.finish()


def manifest(folder: Path) -> tuple[StoredFile, ...] | None:
    """The files of a complete download, None while it is not complete."""
    try:
        noted = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    return tuple(StoredFile(**entry) for entry in noted["files"])


class _Keeper:
    """Writes the files of one download, within its limits."""

    def __init__(
        self, folder: Path, limits: DownloadLimits, check: Check, progress: Progress
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._check = check
        self._progress = progress
        self._kept = {entry.name: entry for entry in _journal(folder)}
        self._now: dict[str, StoredFile] = {}
        self._bytes = 0
        self._expected: int | None = None

    def continuation(self) -> dict[str, str]:
        """The headers that ask for the rest of a single file that was cut off."""
        found = self._single()
        if found is None:
            return {}
        part, etag = found
        return {"Range": f"bytes={part.stat().st_size}-", "If-Range": etag}

    def expect(self, answer: httpx.Response) -> None:
        """Refuse before the first byte what can be seen to be too much."""
        length = answer.headers.get("Content-Length", "")
        self._expected = int(length) if length.isdigit() else None
        if self._expected is not None:
            self._check_size(self._expected)
            self.check_disk(self._expected)

    def take_single(self, answer: httpx.Response) -> None:
        """Take an answer that is one file, or the rest of one."""
        sent = file_name_of(answer.headers.get("Content-Disposition"))
        # Without a name readers go by content, so any name will do.
        name = safe_name("slide" if sent is None else sent)
        found = self._single()
        if answer.status_code == 206 and found is not None:
            part, _ = found
            start = part.stat().st_size
            if not answer.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            ):
                part.unlink()
                raise Transient("the server sent another range than was asked for")
            self._write(name, answer.iter_raw(), part)
            return
        self._forget_single()
        etag = answer.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            (self._folder / _ETAG).write_text(json.dumps([name, etag]))
        self._write(name, answer.iter_raw())

    def take(self, sent_name: str, chunks: Iterable[bytes]) -> None:
        """Take one of several files."""
        name = unused_name(safe_name(sent_name), self._now)
        kept = self._kept.get(name)
        if kept is None or not (self._folder / name).is_file():
            self._write(name, chunks)
            return
        digest, size = hashlib.sha256(), 0
        for chunk in self._watched(chunks):
            digest.update(chunk)
            size += len(chunk)
        if (size, digest.hexdigest()) != (kept.size, kept.sha256):
            shutil.rmtree(self._folder)
            raise Transient("the slide changed while it was fetched; it begins anew")
        self._now[name] = kept

    def finish(self) -> tuple[StoredFile, ...]:
        """Note that all files are there."""
        if not self._now:
            raise Transient("the server sent no file of the slide")
        files = tuple(self._now.values())
        for stale in self._folder.iterdir():
            if stale.name not in self._now:
                stale.unlink()
        text = json.dumps({"files": [asdict(one) for one in files]}, indent=1)
        staging = self._folder / f"{MANIFEST}.part"
        with staging.open("w", encoding="utf-8") as file:
            file.write(text)
            _sync(file.fileno())
        staging.replace(self._folder / MANIFEST)
        _sync_folder(self._folder)
        return files

    def check_disk(self, coming: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if free - coming < self._limits.free_bytes:
            raise DiskFull("there is too little room for the slide on the disk")

    def _check_size(self, size: int) -> None:
        if size > self._limits.slide_bytes:
            raise TooManyBytes(
                f"the slide has more than {self._limits.slide_bytes} bytes, "
                "which is what one may have here"
            )

    def _watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        told = self._bytes
        for chunk in chunks:
            self._check()
            self._bytes += len(chunk)
            self._check_size(self._bytes)
            if self._bytes - told >= 64 << 20:
                told = self._bytes
                self.check_disk(0)
            self._progress(self._bytes, self._expected)
            yield chunk

    def _write(
        self, name: str, chunks: Iterable[bytes], begun: Path | None = None
    ) -> None:
        if name in {MANIFEST, f"{MANIFEST}.part", _JOURNAL, _ETAG}:
            name = unused_name(f"slide-{name}", self._now)
        digest = hashlib.sha256()
        staging = begun or _staging(self._folder, name)
        if begun is not None:
            with begun.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    digest.update(piece)
        try:
            with staging.open("wb" if begun is None else "ab") as file:
                os.fchmod(file.fileno(), 0o600)
                for chunk in self._watched(chunks):
                    file.write(chunk)
                    digest.update(chunk)
                _sync(file.fileno())
                size = file.tell()
        except OSError as err:
            if is_disk_full(err):
                raise DiskFull("the disk is full; the slide is fetched later") from err
            raise
        staging.replace(self._folder / name)
        _sync_folder(self._folder)
        entry = StoredFile(name, size, digest.hexdigest())
        with (self._folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(asdict(entry)) + "\n")
            _sync(journal.fileno())
        self._now[name] = entry

    def _single(self) -> tuple[Path, str] | None:
        """The beginning of a single file and its strong ETag, if both are there."""
        try:
            name, etag = json.loads((self._folder / _ETAG).read_text())
        except (FileNotFoundError, ValueError):
            return None
        part = _staging(self._folder, name)
        return (part, etag) if part.is_file() and part.stat().st_size else None

    def _forget_single(self) -> None:
        found = self._single()
        with contextlib.suppress(FileNotFoundError):
            (self._folder / _ETAG).unlink()
        if found is not None:
            found[0].unlink()


def _staging(folder: Path, name: str) -> Path:
    """Where a file lies until it is whole; `NAME.part` could be too long a name."""
    return folder / f".{hashlib.sha256(name.encode()).hexdigest()}.part"


def _journal(folder: Path) -> list[StoredFile]:
    try:
        lines = (folder / _JOURNAL).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(StoredFile(**json.loads(line)))
        except (ValueError, TypeError):
            # The last line of a process that was killed: its file is fetched again.
            break
    return entries


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
