"""OME-Zarr 0.5 written whole or not at all, with the checksum of every file.

A group is built in a staging folder beside its place, synced, and renamed; who looks
sees nothing or all of it. Levels are halved along y and x (and z where that is as fine)
by averaging, so that numbers keep their type; labels are halved by taking every second
one, since an average of labels is none. Chunks of a level lie in shards, so that a
volume is a few files.

OME-Zarr has no place for an affine with an orientation before its version 0.6: these,
with the acquisition, lie in the group's attributes under `theatrum`, beside `ome`.

Planes: those of `formats.scene`; scales are in millimetres and seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theatrum.catalog.display import channels_of, decided
from theatrum.catalog.errors import BadArray, NotOpened
from theatrum.catalog.formats.scene import DIMS, Acquisition, Affine, Channel, Scene

if TYPE_CHECKING:
    import xarray as xr

CHECKSUMS: Final = ".sha256"
"""The ending of the list beside a group, of which `sha256sum -c` takes the form."""
_CHUNK: Final = {"t": 1, "c": 1, "z": 32, "y": 256, "x": 256}
_FLAT_CHUNK: Final = {"t": 1, "c": 1, "z": 1, "y": 1024, "x": 1024}
_SHARD_CHUNKS: Final = 4
_SMALLEST: Final = 256
"""A level with no side longer than this is the last."""
_MOST_LEVELS: Final = 10
_TYPES: Final = {"t": "time", "c": "channel"}
_UNITS: Final = {"t": "second", "z": "millimeter", "y": "millimeter", "x": "millimeter"}
_STEP: Final = 2**20


@dataclass(frozen=True)
class Description:
    """What goes beside the pixels.

    Attributes
    ----------
    spacing
        Millimetres and seconds by dimension.
    is_label
        Numbers are names of things: levels are not averaged.
    """

    name: str = ""
    spacing: Mapping[str, float] | None = None
    affine: Affine | None = None
    convention: str = ""
    channels: Sequence[Channel] = ()
    acquisition: Acquisition | None = None
    value_unit: str = ""
    facts: Mapping[str, Any] | None = None
    is_label: bool = False


@dataclass(frozen=True)
class Written:
    """A group that was written.

    Attributes
    ----------
    sha256_tree
        The SHA-256 of the list of all files with theirs: one number for the whole.
    bytes
        Of all files.
    channels
        As they are shown, with a colour and a window each; () where none is named.
    """

    path: Path
    sha256_tree: str
    bytes: int
    levels: int
    chunk: tuple[int, ...]
    channels: tuple[Channel, ...] = ()


def describe(scene: Scene) -> Description:
    """What a scene says of itself, to go beside its pixels."""
    return Description(
        name=scene.name,
        spacing=scene.spacing,
        affine=scene.affine,
        convention=scene.convention,
        channels=scene.channels,
        acquisition=scene.acquisition,
        value_unit=scene.value_unit,
        facts=scene.facts,
    )


def write(
    array: xr.DataArray,
    path: Path,
    description: Description | None = None,
    *,
    compute: Callable[[Any], None] | None = None,
) -> Written:
    """Write an array as OME-Zarr 0.5 with its coarser levels.

    Parameters
    ----------
    array
        Lazy or not; dimensions among t c z y x, numbers of up to 64 bits.
    path
        Of the group; there must be nothing yet.
    description
        What is known of it; without it, what the array's coordinates say.
    compute
        How a dask array's blocks are stored; by default in threads of this process.

    Raises
    ------
    BadArray
        Where the array is of no kind that OME-Zarr keeps, or `path` is taken.
    """
    about = description or Description()
    ordered = _ordered(array)
    if path.exists():
        raise BadArray(f"{path.name} is there already: nothing is ever overwritten.")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        levels, chunk, channels = _fill(staging, ordered, about, compute)
        checksums = _checksums(staging)
        _sync(staging)
        staging.rename(path)
        _write_list(_list_of(path), path.name, checksums)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    size = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return Written(path, tree_digest(checksums), size, levels, chunk, channels)


def write_image(
    path: Path,
    array: xr.DataArray,
    *,
    compute: Callable[[Any], None] | None = None,
) -> Written:
    """Write an array with what its own attributes say of it; see `write`.

    Those are `affine`, `convention` (RAS unless it says LPS), `modality`, `protocol`,
    `units` and `is_label`; channels are those of `display.channels_of`.
    """
    attrs = array.attrs
    affine = attrs.get("affine")
    acquired = None
    protocol = attrs.get("protocol") or {}
    if attrs.get("modality") or protocol:
        modality: Any = attrs.get("modality") or "OT"  # whatever a node said
        acquired = Acquisition(modality=modality, protocol=dict(protocol))
    return write(
        array,
        path,
        Description(
            name=str(attrs.get("name", array.name or "")),
            affine=None if affine is None else np.asarray(affine, float),
            convention="" if affine is None else str(attrs.get("convention") or "RAS"),
            channels=channels_of(array),
            acquisition=acquired,
            value_unit=str(attrs.get("units", "")),
            is_label=bool(attrs.get("is_label")),
        ),
        compute=compute,
    )


def verify(path: Path) -> str:
    """Compare every file of a group with its checksum; the digest of all of them.

    Raises NotOpened where one differs, is missing, or has no checksum.
    """
    told = {}
    try:
        for line in _list_of(path).read_text().splitlines():
            digest, _, name = line.partition("  ")
            told[name.removeprefix(f"{path.name}/")] = digest
    except (OSError, ValueError) as error:
        raise NotOpened(
            f"{path.name} has no list of checksums beside it: run what made it again."
        ) from error
    found = _checksums(path)
    if found != told:
        wrong = sorted(
            name for name in {*found, *told} if found.get(name) != told.get(name)
        )
        raise NotOpened(
            f"{path.name} is not as it was written: {len(wrong)} files differ, "
            f"{wrong[0]} first. Restore it from a backup, or run what made it again."
        )
    return tree_digest(found)


def tree_digest(checksums: Mapping[str, str]) -> str:
    """One SHA-256 of a list of files and theirs."""
    lines = "".join(f"{checksums[name]}  {name}\n" for name in sorted(checksums))
    return hashlib.sha256(lines.encode()).hexdigest()


def _ordered(array: xr.DataArray) -> xr.DataArray:
    dims = [str(one) for one in array.dims]
    if any(one not in DIMS for one in dims) or not {"y", "x"} <= set(dims):
        raise BadArray(
            f"An array of the dimensions {tuple(dims)} is no image: name them among "
            f"{' '.join(DIMS)}, with y and x."
        )
    if array.dtype.kind not in "uifb" or array.dtype.itemsize > 8:
        raise BadArray(f"Numbers of {array.dtype} are not kept: turn them into floats.")
    if not array.size:
        raise BadArray("The array is empty.")
    ordered = array.transpose(*[one for one in DIMS if one in dims])
    if ordered.dtype.kind == "b":
        return ordered.astype(np.uint8)
    return ordered.astype(ordered.dtype.newbyteorder("="))


def _fill(
    root: Path,
    array: xr.DataArray,
    about: Description,
    compute: Callable[[Any], None] | None,
) -> tuple[int, tuple[int, ...], tuple[Channel, ...]]:
    """Write all levels below `root`; how many, the first's chunk, and the channels."""
    import zarr

    dims = tuple(str(one) for one in array.dims)
    spacing = dict(about.spacing or _spacing_of(array))
    group: Any = zarr.create_group(
        zarr.storage.LocalStore(root), zarr_format=3, attributes={}
    )
    chunk = _chunk(dims, array.shape)
    steps = [_store(group, _place(0), array.data, dims, chunk, compute)]
    factors = [dict.fromkeys(dims, 1)]
    while len(steps) < _MOST_LEVELS:
        above: Any = steps[-1]
        halved = _halved(dims, above.shape, spacing, factors[-1])
        if not halved:
            break
        smaller = _shrunken(above, dims, halved, is_label=about.is_label)
        name = _place(len(steps))
        steps.append(_store(group, name, smaller, dims, chunk, compute))
        factors.append(
            {dim: factors[-1][dim] * (2 if dim in halved else 1) for dim in dims}
        )
    channels: tuple[Channel, ...] = ()
    if len(about.channels) == array.sizes.get("c", 1):
        channels = tuple(about.channels)
        if not about.is_label:
            channels = decided(channels, dims, steps[-1])
    about = replace(about, channels=channels)
    group.attrs.update(_attributes(dims, spacing, factors, about, array))
    return len(steps), chunk, channels


