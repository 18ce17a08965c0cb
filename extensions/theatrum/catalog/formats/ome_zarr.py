"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), a folder or one .zip file, 0.1 to 0.3 too.

The metadata are judged by the tile service's reader before zarr sees the arrays: it
refuses codecs that run code and paths that lead out of the group. Lengths become
millimetres. Where the group was written by `zarr_store` its attributes carry affine,
convention and facts that OME-Zarr has no place for until its version 0.6.
"""

from __future__ import annotations

import json
import math
import posixpath
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
import zarr.storage

from theatrum.catalog.formats.errors import Damaged, NotAnImage
from theatrum.catalog.formats.geometry import is_usable, orientation
from theatrum.catalog.formats.lazy import (
    File,
    Numbers,
    Ranges,
    Stored,
    labelled,
)
from theatrum.catalog.formats.scene import (
    DIMS,
    Acquisition,
    Affine,
    Channel,
    Convention,
    Scene,
)
from tile_server.errors import UnreadableSlide
from tile_server.readers.chunks import ChunkCache
from tile_server.readers.ome_zarr import is_zarr, open_zarr_folder, open_zarr_zip

__all__ = ["is_zarr", "open_ome_zarr"]

OURS: Final = "theatrum"
"""The key of our own attributes, beside `ome`."""
_MM: Final = {
    "meter": 1e3,
    "decimeter": 1e2,
    "centimeter": 10.0,
    "millimeter": 1.0,
    "micrometer": 1e-3,
    "nanometer": 1e-6,
    "picometer": 1e-9,
    "angstrom": 1e-7,
}
_SECONDS: Final = {
    "second": 1.0,
    "millisecond": 1e-3,
    "microsecond": 1e-6,
    "minute": 60.0,
    "hour": 3600.0,
}
_MOST_METADATA: Final = 16 * 2**20
MOST_CHUNKS: Final = 50_000_000
"""Of one level: more than any file system holds as files of one image."""
# What zarr and its codecs raise for arrays that are not as their metadata say.
ZARR_ERRORS: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError,
    MemoryError, RuntimeError, OSError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class ZarrArray:
    """An opener of one array of a group; `file` is its metadata file, or the zip."""

    root: Path
    file: File
    array: str

    def open(self) -> _OpenZarr:
        self.file.checked()
        return _OpenZarr(self)


class _OpenZarr:
    serial = False

    def __init__(self, opener: ZarrArray) -> None:
        self._name = opener.root.name
        try:
            self._store = _store(opener.root)
            self._array: Any = zarr.open_array(self._store, path=opener.array, mode="r")
        except ZARR_ERRORS as error:
            raise Damaged(f"{self._name} is a damaged OME-Zarr image.") from error

    def read(self, ranges: Ranges) -> Numbers:
        try:
            return np.asarray(self._array[ranges])
        except ZARR_ERRORS as error:
            raise Damaged(f"{self._name} has chunks that cannot be decoded.") from error

    def close(self) -> None:
        self._store.close()


def _store(root: Path) -> Any:
    if root.is_dir():
        return zarr.storage.LocalStore(root, read_only=True)
    return zarr.storage.ZipStore(root, mode="r", read_only=True)


def holds_zarr(path: Path) -> bool:
    """Whether a .zip file holds a Zarr group."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                posixpath.basename(name) in ("zarr.json", ".zgroup")
                for name in archive.namelist()
            )
    except (zipfile.BadZipFile, OSError, RuntimeError):
        return False


