"""A scene as JSON: the columns of an image, an acquisition and their channels.

Some pixels are read for it: their range, and the proof that they can be decoded. Of a
small image all are, of a large one planes spread over it, or its coarsest level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theatrum.catalog.display import columns_of
from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import chunked
from theatrum.catalog.formats.scene import Scene

if TYPE_CHECKING:
    import xarray as xr

ALL_BYTES: Final = 64 * 2**20
"""Of an image up to so large every number is looked at."""
_SAMPLED: Final = 12
"""Planes looked at of a larger one."""
_MOST_PIXELS: Final = 4096 * 4096
_PLANES: Final = {"S": "ax", "I": "ax", "A": "cor", "P": "cor", "L": "sag", "R": "sag"}
_OBLIQUE_DEG: Final = 30.0


def described(scene: Scene, folder: Path) -> dict[str, Any]:
    """What is registered of a scene; a table of its planes is written to `folder`.

    Raises Damaged where its pixels cannot be read.
    """
    array = scene.array
    affine = scene.affine_ras
    sizes = {dim: scene.size(dim) for dim in "tczyx"}
    statistics = _statistics(scene)
    warnings = list(scene.warnings)
    if statistics.pop("constant"):
        warnings.append("All numbers that were looked at are the same.")
    damaged = statistics.pop("damaged")
    if damaged:
        warnings.append(damaged)
    absent = statistics.pop("not_numbers")
    if absent:
        warnings.append(f"{absent} of the numbers that were looked at are not finite.")
    return {
        "index": scene.index,
        "name": scene.name,
        "image": {
            "format": scene.format.split(",")[0].lower()[:32],
            "dims": list(scene.dims),
            "shape": list(scene.shape),
            "dtype": array.dtype.name,
            "chunks": [int(one) for one in _chunk(array)],
            "n_levels": len(scene.levels),
            "px_x": scene.spacing.get("x"),
            "px_y": scene.spacing.get("y"),
            "px_z": scene.spacing.get("z"),
            "px_t": scene.spacing.get("t"),
            **{f"n_{dim}": sizes[dim] for dim in "xyczt"},
            "orientation": scene.orientation or None,
            "affine": None if affine is None else np.asarray(affine).tolist(),
            "frame_of_ref": scene.acquisition.frame_of_reference or None,
            "value_unit": scene.value_unit or None,
            "modality": scene.acquisition.modality,
            "plane": _plane(scene),
            **statistics,
        },
        "attrs": {**scene.facts, "warnings": warnings},
        "channels": columns_of(scene.channels)
        if len(scene.channels) == sizes["c"]
        else [],
        "acquisition": asdict(scene.acquisition),
        "bytes": int(array.size) * array.dtype.itemsize,
        "warnings": warnings,
        "planes": _write_planes(scene, folder),
    }


def _chunk(array: xr.DataArray) -> Sequence[int]:
    chunks = array.chunks
    if chunks is None:
        return chunked(array.shape, array.dtype.itemsize)
    return [one[0] for one in chunks]


def _plane(scene: Scene) -> str | None:
    """How a scan was acquired: ax, cor, sag, or obl where it lies between."""
    if scene.affine is None or len(scene.orientation) != 3:
        return None
    along = np.asarray(scene.affine, float)[:3, 2]
    length = float(np.linalg.norm(along))
    if not length:
        return None
    off = math.degrees(math.acos(min(float(np.abs(along).max()) / length, 1.0)))
    return "obl" if off > _OBLIQUE_DEG else _PLANES[scene.orientation[2]]


def _statistics(scene: Scene) -> dict[str, Any]:
    """Range and percentiles of the numbers, and how many are none."""
    values, damaged = _looked_at(scene)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    absent = int(values.size - finite.size)
    if not finite.size:
        none = dict.fromkeys(("vmin", "vmax", "p01", "p99"))
        return {**none, "constant": False, "not_numbers": absent, "damaged": damaged}
    low, high = float(finite.min()), float(finite.max())
    thinned = finite.reshape(-1)[:: max(finite.size // 2_000_000, 1)]
    first, last = (float(one) for one in np.percentile(thinned, (1, 99)))
    return {
        "vmin": low,
        "vmax": high,
        "p01": first,
        "p99": last,
        "constant": low == high,
        "not_numbers": absent,
        "damaged": damaged,
    }


def _looked_at(scene: Scene) -> tuple[Any, str]:
    """The numbers that are looked at, in one row, and what of them is damaged."""
    import dask

    array = scene.array
    if "reader" in scene.facts:
        return _slide(scene.levels[-1])
    with dask.config.set(scheduler="threads", num_workers=2):
        if array.nbytes <= ALL_BYTES:
            return np.asarray(array.values).reshape(-1), ""
        coarse = scene.levels[-1]
        outer = [str(one) for one in coarse.dims if one not in ("y", "x")]
        picked = []
        for at in _spread(coarse, outer):
            plane = coarse.isel(at)
            if plane.size > _MOST_PIXELS:
                middle = {
                    dim: slice(
                        max(plane.sizes[dim] // 2 - 2048, 0),
                        plane.sizes[dim] // 2 + 2048,
                    )
                    for dim in "yx"
                }
                plane = plane.isel(middle)
            picked.append(np.asarray(plane.values).reshape(-1))
        return np.concatenate(picked), ""


def _slide(array: xr.DataArray) -> tuple[Any, str]:
    """Parts of a slide's coarsest level; it may have damaged ones and be of use.

    Raises Damaged where all of them are.
    """
    blocks: Any = array.data.blocks
    count = int(np.prod(blocks.shape))
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int))
    picked, failures = [], []
    for at in chosen:
        block = blocks[np.unravel_index(int(at), blocks.shape)]
        try:
            picked.append(np.asarray(block.compute(scheduler="sync")).reshape(-1))
        except Damaged as error:
            failures.append(error)
    if not picked:
        raise failures[0]
    if not failures:
        return np.concatenate(picked), ""
    told = f"{len(failures)} of {len(chosen)} parts that were looked at are damaged."
    return np.concatenate(picked), told


def _spread(array: xr.DataArray, outer: Sequence[str]) -> list[dict[str, int]]:
    """Indices of planes, spread evenly over all that there are."""
    shape = [array.sizes[dim] for dim in outer]
    count = int(np.prod(shape)) if shape else 1
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int))
    places = [np.unravel_index(int(one), shape) if shape else () for one in chosen]
    return [
        {dim: int(at) for dim, at in zip(outer, place, strict=True)} for place in places
    ]


def _write_planes(scene: Scene, folder: Path) -> dict[str, Any] | None:
    """The facts of the planes as Parquet; its name and its rows."""
    if not scene.planes:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"planes-{scene.index}.parquet"
    table = pa.table({name: list(column) for name, column in scene.planes.items()})
    pq.write_table(table, target, compression="zstd")
    return {"file": target.name, "rows": int(table.num_rows)}
