"""The reader for OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), a folder or one .zip file.

The metadata are read and judged before zarr sees them: an array may only use codecs
that turn bytes into numbers (one of numcodecs' unpickles, which runs code), and only
paths below the group. A chunk is decoded whole and kept, since one often holds several
planes.

Planes: `t_` chunks of a level, across and down.
"""

from __future__ import annotations

import json
import logging
import posixpath
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.storage

from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.pixels import Colour
from tile_server.readers.chunks import LONGEST_CHUNK, ChunkCache, ChunkedPlanes
from tile_server.readers.planes import (
    BLACK,
    Channel,
    Numbers,
    Plane,
    PlaneFacts,
    PlaneReader,
    Window,
    default_colour,
)
from tile_server.readers.protocol import Level, SlideFacts

log = logging.getLogger(__name__)

ZIP_START = b"PK\x03\x04"
_MOST_METADATA = 16 * 2**20
_MOST_LEVELS = 32
_CODECS = frozenset(
    {
        *("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "crc32", "crc32c"),
        *("bytes", "transpose", "sharding_indexed", "delta", "shuffle", "bitround"),
        *("fixedscaleoffset", "numcodecs.zlib", "numcodecs.lz4", "numcodecs.bz2"),
        *("numcodecs.lzma", "numcodecs.delta", "numcodecs.shuffle"),
        *("numcodecs.fixedscaleoffset", "default"),
    }
)
_UM = {
    "meter": 1e6,
    "centimeter": 1e4,
    "millimeter": 1e3,
    "micrometer": 1.0,
    "nanometer": 1e-3,
    "angstrom": 1e-4,
}
_SECONDS = {"second": 1.0, "millisecond": 1e-3, "minute": 60.0, "hour": 3600.0}
# What zarr and its codecs raise for arrays that are not as their metadata say.
_ZARR_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    OSError,
    zipfile.BadZipFile,
)
_Fetch = Callable[[str], bytes | None]


@dataclass(frozen=True)
class _Array:
    """One level's array: chunks (shape of a decoded one) by axis."""

    array: Any  # zarr ships types for its own use only
    shape: tuple[int, ...]
    chunks: tuple[int, ...]


def is_zarr(path: Path) -> bool:
    """True for a folder that is a Zarr group."""
    return (path / "zarr.json").is_file() or (path / ".zgroup").is_file()


def open_zarr_folder(path: Path, chunks: ChunkCache) -> PlaneReader:
    """The image of a Zarr group; raises UnreadableSlide with the reason."""
    store = zarr.storage.LocalStore(path, read_only=True)

    def fetch(name: str) -> bytes | None:
        file = path / name
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            return stream.read(_MOST_METADATA)

    return _open(path, (store, ""), fetch, chunks)