def _place(level: int) -> str:
    """The array of a level: in a group of its own, so that xarray sees a tree."""
    return f"scale{level}/image"


def _store(
    group: Any,
    name: str,
    numbers: Any,
    dims: Sequence[str],
    chunk: Sequence[int],
    compute: Callable[[Any], None] | None,
) -> Any:
    """One level's array, filled; `numbers` are numpy's or dask's."""
    import dask
    import dask.array as da

    shape = tuple(int(one) for one in numbers.shape)
    small = tuple(min(one, size) for one, size in zip(chunk, shape, strict=True))
    shard = tuple(
        one if dim in "tc" else min(one * _SHARD_CHUNKS, -(-size // one) * one)
        for dim, one, size in zip(dims, small, shape, strict=True)
    )
    created = group.create_array(
        name,
        shape=shape,
        dtype=numbers.dtype,
        chunks=small,
        shards=shard,
        dimension_names=list(dims),
        fill_value=0,
    )
    # One task writes one shard whole, so that no two write to one file.
    as_array: Any = da.asarray
    lazy = as_array(numbers).rechunk(shard)
    stored = da.store(lazy, created, lock=False, compute=False)
    if compute is not None:
        compute(stored)
    else:
        with dask.config.set(scheduler="threads"):
            stored.compute()
    return created


def _chunk(dims: Sequence[str], shape: Sequence[int]) -> tuple[int, ...]:
    sizes = dict(zip(dims, shape, strict=True))
    table = _CHUNK if sizes.get("z", 1) > 1 else _FLAT_CHUNK
    return tuple(min(table[dim], sizes[dim]) for dim in dims)


def _halved(
    dims: Sequence[str],
    shape: Sequence[int],
    spacing: Mapping[str, float],
    factors: Mapping[str, int],
) -> tuple[str, ...]:
    """Along which dimensions the next level has half as many; () after the last.

    z goes with y and x as long as its steps are no longer than theirs.
    """
    sizes = dict(zip(dims, shape, strict=True))
    if max(sizes["y"], sizes["x"]) <= _SMALLEST or min(sizes["y"], sizes["x"]) < 2:
        return ()
    halved = ["y", "x"]
    if sizes.get("z", 1) > 1 and "z" in spacing and "x" in spacing:
        step_z = spacing["z"] * factors["z"]
        step_x = spacing["x"] * factors["x"]
        if step_z <= 1.5 * step_x:
            halved.append("z")
    return tuple(halved)


def _shrunken(
    stored: Any, dims: Sequence[str], halved: Sequence[str], *, is_label: bool
) -> Any:
    """Every second number, or the mean of two by two (by two), as a dask array."""
    import dask.array as da

    from_zarr: Any = da.from_zarr
    lazy = from_zarr(stored)
    if is_label:
        return lazy[tuple(slice(None, None, 2 if dim in halved else 1) for dim in dims)]
    axes = {at: 2 for at, dim in enumerate(dims) if dim in halved}
    # A last odd row is averaged with itself.
    padded = da.pad(
        lazy,
        [(0, lazy.shape[at] % 2 if at in axes else 0) for at in range(lazy.ndim)],
        mode="edge",
    )
    even = padded.rechunk(
        tuple(
            max(one // 2 * 2, 2) if at in axes else one
            for at, one in enumerate(lazy.chunksize)
        )
    )
    dtype = lazy.dtype
    mean = da.coarsen(np.mean, even, axes)
    return (da.rint(mean) if dtype.kind in "iu" else mean).astype(dtype)


def _attributes(
    dims: Sequence[str],
    spacing: Mapping[str, float],
    factors: Sequence[Mapping[str, int]],
    about: Description,
    array: xr.DataArray,
) -> dict[str, Any]:
    axes = []
    for dim in dims:
        axis = {"name": dim, "type": _TYPES.get(dim, "space")}
        if dim in spacing and dim in _UNITS:
            axis["unit"] = _UNITS[dim]
        axes.append(axis)
    datasets = []
    for number, factor in enumerate(factors):
        scale = [float(spacing.get(dim, 1.0)) * factor[dim] for dim in dims]
        # The centre of a coarser pixel lies between those that it was made of.
        shift = [
            0.0
            if about.is_label
            else float(spacing.get(dim, 1.0)) * (factor[dim] - 1) / 2
            for dim in dims
        ]
        moves: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(shift):
            moves.append({"type": "translation", "translation": shift})
        datasets.append({"path": _place(number), "coordinateTransformations": moves})
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": about.name or "image",
                "axes": axes,
                "datasets": datasets,
                "type": "nearest" if about.is_label else "mean",
            }
        ],
    }
    if about.channels and not about.is_label:
        ome["omero"] = {"channels": [_omero(one, array) for one in about.channels]}
    ours: dict[str, Any] = {
        "convention": about.convention,
        "value_unit": about.value_unit,
        "facts": dict(about.facts or {}),
        "channels": [asdict(one) for one in about.channels],
    }
    if about.affine is not None:
        ours["affine"] = np.asarray(about.affine, float).tolist()
    if about.acquisition is not None:
        ours["acquisition"] = asdict(about.acquisition)
    return {"ome": ome, "theatrum": json.loads(json.dumps(ours, default=str))}


