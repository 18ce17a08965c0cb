"""A worker that is killed at every edge of every job, many jobs at a time.

    python -m benchmarks.dicom_client.dying_worker HOME NOTES SHARE

The edges are before and after each commit of a state, of a stop, of a delivery's note,
of the note that the last bytes of a package leave, and (for one series in ten) of the
decision about a complete series. A thread that comes to an edge for the first time
makes a file of that name in NOTES and rests; when the others rest as well, or nothing
more comes, the process is killed (SIGKILL). So one death stands for many edges, each
job dies at each of its own, and whatever else the process was doing is cut off at a
random moment. Nobody dies before there is a file `begin` in NOTES; who comes to an edge
earlier waits. With a SHARE below 1 each job dies at so many of its edges, others for
every job. The parent forks the next worker at once: nothing is imported twice, and all
that a death leaves behind is the next one's to find.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub.settings import load
from services.dicom_client.jobs import Jobs
from services.dicom_client.leases import Leases
from services.dicom_client.settings import read
from services.dicom_client.worker import work

_STILL_S = 0.3
"""So long nobody came to an edge: no more will come before somebody goes on."""
_LONGEST_S = 2.0
_INTAKE_ONE_IN = 10
BEGIN = "begin"


class Deaths:
    """Who rests at an edge, and when the process is killed for it."""

    def __init__(self, notes: Path, most: int, share: float) -> None:
        self._notes, self._most, self._share = notes, most, share
        self._lock = threading.Lock()
        self._resting, self._first, self._last = 0, 0.0, 0.0

    def have_begun(self) -> bool:
        """Whether anybody dies yet."""
        return (self._notes / BEGIN).exists()

    def begin(self) -> None:
        """In the process that is to die."""
        threading.Thread(target=self._watch, name="death", daemon=True).start()

    def at(self, edge: str) -> None:
        """The first one who comes to an edge does not come further."""
        if zlib.crc32(edge.encode()) / 2**32 >= self._share:
            return
        while not self.have_begun():
            time.sleep(0.1)
        try:
            (self._notes / edge).open("x").close()
        except FileExistsError:
            return
        with self._lock:
            self._resting += 1
            self._last = time.monotonic()
            self._first = self._first or self._last
        threading.Event().wait()

    def begins(self, edge: str) -> None:
        """What comes before an edge begins: it is there in any case if that is done.

        Whoever is killed by another hand just then leaves this and no more.
        """
        if zlib.crc32(edge.encode()) / 2**32 < self._share:
            begun_beside(self._notes).mkdir(exist_ok=True)
            (begun_beside(self._notes) / edge).touch()

    def _watch(self) -> None:
        while True:
            time.sleep(0.02)
            with self._lock:
                now = time.monotonic()
                if self._resting and (
                    self._resting >= self._most
                    or now - self._last > _STILL_S
                    or now - self._first > _LONGEST_S
                ):
                    os.kill(os.getpid(), signal.SIGKILL)


def main(home: Path, notes: Path, share: float) -> None:
    """Until told to stop."""
    settings = load({"THEATRUM_HOME": str(home)})
    chosen = read(settings.dicom_client)
    deaths = Deaths(notes, chosen.jobs_per_worker, share)
    _wound(Leases, "step", deaths, lambda a: f"{a[0]}-{a[2]}")
    _wound(Leases, "note_upload", deaths, lambda a: f"{a[0]}-upload-sent")
    _wound(Leases, "stop", deaths, lambda a: f"{a[0]}-stopped-{a[2]}")
    _wound(
        Leases,
        "note_attempt",
        deaths,
        lambda a: f"{a[0]}-{a[3].target}-{a[3].code}",
    )
    _wound(Jobs, "settle", deaths, lambda a: _seldom(deaths, a[0].job_id))
    while True:
        child = os.fork()
        if child == 0:
            deaths.begin()
            work(home, chosen, database_url=settings.database_url)
            os._exit(0)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))  # noqa: B023
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return


def begun_beside(notes: Path) -> Path:
    """Where it is noted that an edge will come."""
    return notes.with_name("begun")


def _seldom(deaths: Deaths, job_id: str) -> str | None:
    """The decision about a series as an edge, for one in ten.

    One thread decides about all: each of these edges is a death for itself, and it
    does not wait for the beginning.
    """
    if not deaths.have_begun() or zlib.crc32(job_id.encode()) % _INTAKE_ONE_IN:
        return None
    return f"{job_id}-settle"


def _wound(
    whole: type, name: str, deaths: Deaths, edge: Callable[[Any], str | None]
) -> None:
    """Have a method kill the process before or after it is done."""
    done = getattr(whole, name)

    def wounded(self: Any, *given: Any, **named: Any) -> Any:
        where = edge(given)
        if where is None:
            return done(self, *given, **named)
        deaths.at(f"{where}-before")
        deaths.begins(f"{where}-after")
        told = done(self, *given, **named)
        deaths.at(f"{where}-after")
        return told

    setattr(whole, name, wounded)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
