"""A batch of 100 000 items: runs a second, the driver's memory, the window, resuming.

    python -m benchmarks.catalog.many [--items 100000] [--folder DIR] [--seconds 330]

The items are rows of small volumes (4 voxels a side, a thousand files); the node tells
the brightest voxel, so what is measured is the batch itself: rows, events, the
scheduler. The batch is driven by a process of its own on a local cluster of two
workers, which is killed by SIGKILL after `--seconds`; another call with the same folder
goes on with it. Once all are done it is looked whether each item has exactly one run
and each run one number. The answer is JSON: of this call the runs a second, the
driver's memory early and at the end, the most tasks that the scheduler held, and how
much the database grew for each run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
from sqlalchemy import func, insert, select
from theatrum.catalog import connect
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine import Engine, map_query, open_batch
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Image, Measurement, Run

from benchmarks.catalog.texture import brightest

FILES = 1000
WORKERS = 2
EVERY_S = 2.0
AT_ONCE = 5000


def study(folder: Path, items: int) -> Catalog:
    """Open a catalogue of so many rows of small volumes; made where it is missing."""
    catalog = connect(folder / "home", user="bench")
    if catalog.images.exists():
        return catalog
    places = []
    (folder / "files").mkdir()
    for at in range(FILES):
        place = folder / "files" / f"{at}.nii"
        values = np.full((4, 4, 4), at, np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), place)
        places.append(str(place))
    with recording(catalog.backend.database, "bench") as book:
        project = book.project("bench").id
        for begin in range(0, items, AT_ONCE):
            rows = [
                {
                    "id": f"i{at:07d}",
                    "project_id": project,
                    "name": f"v{at}",
                    # Each row is another image: links to a thousand files.
                    "path": _linked(folder, places[at % FILES], at),
                    "checksum": f"{at:064x}",
                    "modality": "MR",
                }
                for at in range(begin, min(begin + AT_ONCE, items))
            ]
            book.session.execute(insert(Image), rows)
    return catalog


def _linked(folder: Path, place: str, at: int) -> str:
    shelf = folder / "links" / str(at // FILES)
    shelf.mkdir(parents=True, exist_ok=True)
    link = shelf / f"{at}.nii"
    link.hardlink_to(place)
    return str(link)


def drive(folder: Path) -> None:
    """Begin the batch, or go on with it, until it ends; told every two seconds."""
    catalog = connect(folder / "home", user="bench")
    known = folder / "batch"
    told = (folder / "samples.jsonl").open("a", encoding="utf-8")
    with Engine("local", workers=WORKERS) as engine:
        engine.client.wait_for_workers(WORKERS)
        if known.exists():
            batch = open_batch(catalog.backend, known.read_text()).resume(engine)
        else:
            batch = map_query(catalog.images.all(), brightest, engine=engine)
            known.write_text(batch.id)
        tasks = engine.client.cluster.scheduler.tasks
        me, most = psutil.Process(), 0
        while batch.running:
            threading.Event().wait(0.2)
            most = max(most, len(tasks))
            sample = {
                "at": time.time(),
                "rss_mb": me.memory_info().rss / 1e6,
                "most_tasks": most,
            }
            told.write(json.dumps(sample) + "\n")
            told.flush()
        batch.wait()


def measured(folder: Path, items: int, seconds: float) -> dict[str, Any]:
    """Drive for a while; returns what was seen."""
    catalog = study(folder, items)
    samples = folder / "samples.jsonl"
    samples.unlink(missing_ok=True)
    before, size = _ended(catalog), _size(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.catalog.many", "--drive", str(folder)]
    )
    first: tuple[float, int] | None = None
    began, ended = time.perf_counter(), before
    while process.poll() is None and time.perf_counter() - began < seconds:
        threading.Event().wait(EVERY_S)
        ended = _ended(catalog)
        if first is None and ended > before:
            first = time.perf_counter(), ended
    last = time.perf_counter()
    killed = process.poll() is None
    if killed:
        _kill(process)
    elif process.returncode:
        raise SystemExit(f"the driver ended with {process.returncode}")
    ended = _ended(catalog)
    seen = [json.loads(line) for line in samples.read_text().splitlines()]
    found = {
        "items": items,
        "ended_before": before,
        "ended": ended,
        "killed": killed,
        "runs_per_s": round((ended - first[1]) / (last - first[0]), 1) if first else 0,
        "begun_after_s": round(first[0] - began, 1) if first else None,
        "driver_mb_early": round(seen[min(50, len(seen) - 1)]["rss_mb"]),
        "driver_mb_late": round(seen[-1]["rss_mb"]),
        "most_tasks_at_the_scheduler": seen[-1]["most_tasks"],
        "bytes_per_run": round((_size(folder) - size) / max(1, ended - before)),
        "database_mb": round(_size(folder) / 1e6),
    }
    return found | ({} if killed else _whole(catalog, items))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the driver as a lost machine would; its workers die with it."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for one in family:
        if one.is_running():
            one.kill()
    psutil.wait_procs(family, timeout=30)


def _whole(catalog: Catalog, items: int) -> dict[str, Any]:
    """Whether each item has one run and one number; raises where one has not."""
    with catalog.backend.database.reading() as session:
        states = dict(
            session.execute(select(Run.state, func.count()).group_by(Run.state)).all()
        )
        keys = session.scalar(select(func.count(Run.item_key.distinct())))
        numbers = session.scalar(select(func.count()).select_from(Measurement))
    found = {"states": states, "items_with_a_run": keys, "numbers": numbers}
    if states != {"succeeded": items} or keys != items or numbers != items:
        raise SystemExit(f"lost or doubled: {found}")
    return found


def _ended(catalog: Catalog) -> int:
    with catalog.backend.database.reading() as session:
        done = select(func.count()).select_from(Run).where(Run.state == "succeeded")
        return int(session.scalar(done) or 0)


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("theatrum.sqlite*"))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.drive:
        drive(asked.drive)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measured(folder, asked.items, asked.seconds), indent=2))


if __name__ == "__main__":
    main()
