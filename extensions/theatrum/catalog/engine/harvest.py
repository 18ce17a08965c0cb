"""Outputs of a node as files and numbers that can travel and be registered.

Arrays become OME-Zarr, tables Parquet, marks and areas GeoJSON; numbers, texts and
verdicts travel as they are. All of it lies in the run's staging folder until the driver
moves it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from theatrum.node import (
    ArrayImage,
    File,
    Labels,
    Line,
    Marks,
    Outputs,
    Polygon,
    Quality,
    Table,
)
from theatrum.node.arrays import Array

Form = Literal["array", "file", "table", "number", "text", "shape"]


@dataclass(frozen=True)
class Kept:
    """One output.

    Attributes
    ----------
    port, position
        Whose it is, and which of several.
    form
        How it is registered.
    path
        Of its file or folder, in staging; None of a number or a text.
    value
        The number, the text, or the GeoJSON geometry.
    facts
        Columns for its row: of an array its shape and place, of a file its type.
    checksum
        SHA-256 of the file, or of all files of the folder.
    """

    port: str
    position: int
    form: Form
    path: Path | None = None
    # Any: JSON
    value: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    checksum: str = ""
    size: int = 0


_IN_FILES = frozenset({"array", "labels", "image", "table", "marks"})
"""Kinds of outputs that are written here; a folder for each number would cost more than
most numbers do."""


def harvest(
    outputs: Outputs, staging: Path, compute: Callable[[Any], None] | None = None
) -> tuple[Kept, ...]:
    """Write what a node gave into the staging folder.

    `compute` stores an array's blocks; by default threads of this process do.
    """
    if any(outputs.ports[port].kind in _IN_FILES for port in outputs):
        staging.mkdir(parents=True, exist_ok=True)
    kept: list[Kept] = []
    for port, value in outputs.items():
        several = value if outputs.ports[port].many else (value,)
        for position, one in enumerate(several):
            kept.append(_kept(port, position, one, staging, outputs, compute))
    return tuple(kept)


def _kept(
    port: str,
    position: int,
    value: Any,
    staging: Path,
    outputs: Outputs,
    compute: Callable[[Any], None] | None,
) -> Kept:
    stem = staging / f"{port}-{position}"
    if isinstance(value, bool | str):
        return Kept(port, position, "text", value=str(value))
    if isinstance(value, int | float):
        unit = outputs.numbers[port].unit
        return Kept(port, position, "number", value=value, facts={"unit": unit})
    if isinstance(value, Quality):
        return Kept(port, position, "text", value=f"{value.verdict}: {value.reason}")
    if isinstance(value, Polygon | Line):
        return Kept(port, position, "shape", value=value.to_geojson())
    if isinstance(value, File):
        return _file(port, position, value)
    if isinstance(value, Table):
        return _table(port, position, value, stem.with_suffix(".parquet"))
    if isinstance(value, Marks):
        path = stem.with_suffix(".geojson")
        path.write_text(json.dumps(value.to_geojson()))
        return _file(port, position, File(path, "application/geo+json", "export"))
    array = value
    if isinstance(value, Labels):
        array = _of_labels(value)
    elif isinstance(value, ArrayImage):
        array = _of_picture(value)
    return _array(port, position, array, stem.with_suffix(".ome.zarr"), compute)


def _array(
    port: str,
    position: int,
    array: Array,
    path: Path,
    compute: Callable[[Any], None] | None,
) -> Kept:
    from theatrum.catalog.display import columns_of
    from theatrum.catalog.facts import facts_of_array
    from theatrum.catalog.tables.finite import finite
    from theatrum.catalog.zarr_store import write_image

    written = write_image(path, array, compute=compute)
    facts = facts_of_array(array)
    label = bool(array.attrs.get("is_label"))
    channels = columns_of(written.channels)
    told = {
        name: value
        for name, value in array.attrs.items()
        if name not in _KNOWN and _is_plain(value)
    }
    facts |= {
        "n_levels": written.levels,
        "chunks": list(written.chunk),
        "format": "ome-zarr",
        "attrs": finite(told),
    }
    return Kept(
        port,
        position,
        "array",
        path,
        {
            "is_label": label,
            "channels": channels,
            "plane": array.attrs.get("plane"),
            "part": array.attrs.get("part"),
        },
        facts,
        written.sha256_tree,
        written.bytes,
    )


_KNOWN = frozenset(
    {
        *("affine", "convention", "modality", "units", "is_label", "channels"),
        *("id", "format", "level", "orientation", "plane", "name", "part"),
        *("protocol", "channel_colors"),
    }
)
"""Attributes that are columns of their own."""


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 10_000 and all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _of_labels(labels: Labels) -> Array:
    import numpy as np
    import xarray as xr

    dims = ("z", "y", "x")[-labels.array.ndim :]
    attrs: dict[str, Any] = {
        "is_label": True,
        "label_names": [f"{number}: {name}" for number, name in labels.names.items()],
    }
    if labels.affine_lps is not None:
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        attrs["affine"] = (flip @ labels.affine_lps).tolist()
    else:
        attrs |= {"origin": list(labels.origin), "downsample": labels.downsample}
    return xr.DataArray(labels.array, dims=dims, attrs=attrs)


def _of_picture(picture: ArrayImage) -> Array:
    import numpy as np
    import xarray as xr

    array = xr.DataArray(
        np.moveaxis(picture.array, -1, 0),
        dims=("c", "y", "x"),
        attrs={"channels": ["red", "green", "blue"]},
    )
    if picture.mpp:
        for name in ("y", "x"):
            along = np.arange(array.sizes[name]) * picture.mpp / 1000
            array = array.assign_coords({name: (name, along, {"units": "mm"})})
    return array


def _file(port: str, position: int, file: File) -> Kept:
    facts = {"media_type": file.media_type, "role": file.role, "title": file.title}
    checksum, size = _digest(file.path)
    return Kept(port, position, "file", file.path, None, facts, checksum, size)


def _table(port: str, position: int, table: Table, path: Path) -> Kept:
    import pyarrow
    import pyarrow.parquet

    columns = {name: list(column) for name, column in table.columns.items()}
    built = pyarrow.table(columns)
    fields = [
        one.with_metadata({"unit": table.units[one.name]})
        if one.name in table.units
        else one
        for one in built.schema
    ]
    pyarrow.parquet.write_table(built.cast(pyarrow.schema(fields)), path)
    checksum, size = _digest(path)
    schema = {
        one.name: {"type": str(one.type), "unit": table.units.get(one.name, "")}
        for one in fields
    }
    facts = {"row_count": len(table), "schema": schema}
    return Kept(port, position, "table", path, None, facts, checksum, size)


def _digest(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file, or of a folder's files in order, and their size."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(
                stream, "sha256"
            ).hexdigest(), path.stat().st_size
    whole, size = hashlib.sha256(), 0
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        digest, length = _digest(file)
        whole.update(f"{digest}  {file.relative_to(path)}\n".encode())
        size += length
    return whole.hexdigest(), size
