"""Images into a catalogue behind a service: sent in parts, taken in by its worker.

Each file is announced with its checksum and sent from where an earlier try stopped,
in this call or in one before; a folder travels as one zip. Addresses are not sent: the
service takes from those that its administrator allows. The report is the one that an
ingest here would give.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from theatrum.catalog.errors import BadRecord, NotConnected
from theatrum.catalog.ingest.errors import SourceFailed
from theatrum.catalog.ingest.report import Entry, Report

if TYPE_CHECKING:
    from theatrum.catalog.remote import RemoteBackend

PART: Final = 32 << 20
"""Bytes of one request: what is sent again at most when the line is cut."""
PATIENCE: Final = 8
"""Times in a row that a part may fail before it is given up; the next call goes on."""
LOOK_S: Final = 0.5
SOME_S: Final = 3600.0 * 24
"""So long one waits for the worker; what was sent is taken in all the same."""
_STATUSES: Final = ("taken", "known", "waiting", "refused")

Progress = Callable[[str, int, int], None]
"""Told the phase (`sent`, `taken in`), what is done, and of how much."""


# Any: values of columns
def send(
    backend: RemoteBackend,
    sources: Sequence[str],
    *,
    project: str,
    deidentify: str = "",
    fields: Mapping[str, Any] | None = None,
    inbox: bool = False,
    progress: Progress | None = None,
    wait_s: float = SOME_S,
) -> Report:
    """Send files and folders, name addresses, and wait until they are taken in.

    Raises
    ------
    SourceFailed
        Where a path is not there, or nobody takes in what was sent.
    NotConnected
        Where the line stays cut: called again it goes on from where it stopped.
    """
    said = {
        "project": project,
        "deidentify": deidentify,
        "fields": dict(fields or {}),
        "inbox": inbox,
    }
    for source in sources:
        if "://" not in source and not Path(source).exists():
            raise SourceFailed(f"{Path(source).name} is not there.")
    tell = progress or (lambda _phase, _done, _of: None)
    orders = [_ordered(backend, source, said, tell) for source in sources]
    report = Report(project)
    for number, route in enumerate(orders):
        tell("taken in", number, len(orders))
        _add(report, _ended(backend, route, wait_s), sources[number])
    tell("taken in", len(orders), len(orders))
    return report


def _ordered(
    backend: RemoteBackend, source: str, said: Mapping[str, Any], tell: Progress
) -> str:
    """Hand a source over; returns where its order can be looked at."""
    if "://" in source:
        if said["fields"] or said["deidentify"]:
            raise BadRecord(
                "of an address the service takes neither fields nor a profile: fetch "
                "the files and name these"
            )
        told = {name: said[name] for name in ("project", "inbox")}
        order = backend.json("POST", "ingest", json={**told, "source": source})
        return f"ingest/{quote(order['id'])}"
    with _file(Path(source)) as path:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = path.stat().st_size
        if not size:
            raise SourceFailed(f"{path.name} is empty.")
        order = _begun(backend, digest, said) or backend.json(
            "POST",
            "uploads",
            json={**said, "name": path.name, "size": size, "sha256": digest},
        )
        route = f"uploads/{quote(order['id'])}"
        _sent(backend, route, path, size, tell)
        backend.json("POST", f"{route}/complete")
    return route


@contextmanager
def _file(path: Path) -> Iterator[Path]:
    """A file as it is; of a folder a zip, the same bytes each time."""
    if path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="theatrum-send-") as folder:
        package = Path(folder, f"{path.resolve().name or 'images'}.zip")
        with zipfile.ZipFile(package, "x", zipfile.ZIP_STORED) as archive:
            for file in sorted(path.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    name = file.relative_to(path).as_posix()
                    # Without times, so that the checksum says what the files hold.
                    about = zipfile.ZipInfo(name)
                    about.file_size = file.stat().st_size
                    with file.open("rb") as raw, archive.open(about, "w") as packed:
                        while block := raw.read(1 << 20):
                            packed.write(block)
        yield package


def _begun(
    backend: RemoteBackend, digest: str, said: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The upload of the same bytes that an earlier call did not end."""
    for one in backend.json("GET", "uploads")["items"]:
        # Of all that is said: what was begun as it is must not go on for a later call
        # that wants it without names.
        same = all(one[name] == value for name, value in said.items())
        mine = one["sha256"] == digest and not one["bundle"]
        if same and mine and one["state"] == "receiving":
            return dict(one)
    return None


def _sent(
    backend: RemoteBackend, route: str, path: Path, size: int, tell: Progress
) -> None:
    left = PATIENCE
    pause = threading.Event()
    at = int(backend.json("GET", route)["offset"])
    with path.open("rb") as file:
        while at < size:
            tell("sent", at, size)
            file.seek(at)
            headers = {
                "Upload-Offset": str(at),
                "Content-Type": "application/offset+octet-stream",
            }
            try:
                part = file.read(min(PART, size - at))
                backend.ask("PATCH", route, content=part, headers=headers)
                left = PATIENCE
            except (NotConnected, BadRecord) as error:
                # The line was cut, or what came of it was more than one knows here.
                left -= 1
                if not left:
                    raise
                if isinstance(error, NotConnected):
                    pause.wait(min(8.0, 0.25 * 2 ** (PATIENCE - left)))
            at = int(backend.json("GET", route)["offset"])
    tell("sent", size, size)


def _ended(backend: RemoteBackend, route: str, wait_s: float) -> dict[str, Any]:
    pause = threading.Event()
    waited = 0.0
    while True:
        order = backend.json("GET", route)
        if order["state"] in ("done", "failed"):
            return dict(order)
        if waited > wait_s:
            raise SourceFailed(
                "It was sent, and the service has not taken it in yet: look at the "
                "images later, or ask whoever runs the hub whether its worker runs."
            )
        pause.wait(LOOK_S)
        waited += LOOK_S


def _add(report: Report, order: Mapping[str, Any], source: str) -> None:
    """Put what became of an order into the report."""
    told = order["report"]
    if order["state"] == "failed":
        name = source if "://" in source else Path(source).name
        report.add(Entry(source, (name,), "refused", reason=order["reason"]))
        return
    for status in _STATUSES:
        for one in told.get(status, ()):
            lists = ("files", "images", "warnings")
            entry = Entry(**{**one, **{name: tuple(one[name]) for name in lists}})
            report.add(entry)
    report.started = report.started or told.get("started", "")
    report.ended = told.get("ended", "")
    report.interrupted |= bool(told.get("interrupted"))
