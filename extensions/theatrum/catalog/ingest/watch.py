"""A folder that is watched: what is put there is taken in once it lies still.

A scanner writes for minutes, so a file counts when its size and time have not changed
for a while; the files of a folder wait for one another, since a series comes slice by
slice. What was seen is remembered by name, size and time, and known by its checksum
after a restart. It looks again and again and needs nothing of the file system, so it
works on network folders too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from theatrum.catalog.ingest.items import files_below

Stamp = tuple[int, int]


@dataclass
class Watched:
    """What is known of a folder between two looks.

    Attributes
    ----------
    settled_s
        How long a file must lie still. Shorter takes things in sooner, and risks half
        a series.
    """

    root: Path
    settled_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    _still_since: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)
    _done: dict[Path, Stamp] = field(default_factory=dict)

    def settled(self) -> list[Path]:
        """Files and Zarr folders that are new, and whose folders lie still."""
        now = self.clock()
        fresh: dict[Path, Stamp] = {}
        for path in files_below(self.root):
            stamp = _stamp(path)
            if stamp is not None and self._done.get(path) != stamp:
                fresh[path] = stamp
        known = self._still_since
        self._still_since = {
            path: known[path]
            if known.get(path, (None, 0))[0] == stamp
            else (stamp, now)
            for path, stamp in fresh.items()
        }
        moving = {
            path.parent
            for path, (_, since) in self._still_since.items()
            if now - since < self.settled_s
        }
        return [path for path in fresh if path.parent not in moving]

    def taken(self, paths: list[Path]) -> None:
        """Remember that these were taken in, or refused, as they are now."""
        for path in paths:
            stamp = _stamp(path)
            if stamp is not None:
                self._done[path] = stamp


def watch(
    watched: Watched,
    take: Callable[[list[Path]], None],
    *,
    ended: threading.Event,
    look_s: float = 2.0,
) -> None:
    """Look until `ended` is set; `take` gets what has settled, all of it together."""
    while not ended.is_set():
        found = watched.settled()
        if found:
            take(found)
            watched.taken(found)
        ended.wait(look_s)


def _stamp(path: Path) -> Stamp | None:
    """Size and time; of a folder, of all that is below it."""
    try:
        if path.is_dir():
            below = [one.stat() for one in path.rglob("*")]
            return (
                sum(one.st_size for one in below),
                max((one.st_mtime_ns for one in below), default=0),
            )
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