def open_zarr_zip(path: Path, chunks: ChunkCache) -> PlaneReader | None:
    """The image of a zipped Zarr group, or None where the archive holds none.

    Raises UnreadableSlide with the reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            groups = [
                name for name in names if posixpath.basename(name) in _GROUP_FILES
            ]
            if not groups:
                return None
            top = min(groups, key=lambda name: (name.count("/"), name))
            root = posixpath.dirname(top)
            small = {
                name: archive.read(name)
                for name in names
                if posixpath.basename(name) in _METADATA_FILES
                and archive.getinfo(name).file_size <= _MOST_METADATA
                and name.count("/") - root.count("/") <= _DEEPEST
            }
        store = zarr.storage.ZipStore(path, mode="r", read_only=True)
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError) as error:
        raise UnreadableSlide(
            f"{path.name} is a damaged zip archive. Copy it again."
        ) from error
    return _open(
        path,
        (store, root),
        lambda name: small.get(posixpath.join(root, name)),
        chunks,
    )


_GROUP_FILES = ("zarr.json", ".zgroup")
_METADATA_FILES = (*_GROUP_FILES, ".zattrs", ".zarray")
_DEEPEST = 4


def _open(
    path: Path, place: tuple[Any, str], fetch: _Fetch, cache: ChunkCache
) -> PlaneReader:
    store, root = place
    try:
        attributes, version = _attributes(path.name, fetch)
        image = _first_image(path.name, attributes)
        axes = _axes(path.name, image)
        levels = []
        for dataset in image["datasets"][:_MOST_LEVELS]:
            name = str(dataset["path"])
            _judge_array(path.name, name, fetch)
            array: Any = zarr.open_array(
                store, path=posixpath.join(root, name), mode="r"
            )
            levels.append(_level(path.name, array, axes))
        return _reader(path, store, (axes, levels, image, attributes, version), cache)
    except _ZARR_ERRORS as error:
        _close(store)
        raise UnreadableSlide(
            f"{path.name} is an OME-Zarr image with damaged metadata "
            f"({type(error).__name__})."
        ) from error
    except BaseException:
        _close(store)
        raise


def _close(store: Any) -> None:
    """Close a store that may never have been opened, which its `close` cannot take."""
    with suppress(AttributeError):
        store.close()


def _reader(
    path: Path,
    store: Any,
    parts: tuple[str, list[_Array], Mapping[str, Any], Mapping[str, Any], str],
    cache: ChunkCache,
) -> PlaneReader:
    axes, levels, image, attributes, version = parts
    full = levels[0]
    sizes = dict(zip(axes, full.shape, strict=True))
    for one in levels:
        for axis, size, wanted in zip(axes, one.shape, full.shape, strict=True):
            if axis in "tc" and size != wanted:
                raise UnreadableSlide(f"{path.name} has levels of different planes.")
    dtype = np.dtype(full.array.dtype)
    if dtype.kind not in "uifb" or any(one.array.dtype != dtype for one in levels):
        raise UnreadableSlide(f"{path.name} holds {dtype}, which cannot be shown.")
    number_type = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    owner = cache.owner()
    depths = sizes.get("z", 1)

    def chunk(number: int, plane: Plane, t_x: int, t_y: int) -> Numbers | None:
        level = levels[number]
        # A level may have fewer depths than the first; the nearest one stands in.
        stored_z = plane.z * dict(zip(axes, level.shape, strict=True)).get("z", 1)
        at = {"t": plane.t, "c": plane.channel, "z": stored_z // depths}
        at |= {"x": t_x * level.chunks[-1], "y": t_y * level.chunks[-2]}
        address = tuple(
            at[axis] // size for axis, size in zip(axes, level.chunks, strict=True)
        )
        block = cache.chunk(
            owner, (number, address), lambda: _block(level, address, number_type)
        )
        if block is None:
            return None
        inside = tuple(
            at[axis] % size
            for axis, size in zip(axes[:-2], level.chunks[:-2], strict=True)
        )
        plane_block: Numbers = block[inside]
        return plane_block

    def release() -> None:
        _close(store)
        cache.forget(owner)

    mpp_x, mpp_y, z_step_um, t_step_s = _steps(image, axes)
    return ChunkedPlanes(
        path,
        tuple(
            Level(
                one.shape[-1], one.shape[-2], one.chunks[-1], one.chunks[-2],
                encoded=False,
            )
            for one in levels
        ),
        SlideFacts(f"OME-Zarr {version}", mpp_x, mpp_y, None, BLACK, ()),
        PlaneFacts(
            _channels(attributes, sizes.get("c", 1)),
            depths,
            sizes.get("t", 1),
            number_type.name,
            z_step_um,
            t_step_s,
        ),
        chunk,
        release,
    )  # fmt: skip


def _block(
    level: _Array, address: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray[Any, np.dtype[Any]]:
    """One decoded chunk, with all its axes; short at the array's ends."""
    where = tuple(
        slice(one * size, (one + 1) * size)
        for one, size in zip(address, level.chunks, strict=True)
    )
    try:
        block = np.asarray(level.array[where])
    except _ZARR_ERRORS as error:
        raise DamagedTile("This chunk of the image cannot be decoded.") from error
    return np.ascontiguousarray(block, dtype)


def _attributes(name: str, fetch: _Fetch) -> tuple[Mapping[str, Any], str]:
    """The group's OME attributes, and the version of OME-Zarr."""
    for file in ("zarr.json", ".zattrs"):
        text = fetch(file)
        if text is None:
            continue
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnreadableSlide(f"{name} has damaged metadata ({file}).") from error
        if file == "zarr.json":
            ome = parsed.get("attributes", {}).get("ome", {})
            return ome, str(ome.get("version", "0.5"))[:8]
        images = parsed.get("multiscales") or [{}]
        return parsed, str(images[0].get("version", "0.4"))[:8]
    raise UnreadableSlide(f"{name} is a Zarr group without OME metadata.")


