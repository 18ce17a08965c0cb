"""Speed-up from one worker process to two, and what a run of a batch costs.

    python -m benchmarks.catalog.engine [--images 16] [--edge 128] [--runs 2000]

`speed_up` is the time of one worker process over that of two for the same batch of a
node that computes (Gaussians in three dimensions), on clusters that run already and
have done four items before; it can be no more than the machine has processors to give.
The rounds are taken in turns, and the median counts. `alone` is the time of the same
node in a plain loop over the files: what the engine costs besides. `storing` is the
same for a node that does little and writes a float volume of equal size.
`runs_per_s` is how many runs of a node that does next to nothing are begun, done and
written down a second, with their rows and events, on two workers; `cached_per_s` the
same where all are found done. The answer is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from theatrum.catalog import connect
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine import Engine
from theatrum.catalog.record import recording
from theatrum.node import Node
from theatrum.nodes.catalog import clip_percentile

from benchmarks.catalog.texture import brightest, texture


def study(folder: Path, count: int, edge: int) -> Catalog:
    """Make a catalogue of volumes of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = connect(folder / "home", user="bench")
    rng = np.random.default_rng(1)
    with recording(catalog.backend.database, "bench") as book:
        project = book.project("bench")
        for at in range(count):
            path = folder / f"{edge}-{at}.nii"
            values = rng.integers(0, 900, (edge,) * 3, dtype=np.int16)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
            book.image(
                project, path=str(path), name=f"v{at}", kind="original", modality="MR"
            )
    return catalog


def speed_up(
    catalog: Catalog, images: int, rounds: int, node: Node[..., Any]
) -> dict[str, float]:
    """Return the seconds with one and with two workers, in turns."""
    query = catalog.images.filter(kind="original")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with Engine("local", workers=1) as one, Engine("local", workers=2) as two:
        for engine in (one, two):
            query[:4].map(node, refresh=True, engine=engine).wait()
        alone = time.perf_counter()
        for image in query:
            found = node(image.array)
            getattr(found, "values", found)
        alone = time.perf_counter() - alone
        for _ in range(rounds):
            for workers, engine in ((1, one), (2, two)):
                began = time.perf_counter()
                batch = query.map(node, refresh=True, engine=engine).wait()
                seconds[workers].append(time.perf_counter() - began)
                assert batch.counts == {"succeeded": images}
    first, second = (statistics.median(seconds[workers]) for workers in (1, 2))
    return {
        "alone_s": round(alone, 2),
        "one_worker_s": round(first, 2),
        "two_workers_s": round(second, 2),
        "speed_up": round(first / second, 2),
        "processors": float(os.cpu_count() or 1),
    }


def overhead(folder: Path, runs: int) -> dict[str, float]:
    """Return runs a second, done and found."""
    catalog = study(folder, runs, 4)
    query = catalog.images.filter(kind="original")
    found = {}
    with Engine("local", workers=2) as engine:
        query[:4].map(texture, engine=engine).wait()
        for name in ("runs_per_s", "cached_per_s"):
            began = time.perf_counter()
            query.map(brightest, engine=engine).wait()
            found[name] = round(runs / (time.perf_counter() - began), 1)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        volumes = study(Path(place) / "a", asked.images, asked.edge)
        told: dict[str, Any] = {
            "computing": speed_up(volumes, asked.images, asked.rounds, texture),
            "storing": speed_up(volumes, asked.images, asked.rounds, clip_percentile),
        }
        told |= overhead(Path(place) / "b", asked.runs)
    print(json.dumps(told, indent=2))