def open_ome_zarr(path: Path) -> list[Scene]:
    """The image of a group, its first multiscale; raises FormatError."""
    try:
        # It judges codecs and paths, and closes again.
        if path.is_dir():
            open_zarr_folder(path, ChunkCache()).close()
        else:
            reader = open_zarr_zip(path, ChunkCache())
            if reader is None:
                raise NotAnImage(f"{path.name} is a zip archive without a Zarr group.")
            reader.close()
    except UnreadableSlide as error:
        raise Damaged(str(error)) from error
    prefix, attributes, version = _attributes(path)
    try:
        images = attributes["multiscales"]
        ours = attributes.get(OURS) or {}
        return [_scene(path, prefix, images[0], attributes, ours, version)]
    except ZARR_ERRORS as error:
        raise Damaged(
            f"{path.name} is an OME-Zarr image with damaged metadata."
        ) from error


def _attributes(path: Path) -> tuple[str, Mapping[str, Any], str]:
    """The place of the group in a zip, its OME attributes, and their version."""
    try:
        if path.is_dir():
            return "", *_of_files(lambda name: _content(path / name))
        with zipfile.ZipFile(path) as archive:
            names = [
                name
                for name in archive.namelist()
                if posixpath.basename(name) in ("zarr.json", ".zgroup")
            ]
            top = posixpath.dirname(min(names, key=lambda one: (one.count("/"), one)))
            known = set(archive.namelist())

            def fetch(name: str) -> bytes | None:
                member = posixpath.join(top, name)
                if member not in known:
                    return None
                with archive.open(member) as file:
                    return file.read(_MOST_METADATA)

            return top, *_of_files(fetch)
    except ZARR_ERRORS as error:
        raise Damaged(f"{path.name} has metadata that cannot be read.") from error


def _content(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_MOST_METADATA)


def _of_files(fetch: Any) -> tuple[Mapping[str, Any], str]:
    content = fetch("zarr.json")
    if content is not None:
        told = json.loads(content).get("attributes", {})
        ome = dict(told.get("ome", {}))
        return ome | {OURS: told.get(OURS)}, str(ome.get("version", "0.5"))
    content = fetch(".zattrs")
    told = json.loads(content) if content is not None else {}
    return told, str(told["multiscales"][0].get("version", "0.1"))


