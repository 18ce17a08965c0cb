"""Ingest: how many series and slices a minute, against BINARY's recipe on the same.

    python -m benchmarks.catalog.ingest --peer PYTHON [--series N] [--slices N]

BINARY unpacks a series, runs dcm2niix (gzip on, anonymised sidecar off), scales the
volume to 0-1 by its extremes, and saves every slice along its shortest axis as a
Matplotlib figure in JPEG. `--peer` names a Python that has `dcm2niix`, `nibabel` and
`matplotlib`. Ours reads every file for its checksum, proves that its pixels decode,
registers subject, acquisition, files and image, and lets the tile service show it; with
`copy` it writes and verifies an OME-Zarr as well.

Both take the same series in one run, in turns, and are told as series a minute with the
start of their processes. The answer is JSON with the ratios.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from theatrum.catalog import zarr_store
from theatrum.catalog.arrays import open_scene
from theatrum.catalog.database import open_database
from theatrum.catalog.ingest import Wishes, ingest

from hub.home import Home
from tests.extensions.catalog.formats import scans

_RECIPE = """
import subprocess, sys
from pathlib import Path
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nibabel, numpy as np

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
program = Path(sys.executable).with_name("dcm2niix")
for series in sorted(folder.iterdir()):
    here = out / series.name
    here.mkdir(parents=True)
    subprocess.run([program, "-z", "y", "-ba", "n", "-f", "image", "-o", here, series],
                   check=True, stdout=subprocess.DEVNULL)
    for found in here.glob("*.nii.gz"):
        volume = nibabel.load(found).get_fdata()
        low, high = volume.min(), volume.max()
        volume = (volume - low) / (high - low)
        axis = int(np.argmin(volume.shape))
        for at in range(volume.shape[axis]):
            plt.imshow(np.take(volume, at, axis).T, cmap="gray", origin="lower")
            plt.savefig(here / f"{at}.jpg")
            # BINARY never clears its figure, and slows down; here it is cleared.
            plt.clf()
"""


def series(folder: Path, count: int, slices: int, size: int) -> None:
    """Write `count` series of `slices` slices of `size` by `size` pixels."""
    noise = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(size), np.arange(size))[:, :, None]
    for number in range(count):
        volume = (ramp + noise.integers(0, 200, (size, size, slices))).astype(np.int16)
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        scans.write_series(
            folder / f"{number:03d}",
            volume,
            affine,
            SeriesInstanceUID=f"1.2.3.{number + 1}",
            SeriesDescription=f"series {number}",
        )


def ours(folder: Path, out: Path, *, copy: bool = False) -> None:
    """Ingest into a fresh home; with `copy` an OME-Zarr of each image as well."""
    home = Home(out)
    database = open_database(home)
    try:
        report = ingest(database, home, [str(folder)], Wishes("bench", "benchmark"))
        assert not report.refused, report.refused
        if copy:
            for one in sorted(folder.iterdir()):
                scene = open_scene(one)
                target = out / "derived" / f"{one.name}.ome.zarr"
                zarr_store.write(scene.array, target, zarr_store.describe(scene))
                zarr_store.verify(target)
    finally:
        database.close()


def binary(peer: str) -> Callable[[Path, Path], None]:
    """BINARY's recipe, by another Python."""

    def run(folder: Path, out: Path) -> None:
        command = [peer, "-c", _RECIPE, str(folder), str(out)]
        subprocess.run(command, check=True)

    return run


def ours_as_a_process(*, copy: bool) -> Callable[[Path, Path], None]:
    """Ours in a fresh process too, so that both pay for their start."""

    def run(folder: Path, out: Path) -> None:
        own = [sys.executable, "-m", "benchmarks.catalog.ingest", "--only", str(folder)]
        options = ["--out", str(out), *(["--copy"] if copy else [])]
        subprocess.run([*own, *options], check=True)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default="", help="a Python with BINARY's parts")
    parser.add_argument("--series", type=int, default=6)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=Path, help="ingest this folder and end")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--copy", action="store_true")
    asked = parser.parse_args()
    if asked.only:
        ours(asked.only, asked.out, copy=asked.copy)
        return
    ways: dict[str, Callable[[Path, Path], None]] = {
        "theatrum": ours_as_a_process(copy=False),
        "theatrum with OME-Zarr": ours_as_a_process(copy=True),
    }
    if asked.peer:
        ways["BINARY's recipe"] = binary(asked.peer)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "series"
        series(folder, asked.series, asked.slices, asked.size)
        for number in range(asked.rounds):
            for name, way in ways.items():
                out = Path(made) / f"{number}-{name}"
                began = time.perf_counter()
                way(folder, out)
                taken[name].append(time.perf_counter() - began)
                shutil.rmtree(out)
    middle = {name: statistics.median(times) for name, times in taken.items()}
    answer = {
        "series": asked.series,
        "slices each": asked.slices,
        "pixels": [asked.size, asked.size],
        "seconds": {name: round(one, 2) for name, one in middle.items()},
        "series a minute": {
            name: round(60 * asked.series / one, 1) for name, one in middle.items()
        },
    }
    if asked.peer:
        peer = middle["BINARY's recipe"]
        answer["times as fast as BINARY's recipe"] = {
            name: round(peer / one, 1)
            for name, one in middle.items()
            if name != "BINARY's recipe"
        }
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
