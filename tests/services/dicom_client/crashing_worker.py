"""A worker that dies by kill -9 at chosen points, and is restarted each time.

    python -m tests.services.dicom_client.crashing_worker HOME NOTES

The points are before and after each commit of a state, of a stop, of a delivery's note,
and of the note that the last bytes of a package leave. Before it dies at a point for a
job it makes a file of that name in NOTES, so that each job dies once at each. The
parent forks a worker anew as soon as one is dead: nothing is imported twice, and all
that a crash leaves behind is the next worker's to find.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub.settings import load
from services.dicom_client.leases import Leases
from services.dicom_client.settings import read
from services.dicom_client.worker import work


def main(home: Path, notes: Path) -> None:
    """Until told to stop."""
    settings = load({"THEATRUM_HOME": str(home)})
    chosen = read(settings.dicom_client)
    _wound(notes, "step", lambda a, _k: str(a[2]))
    _wound(notes, "note_upload", lambda _a, _k: "upload-sent")
    _wound(notes, "stop", lambda a, _k: f"stopped-{a[2]}")
    _wound(notes, "note_attempt", lambda a, _k: f"{a[3].target}-{a[3].code}")
    while True:
        child = os.fork()
        if child == 0:
            work(home, chosen, database_url=settings.database_url)
            os._exit(0)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))  # noqa: B023
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return


def _wound(notes: Path, name: str, point: Callable[[Any, Any], str]) -> None:
    """Have a method of the leases kill the process before or after it is done."""
    whole = getattr(Leases, name)

    def wounded(self: Leases, *given: Any, **named: Any) -> Any:
        where = f"{given[0]}-{point(given, named)}"
        _die_once(notes / f"{where}-before")
        told = whole(self, *given, **named)
        _die_once(notes / f"{where}-after")
        return told

    setattr(Leases, name, wounded)


def _die_once(note: Path) -> None:
    try:
        note.open("x").close()
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