def _scene(
    path: Path,
    prefix: str,
    image: Mapping[str, Any],
    attributes: Mapping[str, Any],
    ours: Mapping[str, Any],
    version: str,
) -> Scene:
    store = _store(path)
    try:
        axes = _axes(image)
        units = {one["name"]: str(one.get("unit", "")) for one in axes}
        dims = tuple(str(one["name"]) for one in axes)
        if any(dim not in DIMS for dim in dims):
            raise Damaged(f"{path.name} has the axes {dims}, which are not taken in.")
        shared = _scale(image.get("coordinateTransformations"), dims)
        channels = _channels(attributes, ours)
        names = [one.name for one in channels]
        levels, spacing = [], {}
        first: dict[str, float] = {}
        for number, dataset in enumerate(image["datasets"]):
            array_path = posixpath.join(prefix, str(dataset["path"]))
            array: Any = zarr.open_array(store, path=array_path, mode="r")
            scale = _scale(dataset.get("coordinateTransformations"), dims)
            steps = {
                dim: scale[dim] * shared[dim] * factor
                for dim in dims
                if (factor := _factor(dim, units[dim])) is not None
            }
            moved = _translation(dataset.get("coordinateTransformations"), dims)
            first = first or moved
            offset = {
                dim: (moved[dim] - first[dim]) * shared[dim] * factor
                for dim in dims
                if (factor := _factor(dim, units[dim])) is not None
            }
            opener = ZarrArray(path, File.of(_metadata_file(path, dataset)), array_path)
            chunks = getattr(array, "shards", None) or array.chunks
            count = math.prod(
                -(-size // one) for size, one in zip(array.shape, chunks, strict=True)
            )
            if count > MOST_CHUNKS:
                raise Damaged(
                    f"{path.name} lies in {count} chunks; store it in larger ones."
                )
            levels.append(
                labelled(
                    Stored(opener, array.shape, _plain(array.dtype)),
                    dims,
                    steps,
                    chunks=_grown(chunks, array.shape, array.dtype.itemsize),
                    channels=names,
                    offset=offset,
                )
            )
            if number == 0:
                spacing = steps
        affine, convention = _affine(ours)
        count = levels[0].sizes.get("c", 1)
        return Scene(
            format=f"OME-Zarr {version}",
            files=(path,),
            levels=tuple(levels),
            name=str(image.get("name", ""))[:128],
            spacing=spacing,
            affine=affine,
            convention=convention,
            orientation=orientation(affine, convention),
            channels=channels if len(channels) == count else (),
            acquisition=Acquisition(
                **ours.get("acquisition", {"modality": "FM" if channels else "OT"})
            ),
            value_unit=str(ours.get("value_unit", ""))[:16],
            facts={"zarr_version": version, **ours.get("facts", {})},
        )
    finally:
        store.close()


def _axes(image: Mapping[str, Any]) -> list[dict[str, Any]]:
    axes = image.get("axes")
    if axes is None:  # versions 0.1 and 0.2 have these five, always
        axes = list("tczyx")
    return [{"name": one} if isinstance(one, str) else dict(one) for one in axes]


def _scale(told: Any, dims: tuple[str, ...]) -> dict[str, float]:
    for one in told or ():
        if one.get("type") == "scale":
            return dict(zip(dims, map(float, one["scale"]), strict=True))
    return dict.fromkeys(dims, 1.0)


def _translation(told: Any, dims: tuple[str, ...]) -> dict[str, float]:
    """Where the first pixel's centre lies, after the scale; 0 where nothing says so."""
    for one in told or ():
        if one.get("type") == "translation":
            return dict(zip(dims, map(float, one["translation"]), strict=True))
    return dict.fromkeys(dims, 0.0)


def _factor(dim: str, unit: str) -> float | None:
    """What turns the unit into millimetres or seconds; None where it has none."""
    if dim == "c":
        return None
    return (_SECONDS if dim == "t" else _MM).get(unit)


def _metadata_file(path: Path, dataset: Mapping[str, Any]) -> Path:
    if not path.is_dir():
        return path
    folder = path / str(dataset["path"])
    version_3 = folder / "zarr.json"
    return version_3 if version_3.is_file() else folder / ".zarray"


def _plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("=")


def _grown(
    chunks: tuple[int, ...], shape: tuple[int, ...], itemsize: int
) -> tuple[int, ...]:
    """Chunks of dask that hold whole chunks of the file, and are worth a task."""
    grown = [min(one, size) for one, size in zip(chunks, shape, strict=True)]
    for axis in (-1, -2):
        while int(np.prod(grown)) * itemsize < 2**20 and grown[axis] < shape[axis]:
            # A multiple of the file's chunk, or the whole axis.
            grown[axis] = min(grown[axis] * 2, shape[axis])
    return tuple(grown)


def _channels(
    attributes: Mapping[str, Any], ours: Mapping[str, Any]
) -> tuple[Channel, ...]:
    if ours.get("channels"):
        return tuple(
            Channel(
                **{**one, "window": tuple(one["window"]) if one["window"] else None}
            )
            for one in ours["channels"]
        )
    found = []
    for number, one in enumerate((attributes.get("omero") or {}).get("channels", ())):
        window = one.get("window") or {}
        bounds = None
        if "start" in window and "end" in window:
            bounds = float(window["start"]), float(window["end"])
        colour = str(one.get("color", ""))
        found.append(
            Channel(
                str(one.get("label", f"channel {number}"))[:128],
                f"#{colour.lower()}" if len(colour) == 6 else "",
                bounds,
            )
        )
    return tuple(found)


def _affine(ours: Mapping[str, Any]) -> tuple[Affine | None, Convention]:
    told = ours.get("affine")
    if told is None:
        return None, ""
    affine = np.asarray(told, float)
    convention: Convention = "LPS" if ours.get("convention") == "LPS" else "RAS"
    return (affine, convention) if is_usable(affine) else (None, "")
