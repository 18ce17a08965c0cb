"""The reader for NIfTI volumes: slices along the third axis are z, volumes are t.

A plane is one `pread`: NIfTI keeps x fastest, so a slice is contiguous. A compressed
file cannot be read from its middle, so it is unpacked once, into the folder of imports.

Planes: x and y are the file's first and second voxel index, y downwards; nothing is
turned, so a pixel's place is the voxel's index. How the axes lie in the body is in the
properties, in RAS (right, anterior, superior).
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers.chunks import LONGEST_CHUNK, ChunkCache, ChunkedPlanes
from tile_server.readers.imports import Imports
from tile_server.readers.planes import (
    BLACK,
    Channel,
    Numbers,
    Plane,
    PlaneFacts,
    PlaneReader,
    default_colour,
    rgb_channels,
)
from tile_server.readers.protocol import Level, SlideFacts

GZIP_START = b"\x1f\x8b"
# Unpacked; a larger one should be stored as OME-Zarr.
_MOST_BYTES = 4 * 2**30
_STEP = 2**20
_UM = {"meter": 1e6, "mm": 1e3, "micron": 1.0, "unknown": 1e3}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_HEADER_ERRORS = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.wrapstruct.WrapStructError,
    ValueError,
    TypeError,
    ArithmeticError,
    KeyError,
    OSError,
    EOFError,
)


@dataclass(frozen=True)
class _Volume:
    """What the header says: sizes (x, y, z, t, channel), type, place and scale."""

    sizes: tuple[int, int, int, int, int]
    stored: np.dtype[Any]
    offset: int
    slope: float
    intercept: float

    @property
    def is_rgb(self) -> bool:
        return self.stored.names is not None

    @property
    def number_type(self) -> np.dtype[Any]:
        if self.is_rgb:
            return np.dtype(np.uint8)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.stored.newbyteorder("=")
        return np.dtype(np.float32)

    @property
    def plane_bytes(self) -> int:
        return self.sizes[0] * self.sizes[1] * self.stored.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.plane_bytes * int(np.prod(self.sizes[2:]))


def is_nifti(start: bytes) -> bool:
    """True where a file that begins with `start`, compressed or not, is NIfTI."""
    if start.startswith(GZIP_START):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, 352)
        except zlib.error:
            return False
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (
        b"n+2\0",
        b"ni2\0",
    )


def open_nifti(
    path: Path, start: bytes, chunks: ChunkCache, imports: Imports
) -> PlaneReader:
    """The volume in `path`; raises UnreadableSlide with the reason."""
    plain = path
    if start.startswith(GZIP_START):
        plain = imports.copy(path, ".nii", lambda to: _unpack(path, to))
    try:
        header = _header(plain)
        volume = _volume(path.name, header)
        mpp_x, mpp_y, z_step_um, t_step_s = _steps(header)
        properties = _properties(header)
    except _HEADER_ERRORS as error:
        raise UnreadableSlide(f"{path.name} has a damaged NIfTI header.") from error
    fd = os.open(plain, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    if os.fstat(fd).st_size < volume.end:
        os.close(fd)
        raise UnreadableSlide(f"{path.name} is cut off. Copy it again.")
    owner = chunks.owner()

    def chunk(_: int, plane: Plane, _x: int, _y: int) -> Numbers | None:
        _, _, depths, times, _ = volume.sizes
        channel = 0 if volume.is_rgb else plane.channel
        number = (channel * times + plane.t) * depths + plane.z
        numbers = chunks.chunk(owner, number, lambda: _slice(fd, volume, number))
        if numbers is None or not volume.is_rgb:
            return numbers
        return numbers[:, :, plane.channel]

    def release() -> None:
        os.close(fd)
        chunks.forget(owner)

    width, height, depths, times, count = volume.sizes
    size = width, height
    channels = tuple(
        Channel(f"channel {number}" if count > 1 else "intensity", colour)
        for number in range(count)
        for colour in (default_colour(number, count),)
    )
    return ChunkedPlanes(
        path,
        (Level(*size, *size, encoded=False),),
        SlideFacts("NIfTI", mpp_x, mpp_y, None, BLACK, ()),
        PlaneFacts(
            rgb_channels() if volume.is_rgb else channels,
            depths,
            times,
            volume.number_type.name,
            z_step_um,
            t_step_s,
        ),
        chunk,
        release,
        properties,
    )


def _slice(fd: int, volume: _Volume, number: int) -> npt.NDArray[Any]:
    """One slice, (height, width) or, for RGB, (height, width, 3)."""
    length = volume.plane_bytes
    stored = os.pread(fd, length, volume.offset + number * length)
    if len(stored) != length:
        raise DamagedTile("This slice is cut off.")
    shape = volume.sizes[1], volume.sizes[0]
    if volume.is_rgb:
        samples = volume.stored.itemsize
        return np.frombuffer(stored, np.uint8).reshape(*shape, samples)[:, :, :3]
    numbers = np.frombuffer(stored, volume.stored).reshape(shape)
    if (volume.slope, volume.intercept) == (1.0, 0.0):
        return numbers.astype(volume.number_type)
    return (numbers * volume.slope + volume.intercept).astype(np.float32)


def _header(path: Path) -> Any:  # nibabel has no types
    with path.open("rb") as file:
        second = file.read(8)[4:8] in (b"n+2\0", b"ni2\0")
        file.seek(0)
        kind: Any = nibabel.Nifti2Header if second else nibabel.Nifti1Header
        return kind.from_fileobj(file)


def _volume(name: str, header: Any) -> _Volume:
    if bytes(header["magic"].tobytes())[:2] == b"ni":
        raise UnreadableSlide(
            f"{name} is one of two files (.hdr and .img): convert it into one .nii."
        )
    shape = tuple(int(one) for one in header.get_data_shape())
    if not 2 <= len(shape) <= 7 or min(shape) < 1 or any(one > 1 for one in shape[5:]):
        raise UnreadableSlide(f"{name} has the shape {shape}, which cannot be shown.")
    sizes = (*shape[:5], 1, 1, 1)
    stored = header.get_data_dtype()
    colours = stored.names is not None and all(
        stored[one] == np.uint8 for one in stored.names
    )
    if not (stored.kind in "uif" or colours) or stored.itemsize > 8:
        raise UnreadableSlide(f"{name} holds {stored.name}, which cannot be shown.")
    slope, intercept = header.get_slope_inter()
    offset = int(header.get_data_offset())
    volume = _Volume(
        (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]),
        stored,
        offset,
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
    )
    if volume.plane_bytes > LONGEST_CHUNK or offset < 0:
        raise UnreadableSlide(f"{name} has slices of {shape[:2]}, too large to show.")
    return volume


def _steps(
    header: Any,
) -> tuple[float | None, float | None, float | None, float | None]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError:  # a unit that the standard does not have
        return None, None, None, None
    zooms = [float(one) for one in header.get_zooms()]
    zooms += [0.0] * (4 - len(zooms))
    scales = [_UM.get(space, 1e3)] * 3 + [_SECONDS.get(time, 0.0)]
    x, y, z, t = (
        zoom * scale if 0 < zoom * scale < float("inf") else None
        for zoom, scale in zip(zooms[:4], scales, strict=True)
    )
    return x, y, z, t


def _properties(header: Any) -> Mapping[str, str]:
    affine = header.get_best_affine()
    rows = "; ".join(" ".join(f"{one:.9g}" for one in row) for row in affine[:3])
    try:
        codes: Any = nibabel.orientations.aff2axcodes
        axes = "".join(one or "?" for one in codes(affine))
    except (ValueError, np.linalg.LinAlgError):
        axes = "???"
    return {"nifti.Axes": axes, "nifti.AffineRasMm": rows}


def _unpack(path: Path, to: Path) -> None:
    """Write the unpacked `path`; its header says how long it may be."""
    try:
        with gzip.open(path) as packed, to.open("wb") as file:
            start = packed.read(1024)
            file.write(start)
            file.flush()
            end = _volume(path.name, _header(to)).end
            if end > _MOST_BYTES:
                raise UnreadableSlide(
                    f"{path.name} is {end} bytes when unpacked, more than can be "
                    "imported; store it uncompressed or as OME-Zarr."
                )
            left = end - len(start)
            while left > 0:
                block = packed.read(min(_STEP, left))
                if not block:
                    break
                file.write(block)
                left -= len(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableSlide(
            f"{path.name} is cut off or damaged within its compressed data. "
            "Copy it again."
        ) from error
    except _HEADER_ERRORS as error:
        if isinstance(error, OSError):
            raise
        raise UnreadableSlide(f"{path.name} has a damaged NIfTI header.") from error