def _omero(channel: Channel, array: xr.DataArray) -> dict[str, Any]:
    """A channel as OMERO tells of it; `min` and `max` bound what a slider reaches."""
    start, end = channel.window or (0.0, 1.0)
    low, high = min(start, end), max(start, end)
    if array.dtype.kind in "iu":
        bounds = np.iinfo(array.dtype)
        low, high = float(bounds.min), float(bounds.max)
    return {
        "label": channel.name,
        "color": channel.color.removeprefix("#").upper(),
        "active": True,
        "window": {"min": low, "max": high, "start": start, "end": end},
    }


def _spacing_of(array: xr.DataArray) -> dict[str, float]:
    """The steps of the coordinates that count in millimetres and seconds.

    Along dimensions without any, those of the affine.
    """
    spacing = {}
    for dim in array.dims:
        # Asked for by name, xarray makes up a coordinate where there is none.
        if dim not in array.coords or array.sizes[dim] < 2:
            continue
        along = array.coords[dim]
        if along.dtype.kind not in "fiu":
            continue
        if along.attrs.get("units") in ("mm", "s"):
            spacing[str(dim)] = abs(float(along[1]) - float(along[0]))
    affine = array.attrs.get("affine")
    if affine is not None:
        lengths = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
        for dim, length in zip("xyz", lengths, strict=True):
            if dim in array.dims and dim not in array.coords and length > 0:
                spacing[dim] = float(length)
    return spacing


def _checksums(root: Path) -> dict[str, str]:
    return {one.relative_to(root).as_posix(): file_digest(one) for one in _files(root)}


def _list_of(path: Path) -> Path:
    return path.with_name(path.name + CHECKSUMS)


def _write_list(path: Path, group: str, checksums: Mapping[str, str]) -> None:
    staging = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    with staging.open("x") as file:
        for name in sorted(checksums):
            file.write(f"{checksums[name]}  {group}/{name}\n")
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, read a megabyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_STEP):
            digest.update(block)
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    return (one for one in sorted(root.rglob("*")) if one.is_file())


def _sync(root: Path) -> None:
    """Have every file and folder on the disk before the name says that it is there."""
    for one in _files(root):
        with one.open("rb") as file:
            os.fsync(file.fileno())
    for folder in [root, *(one for one in root.rglob("*") if one.is_dir())]:
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
