"""Zip files that people upload: received in pieces, unpacked, taken like other series.

An archive lies in `phi/dicom_client/uploads/{id}` from its first byte until its images
are noted, and no longer; the name that it had elsewhere is not kept, because it can
hold a patient's. It is unpacked as a whole or refused as a whole (`zip_upload`). What
becomes of it stands in `state.json` beside it: an upload that a restart cut off while
it was unpacked goes on, and one that was still on its way is told to have failed.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import anyio

from hub.home import write_private
from services.dicom_client import audit
from services.dicom_client.arrivals import Arrival
from services.dicom_client.errors import (
    BadRequest,
    DicomClientError,
    NoRoom,
    NoSuchThing,
    TooLarge,
    WrongState,
)
from services.dicom_client.headers import Unreadable
from services.dicom_client.models import new_job_id
from services.dicom_client.opening import Service
from services.dicom_client.settings import Upload as UploadSettings
from services.dicom_client.staging import Different, Full, Quota, Staging
from services.dicom_client.zip_upload import ZipLimits, unpack

log = logging.getLogger("theatrum.dicom_client")

UPLOAD = "upload"
"""The source of what was uploaded."""
Phase = Literal[
    "receiving", "waiting", "unpacking", "taking", "done", "failed", "cancelled"
]
PHASES: tuple[Phase, ...] = get_args(Phase)
ENDED = frozenset({"done", "failed", "cancelled"})
_PIECE_BYTES = 1 << 20
_NOTED_AT_ONCE = 200
_REMEMBERED_S = 7 * 86_400.0


class _Closing(Exception):
    """The web server ends: the next one goes on."""


class Cancelled(DicomClientError):
    """A person does not want the upload any more."""

    code = "cancelled"


@dataclass(frozen=True)
class Upload:
    """One archive and what became of it."""

    id: str
    who: str
    at: float
    """When it began, in seconds since 1970."""
    total_bytes: int | None = None
    """What the sender said it weighs."""
    received_bytes: int = 0
    phase: Phase = "receiving"
    share: float = 0.0
    """How far the phase is, 0 to 1."""
    images: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    """Files in it that are no images for us, by reason."""
    series: tuple[str, ...] = ()
    """The ids of the series that its images belong to."""
    text: str = ""
    """What a person has to know of its end."""

    @property
    def has_ended(self) -> bool:
        return self.phase in ENDED

    @property
    def percent(self) -> int:
        """Of the phase."""
        return 100 if self.has_ended else min(99, int(100 * self.share))

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        return {**asdict(self), "percent": self.percent}


class Uploads:
    """The uploads of one web server process; safe to share between threads."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._folder = service.folders.root / "uploads"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._known: dict[str, Upload] = {}
        self._closing = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._resume()

    def close(self) -> None:
        """Stop what is under way; it goes on with the next start."""
        self._closing.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    # What is asked

    def get(self, upload_id: str) -> Upload:
        """An upload as it is now; raises NoSuchThing."""
        with self._lock:
            found = self._known.get(upload_id)
        if found is None:
            raise NoSuchThing("there is no such upload (any more)")
        return found

    def newest(self) -> list[Upload]:
        """The uploads of the last days, newest first."""
        with self._lock:
            return sorted(self._known.values(), key=lambda one: one.at, reverse=True)

    # What is done

    def begin(self, who: str, total_bytes: int | None) -> Upload:
        """Make room for an archive; raises TooLarge or NoRoom before a byte is read."""
        limit = self._limits.archive_bytes
        if total_bytes is not None and total_bytes > limit:
            raise _too_large(limit)
        self._room_for(total_bytes or 0)
        made = Upload(new_job_id(), who, time.time(), total_bytes)
        folder = self._folder / made.id
        folder.mkdir(mode=0o700)
        with self._lock:
            self._put(made, durable=True)
        with self._service.database.writing() as session:
            audit.note(session, who, "upload", after={"upload": made.id})
        return made

    async def receive(self, upload_id: str, pieces: AsyncIterator[bytes]) -> Upload:
        """Write an archive as it comes; unpacking it begins when it is whole.

        Whatever ends it early leaves nothing of it here, and is raised again.
        """
        try:
            with self._archive(upload_id).open("xb") as file:
                await self._write(upload_id, pieces, file.write)
        except Cancelled:
            return self.get(upload_id)
        except DicomClientError as err:
            self._end(upload_id, "failed", str(err))
            raise
        except BaseException:
            self._end(upload_id, "failed", "The upload was cut off: send it again.")
            raise
        self._change(upload_id, durable=True, phase="waiting", share=0.0)
        self._worker.submit(self._take, upload_id)
        return self.get(upload_id)

    async def _write(
        self,
        upload_id: str,
        pieces: AsyncIterator[bytes],
        write: Callable[[bytes], object],
    ) -> None:
        known = self.get(upload_id)
        limit = self._limits.archive_bytes
        received, waiting = 0, bytearray()
        async for piece in pieces:
            received += len(piece)
            waiting += piece
            if received > limit:
                raise _too_large(limit)
            if len(waiting) < _PIECE_BYTES:
                continue
            self._check(upload_id)
            await anyio.to_thread.run_sync(write, bytes(waiting))
            waiting.clear()
            self._change(
                upload_id,
                received_bytes=received,
                share=received / known.total_bytes if known.total_bytes else 0.0,
            )
            await anyio.to_thread.run_sync(self._room_for, 0)
        self._check(upload_id)
        await anyio.to_thread.run_sync(write, bytes(waiting))
        if known.total_bytes is not None and received != known.total_bytes:
            raise BadRequest("The upload was cut off: send it again.")
        self._change(upload_id, received_bytes=received)

    def cancel(self, upload_id: str, who: str) -> Upload:
        """Call an upload off; series whose images were taken already stay."""
        known = self.get(upload_id)
        if known.has_ended:
            raise WrongState(f"an upload that is {known.phase} cannot be cancelled")
        with self._service.database.writing() as session:
            audit.note(session, who, "upload-cancel", after={"upload": upload_id})
        self._end(upload_id, "cancelled", "")
        return self.get(upload_id)

    # In the thread

    def _resume(self) -> None:
        """What a restart cut off goes on, where all of it is here."""
        for folder in sorted(self._folder.iterdir()):
            try:
                told = json.loads((folder / "state.json").read_text("utf-8"))
                told["series"] = tuple(told["series"])
                known = Upload(**told)
            except (OSError, ValueError, TypeError, KeyError):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            if time.time() - known.at > _REMEMBERED_S:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._known[known.id] = known
            if known.phase == "receiving":
                self._end(known.id, "failed", "A restart cut it off: send it again.")
            elif not known.has_ended:
                self._worker.submit(self._take, known.id)

    def _take(self, upload_id: str) -> None:
        try:
            self._check(upload_id)
            text = self._taken(upload_id)
        except (Cancelled, _Closing):
            return
        except DicomClientError as err:
            self._end(upload_id, "failed", str(err))
        except Full:
            self._end(upload_id, "failed", _NO_ROOM)
        except Exception:
            # The boundary of the thread: other uploads go on.
            log.exception("an upload could not be taken")
            self._end(
                upload_id,
                "failed",
                "It could not be taken: the log of the web server "
                "says why. Send it again.",
            )
        else:
            self._end(upload_id, "done", text)

    def _taken(self, upload_id: str) -> str:
        """Unpack, sort and note; returns what is to be said of it."""
        folder = self._folder / upload_id / "files"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        self._change(upload_id, durable=True, phase="unpacking", share=0.0)
        chosen = self._limits
        files = unpack(
            self._archive(upload_id),
            folder,
            ZipLimits(
                members=chosen.files,
                member_bytes=chosen.file_bytes,
                total_bytes=chosen.unpacked_bytes,
            ),
            progress=lambda share: self._change(upload_id, share=share),
            check=lambda: self._check(upload_id),
            room=self._room_for,
        )
        self._change(upload_id, durable=True, phase="taking", share=0.0)
        series, counted, rejected = self._noted(upload_id, files)
        images = sum(counted.values())
        self._change(
            upload_id,
            images=images,
            rejected=dict(rejected),
            series=tuple(series),
        )
        if not images:
            raise BadRequest("The archive holds no CT, MR or PET image in DICOM files.")
        if not series:
            return "Nothing is new: all of its images were here before."
        return ""

    def _noted(
        self, upload_id: str, files: list[Path]
    ) -> tuple[list[str], Counter[str], Counter[str]]:
        """Series that await images, images by series, and what was refused."""
        jobs, staging = self._service.jobs, self._staging()
        counted: Counter[str] = Counter()
        rejected: Counter[str] = Counter()
        series: list[str] = []
        arrivals: list[Arrival] = []
        for number, file in enumerate(files, start=1):
            self._check(upload_id)
            try:
                staging.room_for(file.stat().st_size)
                with file.open("rb") as opened:
                    arrival = staging.keep(iter(lambda: opened.read(_PIECE_BYTES), b""))
            except Unreadable as err:
                rejected[err.code] += 1
            except Different:
                rejected["different"] += 1
            else:
                arrivals.append(arrival)
                counted[arrival.header.series] += 1
            file.unlink()
            self._change(upload_id, share=number / len(files))
            if len(arrivals) >= _NOTED_AT_ONCE or number == len(files):
                series += jobs.note(UPLOAD, arrivals)
                arrivals = []
        for uid, count in counted.items():
            # An archive is whole: nothing more of the series is waited for.
            jobs.expect(uid, count, released=True)
        return list(dict.fromkeys(series)), counted, rejected

    # Small parts

    @property
    def _limits(self) -> UploadSettings:
        return self._service.settings().upload

    def _staging(self) -> Staging:
        settings = self._service.settings()
        return Staging(
            self._service.folders.incoming,
            Quota(settings.scp.quota_bytes, settings.min_free_bytes),
        )

    def _room_for(self, size: int) -> None:
        free = self._service.folders.free_bytes() - size
        if free < self._service.settings().min_free_bytes:
            raise NoRoom(_NO_ROOM)

    def _archive(self, upload_id: str) -> Path:
        return self._folder / upload_id / "archive.zip"

    def _check(self, upload_id: str) -> None:
        if self._closing.is_set():
            raise _Closing
        if self.get(upload_id).phase == "cancelled":
            raise Cancelled("the upload was cancelled")

    # Any: values of fields
    def _change(self, upload_id: str, *, durable: bool = False, **values: Any) -> None:
        """Change an upload; what has ended stays as it is."""
        with self._lock:
            known = self._known[upload_id]
            if not known.has_ended:
                self._put(replace(known, **values), durable=durable)

    def _put(self, upload: Upload, *, durable: bool) -> None:
        self._known[upload.id] = upload
        if durable:
            told = json.dumps(asdict(upload)).encode()
            write_private(self._folder / upload.id / "state.json", told)

    def _end(self, upload_id: str, phase: Phase, text: str) -> None:
        self._change(upload_id, durable=True, phase=phase, text=text)
        folder = self._folder / upload_id
        shutil.rmtree(folder / "files", ignore_errors=True)
        self._archive(upload_id).unlink(missing_ok=True)
        log.info("an upload ended", extra={"action": "upload", "state": phase})


_NO_ROOM = "There is no room for it: free the disk, or raise the quota, then try again."


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"An archive may have {limit >> 20} MiB: send it in parts, or raise "
        "upload.archive_bytes in the settings."
    )