def _first_image(name: str, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    images = attributes.get("multiscales")
    if isinstance(images, list) and images and images[0].get("datasets"):
        first: Mapping[str, Any] = images[0]
        return first
    if "plate" in attributes or "well" in attributes:
        raise UnreadableSlide(f"{name} is a plate: name one of its images instead.")
    if "bioformats2raw.layout" in attributes:
        raise UnreadableSlide(f"{name} holds several images: name one, such as 0.")
    raise UnreadableSlide(f"{name} is a Zarr group without an OME image.")


def _axes(name: str, image: Mapping[str, Any]) -> str:
    """The axes' letters, in order; 0.4 and 0.5 ask for t, c, z, y, x, some left out."""
    axes = "".join(
        str(axis["name"] if isinstance(axis, dict) else axis)
        for axis in image.get("axes", ())
    )
    if axes not in {
        "yx", "cyx", "zyx", "tyx", "czyx", "tcyx", "tzyx", "tczyx",
    }:  # fmt: skip
        raise UnreadableSlide(
            f"{name} has axes {axes[:16]!r}; only t, c, z, y, x in this order can be "
            "shown."
        )
    return axes


def _judge_array(name: str, array: str, fetch: _Fetch) -> None:
    """Refuse an array whose metadata name anything but plain codecs and places."""
    if array != posixpath.normpath(array) or array.startswith(("/", "..")):
        raise UnreadableSlide(f"{name} has a level outside of its group.")
    text = fetch(posixpath.join(array, "zarr.json"))
    text = text or fetch(posixpath.join(array, ".zarray"))
    if text is None:
        raise UnreadableSlide(f"{name} lacks the level {array[:32]}.")
    metadata = json.loads(text)
    named = [metadata.get("compressor"), *(metadata.get("filters") or ())]
    for codec in [*named, *_codecs(metadata)]:
        kind = None if codec is None else str(codec.get("id", codec.get("name")))
        if kind is not None and kind not in _CODECS:
            raise UnreadableSlide(f"{name} uses the codec {kind[:32]}, not read here.")


def _codecs(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Zarr 3's codecs, with those inside shards."""
    found = []
    for codec in metadata.get("codecs") or ():
        found.append(codec)
        inner = codec.get("configuration") or {}
        found += _codecs(inner)
        found += _codecs({"codecs": inner.get("index_codecs")})
    return found


def _level(name: str, array: Any, axes: str) -> _Array:
    shape = tuple(int(one) for one in array.shape)
    chunks = tuple(
        max(1, min(int(one), size))
        for one, size in zip(array.chunks, shape, strict=True)
    )
    if len(shape) != len(axes) or min(shape) < 1:
        raise UnreadableSlide(f"{name} has an array of shape {shape}.")
    length = array.dtype.itemsize
    for one in array.chunks:
        length *= int(one)
    if length > LONGEST_CHUNK:
        raise UnreadableSlide(
            f"{name} has chunks of {length} bytes; store it in smaller ones."
        )
    return _Array(array, shape, chunks)


def _channels(attributes: Mapping[str, Any], count: int) -> tuple[Channel, ...]:
    told = (attributes.get("omero") or {}).get("channels") or []
    channels = []
    for number in range(count):
        fields = told[number] if number < len(told) else {}
        channels.append(
            Channel(
                str(fields.get("label") or f"channel {number}")[:200],
                _colour(fields.get("color")) or default_colour(number, count),
                _window(fields.get("window")),
            )
        )
    return tuple(channels)


def _colour(value: Any) -> Colour | None:
    try:
        red, green, blue = bytes.fromhex(str(value).removeprefix("#")[:6])
    except ValueError:
        return None
    return red, green, blue


def _window(value: Any) -> Window | None:
    """Start and end of OMERO's window, which are what is shown."""
    if not isinstance(value, dict):
        return None
    try:
        low, high = float(value["start"]), float(value["end"])
    except (KeyError, TypeError, ValueError):
        return None
    return (low, high) if abs(low) < 1e38 and abs(high) < 1e38 and low != high else None


def _steps(
    image: Mapping[str, Any], axes: str
) -> tuple[float | None, float | None, float | None, float | None]:
    """Micrometres by x, y and z, seconds by t; from the first level's scale."""
    scale = [1.0] * len(axes)
    steps: list[Any] = [
        *(image["datasets"][0].get("coordinateTransformations") or ()),
        *(image.get("coordinateTransformations") or ()),
    ]
    for step in steps:
        factors = step.get("scale")
        if step.get("type") == "scale" and len(factors) == len(axes):
            scale = [one * float(two) for one, two in zip(scale, factors, strict=True)]
    found: dict[str, float | None] = {}
    for axis, described, size in zip(axes, image["axes"], scale, strict=True):
        unit = described.get("unit") if isinstance(described, dict) else None
        factor = (_SECONDS if axis == "t" else _UM).get(str(unit), 0.0)
        found[axis] = size * factor if 0 < size * factor < float("inf") else None
    return found.get("x"), found.get("y"), found.get("z"), found.get("t")
