"""What the engine does, told by the worker that uses it; and how large it shall be.

The cluster of a batch belongs to the worker's process, and may listen on the loopback
of another machine: so the worker itself writes, every second, what its scheduler says
into a file, and the service reads it. A file that is not renewed is of a worker that
was killed, and counts no more. In the other direction an administrator's wish for a
number of workers is a file, too: it holds for the cluster at hand and for later ones.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from theatrum.catalog.engine.addresses import parse

from hub.home import Home, write_private

if TYPE_CHECKING:
    from theatrum.catalog.engine import Engine

log = logging.getLogger(__name__)
TELL_S: Final = 1.0
"""Between two states of a cluster."""
STALE_S: Final = 15.0
"""A state that is older is of a worker that is no more, or that hangs."""
KILLED_S: Final = 3600.0
"""After which such a state is removed."""
SCALABLE: Final = frozenset({"local", "kube", "slurm", "gateway"})
"""Kinds of engines whose clusters are made for a batch, and so are ours to scale."""
MOST_WORKERS: Final = 1024


def is_scalable(address: str) -> bool:
    """Whether a cluster at this address takes the number of workers that is wished."""
    return parse(address).kind in SCALABLE


def wished(home: Home) -> int:
    """The number of workers that an administrator wished for; 0 where none did."""
    try:
        said = json.loads(_wish(home).read_bytes())
        return min(max(int(said["workers"]), 0), MOST_WORKERS)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def wish(home: Home, workers: int, by: str) -> None:
    """Note how many workers a cluster shall have from now on."""
    home.catalog.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = {"workers": workers, "by": by, "at": time.time()}
    write_private(_wish(home), json.dumps(said).encode())


# Any here: JSON
def states(home: Home) -> list[dict[str, Any]]:
    """What the workers' clusters do now, the longest at work first."""
    found = []
    for file in _folder(home).glob("*.json"):
        try:
            said = json.loads(file.read_bytes())
            if time.time() - float(said["at"]) < STALE_S:
                found.append(said)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue  # it is gone by now, or of another version of ours
    return sorted(found, key=lambda one: float(one["since"]))


@contextmanager
def told(home: Home, engine: Engine, batch: str) -> Iterator[None]:
    """Tell of an engine while a batch is done on it, and make it as large as wished."""
    done = threading.Event()
    file = _folder(home) / f"{socket.gethostname()}-{os.getpid()}-{batch}.json"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_killed(home)
    teller = threading.Thread(
        target=_tell, args=(home, engine, batch, file, done), daemon=True
    )
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join(TELL_S)
        file.unlink(missing_ok=True)


def _forget_killed(home: Home) -> None:
    """Remove what workers that were killed left behind."""
    for file in _folder(home).iterdir():
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > KILLED_S:
                file.unlink()


def _tell(
    home: Home, engine: Engine, batch: str, file: Path, done: threading.Event
) -> None:
    since, size = time.time(), wished(home)
    while True:
        said = {"batch": batch, "address": str(engine.address), "since": since}
        try:
            if engine.is_open:
                wanted = wished(home)
                if wanted and wanted != size:
                    size = wanted
                    engine.scale(wanted)
                said |= look(engine)
        except Exception as error:
            # The boundary to a scheduler that may go away at any moment: the batch's
            # own row says so, and here it is seen by what is missing.
            log.debug("the engine tells nothing: %s", type(error).__name__)
        if done.is_set():
            return
        # Not synced: it is of no use to anybody after this process.
        staging = file.with_name(f".{file.name}")
        staging.write_text(json.dumps(said | {"at": time.time()}), "utf-8")
        staging.replace(file)
        if done.wait(TELL_S):
            return


def look(engine: Engine) -> dict[str, Any]:
    """The workers, their memory and their tasks, as the scheduler knows them."""
    client = engine.client
    if client is None:
        return {"threads": engine.pool.workers, "workers": [], "tasks": {}}
    return of_scheduler(client.scheduler_info(n_workers=-1))


def of_scheduler(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler says of itself, in our words."""
    workers = [_worker(address, one) for address, one in info["workers"].items()]
    tasks: dict[str, int] = {}
    for one in workers:
        for state, count in one["tasks"].items():
            tasks[state] = tasks.get(state, 0) + count
    return {
        "scheduler": str(info.get("address", "")),
        "threads": sum(one["threads"] for one in workers),
        "memory_bytes": sum(one["memory_bytes"] for one in workers),
        "memory_limit_bytes": sum(one["memory_limit_bytes"] for one in workers),
        "tasks": tasks,
        "workers": workers,
    }


def _worker(address: str, one: Mapping[str, Any]) -> dict[str, Any]:
    metrics = one.get("metrics") or {}
    states = metrics.get("task_counts") or {}
    return {
        "address": address,
        "name": str(one.get("name", "")),
        "status": str(one.get("status", "")),
        "threads": int(one.get("nthreads") or 0),
        "memory_bytes": int(metrics.get("memory") or 0),
        "memory_limit_bytes": int(one.get("memory_limit") or 0),
        "cpu_percent": round(float(metrics.get("cpu") or 0), 1),
        "tasks": {str(name): int(count) for name, count in states.items() if count},
    }


def _folder(home: Home) -> Path:
    return home.catalog / "engines"


def _wish(home: Home) -> Path:
    return home.catalog / "engine.json"
