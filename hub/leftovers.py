"""Find and end the processes of an installation that have lost their hub.

A hub that was killed leaves its services running. They are found by the variable
`THEATRUM_INSTANCE`, which every process that the hub starts inherits. People's own
servers are spared at a start, for the hub takes them up again, and ended at a stop.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

INSTANCE = "THEATRUM_INSTANCE"


def instance(home: Path) -> str:
    """The mark of the installation whose home is `home`."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]


def processes(home: Path) -> Iterator[tuple[psutil.Process, bool]]:
    """Each process of the installation, and whether it serves one person."""
    mark = instance(home)
    ours = {os.getpid(), os.getppid()}
    for process in psutil.process_iter():
        if process.pid in ours:
            continue
        try:
            environment = process.environ()
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if environment.get(INSTANCE) == mark:
            service = "JUPYTERHUB_SERVICE_NAME" in environment
            yield process, "JUPYTERHUB_USER" in environment and not service


def end(home: Path, *, people: bool, patience_s: float = 1.0) -> int:
    """End the proxy and the services, with `people` also people's servers.

    Returns how many processes there were. Each is asked first and killed after
    `patience_s` seconds. Where people are spared nobody is asked: a hub that lost its
    starter would stop their servers when it is.
    """
    found = [process for process, person in processes(home) if people or not person]
    for process in found:
        _signal(process, "terminate" if people else "kill")
    alive = _alive_after(found, patience_s)
    for process in alive:
        _signal(process, "kill")
    _alive_after(alive, patience_s)
    return len(found)


def _alive_after(
    found: list[psutil.Process], patience_s: float
) -> list[psutil.Process]:
    """Those that are still there after so many seconds; returns once none is.

    A process that has ended stays listed until its parent looks, and the parent of
    these may have been killed: `psutil.wait_procs` would wait for such.
    """
    until = time.monotonic() + patience_s
    while found and time.monotonic() < until:
        time.sleep(0.02)
        found = [process for process in found if _runs(process)]
    return found


def _runs(process: psutil.Process) -> bool:
    try:
        ended = process.status() == psutil.STATUS_ZOMBIE
        return bool(process.is_running()) and not ended
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, verb: str) -> None:
    try:
        getattr(process, verb)()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    end(Path(sys.argv[1]), people=sys.argv[2:] != ["--spare-people"])
