"""Folders that others write into, and from which whole files are taken.

A file is taken when its size and its time have been the same over several scans; a
folder's own time says nothing. What was looked at once is not opened again until it
changes: the caller keeps a `Snapshot` for every path and hands all of them back.
Nothing is ever written here.

Names that begin with a dot or end as half-written files do (`.part`, `.tmp`) are passed
over, and links are not followed: what they lead to is either below a root, and found
there, or none of ours.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.dicom_client.arrivals import Arrival
from services.dicom_client.headers import Unreadable, read_header

_HALF_WRITTEN = (".part", ".tmp", ".partial", ".crdownload", ".ready")


@dataclass(frozen=True)
class WatchSettings:
    """How folders are watched."""

    scans: int = 3
    """How many scans in a row must see the same size and time."""
    stable_s: float = 30.0
    """And for how long at least: larger values are safer with slow shares that report
    old sizes, smaller ones begin sooner."""
    modified_from: float = 0.0
    """Files changed before this moment (seconds since 1970) are passed over."""
    batch: int = 2000
    """How many headers one scan reads at most; the rest waits for the next."""
    largest_bytes: int = 4 << 30
    """Larger files are rejected."""


@dataclass(frozen=True)
class Snapshot:
    """What is remembered of a path."""

    size: int
    mtime_ns: int
    since: float
    """When this size and time were first seen, in seconds since 1970."""
    scans: int = 1
    """How many scans saw them."""
    reason: str = ""
    """Why the file was rejected, if it was: the code of `headers.Unreadable`, `link`,
    or `too_large`."""
    offered: bool = False
    """Whether the file was given out as an instance."""


@dataclass(frozen=True)
class Reject:
    """A file that is no instance for us, said once."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Scan:
    """What one look at all roots gave."""

    stable: list[Arrival] = field(default_factory=list)
    """Instances that are whole and were not given out before."""
    rejects: list[Reject] = field(default_factory=list)
    """Files rejected by this scan, not those that were before."""
    snapshots: dict[Path, Snapshot] = field(default_factory=dict)
    """New or changed snapshots, to be kept; the others stand as they were."""
    gone: list[Path] = field(default_factory=list)
    """Known paths that are no more; forget them."""
    unreachable: list[Path] = field(default_factory=list)
    """Folders that could not be listed; nothing below them counts as gone."""
    waiting: int = 0
    """Files that are there but not yet stable, or not yet read."""
    unread: dict[Path, float] = field(default_factory=dict)
    """The folders in which these lie, and since when the first of them does so
    (seconds since 1970)."""


def resolve_roots(roots: Sequence[Path]) -> list[Path]:
    """Real paths of the folders to watch, each once, without folders of one another."""
    real = sorted({root.resolve() for root in roots}, key=lambda one: len(one.parts))
    kept: list[Path] = []
    for one in real:
        if not any(one.is_relative_to(other) for other in kept):
            kept.append(one)
    return kept


def is_below(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path, with every link in it followed, lies below one of the roots."""
    real = path.resolve()
    return any(real.is_relative_to(root.resolve()) for root in roots)


def scan(
    roots: Sequence[Path],
    known: Mapping[Path, Snapshot],
    now: float,
    settings: WatchSettings,
) -> Scan:
    """Look at everything below the roots once.

    `now` is in seconds since 1970. A file that grew after it was given out is given
    out again; by its content the caller sees that the series grew.
    """
    found = Scan()
    seen: set[Path] = set()
    waiting, read = 0, 0
    for path, state in _files(resolve_roots(roots), found):
        seen.add(path)
        before = known.get(path)
        if modes.S_ISLNK(state.st_mode):
            if before is None or before.reason != "link":
                _reject(found, path, _first(state, now), "link")
            continue
        if state.st_mtime < settings.modified_from:
            continue
        snapshot = _next(before, state, now)
        if snapshot.reason or snapshot.offered:
            continue  # as it was when it was looked at
        still_s = abs(now - snapshot.since)
        stable = snapshot.scans >= settings.scans and still_s >= settings.stable_s
        if not stable or read >= settings.batch:
            found.snapshots[path] = snapshot
            _leave_unread(found, path, state)
            waiting += 1
            continue
        read += 1
        if not _take(found, path, snapshot, settings):
            _leave_unread(found, path, state)
            waiting += 1
    found.gone.extend(
        path
        for path in known
        if path not in seen and not _below_any(path, found.unreachable)
    )
    return replace(found, waiting=waiting)


def _take(found: Scan, path: Path, snapshot: Snapshot, settings: WatchSettings) -> bool:
    """Read a stable file's header; False if it must be looked at again."""
    if snapshot.size > settings.largest_bytes:
        _reject(found, path, snapshot, "too_large")
        return True
    try:
        header = read_header(path)
        after = path.lstat()
    except Unreadable as err:
        _reject(found, path, snapshot, err.code)
        return True
    except OSError:
        # Not allowed, locked or just gone: none of these shows in size and time.
        found.snapshots[path] = snapshot
        return False
    if (after.st_size, after.st_mtime_ns) != (snapshot.size, snapshot.mtime_ns):
        found.snapshots[path] = _first(after, snapshot.since)
        return False
    found.snapshots[path] = replace(snapshot, offered=True)
    found.stable.append(Arrival(path, snapshot.size, snapshot.mtime_ns, header))
    return True


def _leave_unread(found: Scan, path: Path, state: os.stat_result) -> None:
    # Its own time may be that of the original, which was copied only now.
    since = max(state.st_mtime, state.st_ctime)
    found.unread[path.parent] = min(since, found.unread.get(path.parent, since))


def _reject(found: Scan, path: Path, snapshot: Snapshot, reason: str) -> None:
    found.snapshots[path] = replace(snapshot, reason=reason)
    found.rejects.append(Reject(path, reason))


def _first(state: os.stat_result, now: float) -> Snapshot:
    return Snapshot(state.st_size, state.st_mtime_ns, now)


def _next(before: Snapshot | None, state: os.stat_result, now: float) -> Snapshot:
    same = (state.st_size, state.st_mtime_ns)
    if before is None or (before.size, before.mtime_ns) != same:
        return _first(state, now)
    return replace(before, scans=before.scans + 1)


def _files(roots: Sequence[Path], found: Scan) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file and link below the roots, with its own state."""
    folders = list(roots)
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda one: one.name)
        except FileNotFoundError:
            if folder in roots:  # a share that is not mounted; else just removed
                found.unreachable.append(folder)
            continue
        except OSError:
            found.unreachable.append(folder)
            continue
        for entry in listed:
            if entry.name.startswith(".") or entry.name.endswith(_HALF_WRITTEN):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                state = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # removed between listing and looking
            if modes.S_ISREG(state.st_mode) or modes.S_ISLNK(state.st_mode):
                yield Path(entry.path), state


def _below_any(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
