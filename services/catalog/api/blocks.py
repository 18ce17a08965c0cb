"""An image as an OME-Zarr 0.5 group: its documents, and its blocks by their keys.

Zarr v3: a group's and an array's document is `zarr.json`, a block's key is
`LEVEL/c/I/J/...`. OME-Zarr 0.5 keeps its metadata in the group's attributes under
`ome`, with the spacing of each level as a scale in the axes' order.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Response
from theatrum.catalog.arrays import factor_and_shift
from theatrum.catalog.errors import NotFound
from theatrum.catalog.formats.scene import Scene

MOST_BYTES = 32 * 2**20
"""Of a block that is computed; larger ones are cut along the slower dimensions."""
_KEY = re.compile(r"(\d{1,3})/(zarr\.json|c(?:/\d{1,6})+)")
_UNITS = {"x": "millimeter", "y": "millimeter", "z": "millimeter", "t": "second"}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def lying(group: Path, key: str, wanted: str | None) -> Response:
    """A file of a group that lies on disk, or the part of it that Range names.

    Raises
    ------
    NotFound
        Where there is none, or the key leads out of the group.
    """
    place = (group / key).resolve()
    if not place.is_relative_to(group.resolve()) or not place.is_file():
        raise NotFound(f"there is no {key} in this group")
    size = place.stat().st_size
    media = "application/json" if key.endswith(".json") else "application/octet-stream"
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    span = span_of(wanted, size)
    if span is None:
        return Response(place.read_bytes(), 200, headers, media)
    first, last = span
    if first > last:
        headers["Content-Range"] = f"bytes */{size}"
        return Response(status_code=416, headers=headers)
    with place.open("rb") as file:
        file.seek(first)
        body = file.read(last - first + 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(body, 206, headers, media)


def computed(scene: Scene, key: str) -> bytes:
    """A document or a block of an image that lies in another format.

    Raises
    ------
    NotFound
        Where the group has no such key.
    """
    if key == "zarr.json":
        return _document(_group(scene))
    found = _KEY.fullmatch(key)
    if found is None or int(found[1]) >= len(scene.levels):
        raise NotFound(f"there is no {key} in this group")
    array = scene.levels[int(found[1])]
    if found[2] == "zarr.json":
        return _document(_array(array))
    place = tuple(int(one) for one in found[2].split("/")[1:])
    return _block(array, place)


# Any here: JSON, and arrays of any values
def _document(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode()


def _group(scene: Scene) -> dict[str, Any]:
    dims = [str(dim) for dim in scene.levels[0].dims]
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "ome": {
                "version": "0.5",
                "multiscales": [
                    {
                        "name": scene.name or "image",
                        "axes": [_axis(dim) for dim in dims],
                        "datasets": [
                            _dataset(scene, level) for level in range(len(scene.levels))
                        ],
                    }
                ],
            }
        },
    }


def _axis(dim: str) -> dict[str, str]:
    kind = {"c": "channel", "t": "time"}.get(dim, "space")
    unit = {"unit": _UNITS[dim]} if dim in _UNITS else {}
    return {"name": dim, "type": kind, **unit}


def _dataset(scene: Scene, level: int) -> dict[str, Any]:
    """Where a level lies, as the scene's own coordinates say it."""
    full, array = scene.levels[0], scene.levels[level]
    scale, shift = [], []
    for dim in map(str, full.dims):
        step = 1.0
        if dim in _UNITS and dim in full.coords and full.sizes[dim] > 1:
            along = full.coords[dim]
            step = abs(float(along[1] - along[0])) or 1.0
        factor, moved = factor_and_shift(full, array, dim)
        scale.append(step * factor)
        shift.append(step * moved)
    moves: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(shift):
        moves.append({"type": "translation", "translation": shift})
    return {"path": str(level), "coordinateTransformations": moves}


def _array(array: Any) -> dict[str, Any]:
    kind = np.dtype(array.dtype)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": kind.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": list(grid(array))},
        },
        "chunk_key_encoding": {
            "name": "default",
            "configuration": {"separator": "/"},
        },
        "fill_value": False if kind.kind == "b" else 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}}
            if kind.itemsize > 1
            else {"name": "bytes"},
            {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        ],
        "dimension_names": [str(dim) for dim in array.dims],
        "attributes": {},
    }


def of(array: Any) -> list[int]:
    """The shape of the blocks in which a file is read; [] where it has none."""
    told = array.encoding.get("preferred_chunks")
    if told:
        return [int(told[dim]) for dim in array.dims]
    return [int(max(sizes)) for sizes in array.chunks] if array.chunks else []


def grid(array: Any) -> tuple[int, ...]:
    """The shape of blocks: those in which the file is read, where they are regular."""
    shape = [max(1, side) for side in of(array) or array.shape]
    most = MOST_BYTES // np.dtype(array.dtype).itemsize
    for axis in range(len(shape)):
        while np.prod(shape) > most and shape[axis] > 1:
            shape[axis] = -(-shape[axis] // 2)
    return tuple(int(side) for side in shape)


def _block(array: Any, place: tuple[int, ...]) -> bytes:
    import imagecodecs

    shape = grid(array)
    if len(place) != len(shape) or any(
        at * side >= whole
        for at, side, whole in zip(place, shape, array.shape, strict=False)
    ):
        raise NotFound("there is no such block in this group")
    spans = {
        dim: slice(at * side, (at + 1) * side)
        for dim, at, side in zip(array.dims, place, shape, strict=True)
    }
    values = array.isel(spans).to_numpy()
    whole = np.zeros(shape, np.dtype(array.dtype).newbyteorder("<"))
    whole[tuple(slice(0, side) for side in values.shape)] = values
    return bytes(imagecodecs.zstd_encode(whole.tobytes(), level=1))


def span_of(wanted: str | None, size: int) -> tuple[int, int] | None:
    """The first and the last byte of a range (RFC 9110, 14.1.2); None for all."""
    found = _RANGE.fullmatch(wanted.strip()) if wanted else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size - 1
    last = int(found[2]) if found[2] else size - 1
    return int(found[1]), min(last, size - 1)
