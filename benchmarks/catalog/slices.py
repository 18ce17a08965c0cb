"""Slices delivered as JPEG a second: ours against nibabel and Pillow in a loop.

    python -m benchmarks.catalog.slices [--edge 192] [--rounds 3]

Both take the same volume, of int16 and oblique, to axial slices in 8 bits, quality 90.
The peer is what a careful notebook does: `nibabel.load`, `as_closest_canonical`, the
array in memory once, then for each slice a scaling to bytes and Pillow. Ours reads the
OME-Zarr copy that the catalogue keeps. Two orders are measured, in turns in one run:
`all`, every slice one after the other; and `single`, slices that are asked for one by
one, each by a reader that has nothing in memory, as a page asks for them. The answer is
JSON with slices a second and the ratios.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image as Pillow
from theatrum.catalog.arrays import open_array
from theatrum.catalog.zarr_store import write_image
from theatrum.nodes.catalog import slices
from theatrum.nodes.catalog.rendering import eight_bits, save

QUALITY = 90


def volume(folder: Path, edge: int) -> tuple[Path, Path]:
    """Write a head-like volume as NIfTI and as OME-Zarr."""
    rng = np.random.default_rng(1)
    z, y, x = np.mgrid[:edge, :edge, :edge] - edge / 2
    values = 900 * (np.sqrt(x**2 + y**2 + z**2) < edge / 2.5)
    values = (values + rng.normal(0, 40, values.shape)).clip(0).astype(np.int16)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[0, 1] = 0.05
    nifti, zarr = folder / "head.nii.gz", folder / "head.ome.zarr"
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), nifti)
    write_image(zarr, open_array(nifti))
    return nifti, zarr


def peer(nifti: Path, wanted: list[int]) -> list[bytes]:
    """Nibabel and Pillow in a loop."""
    image = nibabel.as_closest_canonical(nibabel.load(nifti))
    voxels = np.asarray(image.dataobj)
    low, high = float(voxels.min()), float(voxels.max())
    out = []
    for at in wanted:
        plane = voxels[::-1, ::-1, at].T.astype(np.float64)
        pixels = np.rint((plane - low) / (high - low) * 255).astype(np.uint8)
        stream = io.BytesIO()
        Pillow.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, subsampling=0)
        out.append(stream.getvalue())
    return out


def ours(zarr: Path, wanted: list[int], low: float, high: float) -> list[bytes]:
    """The catalogue's array, its nodes, and the same encoder."""
    cut = slices(open_array(zarr), choose="indices", indices=tuple(wanted))
    out = []
    for pixels in eight_bits(cut.compute(), low, high):
        stream = io.BytesIO()
        save(pixels, stream, "jpg", QUALITY)
        out.append(stream.getvalue())
    return out


def rate(work: Callable[[], int]) -> float:
    """Return slices a second."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def measure(edge: int, rounds: int) -> dict[str, float]:
    """Return slices a second of both, in both orders, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        nifti, zarr = volume(Path(folder), edge)
        array = open_array(zarr)
        low, high = float(array.min()), float(array.max())
        everything = list(range(edge))
        some = [int(at) for at in np.random.default_rng(2).choice(edge, 12, False)]
        first, second = peer(nifti, some[:1])[0], ours(zarr, some[:1], low, high)[0]
        theirs, mine = (
            np.asarray(Pillow.open(io.BytesIO(one))).astype(int)
            for one in (first, second)
        )
        assert np.abs(theirs - mine).max() <= 1, "both show the same slice"
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, work in {
                "all_peer": lambda: len(peer(nifti, everything)),
                "all_ours": lambda: len(ours(zarr, everything, low, high)),
                "single_peer": lambda: sum(len(peer(nifti, [at])) for at in some),
                "single_ours": lambda: sum(
                    len(ours(zarr, [at], low, high)) for at in some
                ),
            }.items():
                found.setdefault(name, []).append(rate(work))
    medians = {name: statistics.median(told) for name, told in found.items()}
    return {
        **{f"{name}_per_s": round(told, 1) for name, told in medians.items()},
        "all_ratio": round(medians["all_ours"] / medians["all_peer"], 2),
        "single_ratio": round(medians["single_ours"] / medians["single_peer"], 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.edge, asked.rounds), indent=2))
