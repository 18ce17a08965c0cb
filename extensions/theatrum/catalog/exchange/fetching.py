"""Exports of a catalogue behind a service: made there by a job, fetched in parts.

The job is the service's and outlives this process; equal questions have one job. What
was fetched before the line was cut is gone on with (`Range`, `If-Range`), as often as
the service answers at all, and in the next call too: the part lies beside the path.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from theatrum.catalog.errors import BadArray, CatalogError, NotConnected

if TYPE_CHECKING:
    from theatrum.catalog.query.spec import Spec
    from theatrum.catalog.remote import RemoteBackend

LOOK_S: Final = 0.5
"""Between looks at a job."""
PATIENCE: Final = 8
"""Times in a row that a line may be cut without a byte having come."""
_BLOCK: Final = 1 << 20

Progress = Callable[[str, int, "int | None"], None]
"""Told the phase (`made`, `fetched`), bytes that are done, and of how many."""


class ExportFailed(CatalogError):
    """The service could not make an export; the text says why."""


def fetch(
    backend: RemoteBackend,
    spec: Spec,
    path: Path,
    what: str,
    # Any: how slices are chosen
    options: Mapping[str, Any],
    progress: Progress | None = None,
) -> Path:
    """Fetch an export to a path: a zip where the path says so, else a folder.

    Raises
    ------
    BadArray
        Where there is something at the path.
    ExportFailed
        Where the service cannot make it.
    """
    if path.exists():
        raise BadArray(f"{path.name} is there already: nothing is ever overwritten.")
    path.parent.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda _phase, _done, _of: None)
    said = {"query": spec.to_json(), "what": what, "options": dict(options)}
    job = _made(backend, said, tell)
    # A later call for the same finds the part of an earlier one, and no other does.
    known = hashlib.sha256(f"{job['id']} {json.dumps(said)}".encode()).hexdigest()[:12]
    part = path.with_name(f".{path.name}.{known}.partial")
    _fetched(backend, f"exports/{quote(job['id'])}/download", part, tell)
    if path.suffix == ".zip":
        part.rename(path)
        return path
    staging = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        _unpack(part, staging)
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    part.unlink()
    return path


def _made(
    backend: RemoteBackend, said: Mapping[str, Any], tell: Progress
) -> Mapping[str, Any]:
    """Order an export, and wait until it is there."""
    job = backend.json("POST", "exports", json=dict(said))
    pause = threading.Event()
    while job["state"] in ("queued", "running"):
        tell("made", job["bytes"] or 0, job["of"])
        pause.wait(LOOK_S)
        job = backend.json("GET", f"exports/{quote(job['id'])}")
    if job["state"] != "succeeded":
        why = job["reason"] or f"it was {job['state']}"
        raise ExportFailed(f"The service could not make this export: {why}.")
    return dict(job)


def _fetched(backend: RemoteBackend, route: str, part: Path, tell: Progress) -> None:
    """Fetch a file, from where it stopped, until it is whole."""
    tag_file = part.with_suffix(".tag")
    left = PATIENCE
    pause = threading.Event()
    while True:
        begin = part.stat().st_size if part.exists() and tag_file.exists() else 0
        headers = {}
        if begin:
            headers = {"Range": f"bytes={begin}-", "If-Range": tag_file.read_text()}
        try:
            with backend.streamed("GET", route, headers=headers) as answer:
                if answer.status_code == 416:  # all of it was here already
                    break
                if answer.status_code != 206:
                    begin = 0
                tag_file.write_text(answer.headers["ETag"])
                length = int(answer.headers["Content-Length"]) + begin
                with part.open("r+b" if begin else "wb") as file:
                    file.seek(begin)
                    for block in answer.iter_bytes(_BLOCK):
                        file.write(block)
                        begin += len(block)
                        left = PATIENCE
                        tell("fetched", begin, length)
                    file.flush()
                    os.fsync(file.fileno())
                if begin >= length:
                    break
        except NotConnected:
            left -= 1
            if not left:
                raise
            pause.wait(min(8.0, 0.25 * 2 ** (PATIENCE - left)))
    tag_file.unlink(missing_ok=True)


def _unpack(package: Path, folder: Path) -> None:
    """Unpack our own service's zip; a name that leads out of the folder is refused."""
    folder.mkdir()
    root = folder.resolve()
    with zipfile.ZipFile(package) as archive:
        for member in archive.infolist():
            place = (root / member.filename).resolve()
            if not place.is_relative_to(root):
                raise ExportFailed("A name in the export leads out of its folder.")
            if member.is_dir():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as packed, place.open("xb") as file:
                shutil.copyfileobj(packed, file, _BLOCK)
