"""Zeiss' CZI: subblocks laid over a plane, one scene for each of the file's.

czifile finds the subblocks; their bytes are read and decoded here, since the newer ones
are compressed by Zstandard. Only subblocks that touch what is wanted are read. Where
two lie over each other the later one is seen, as the microscope's own program has it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError

import czifile
import imagecodecs
import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import File, Numbers, Ranges, Stored, labelled
from theatrum.catalog.formats.scene import Acquisition, Channel, Scene

CZI_START: Final = b"ZISRAWFILE"
_MOST_BLOCKS: Final = 4_000_000
_CHUNK: Final = 2048
_RAW, _JPEG, _JPEG_XR, _ZSTD, _ZSTD_1 = 0, 1, 4, 5, 6
_CZI_ERRORS: Final = (
    ValueError, KeyError, IndexError, TypeError, OSError, AttributeError,
    ArithmeticError, MemoryError, RuntimeError, AssertionError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One subblock at full resolution, in the scene's own pixels."""

    t: int
    c: int
    z: int
    y: int
    x: int
    height: int
    width: int
    offset: int
    length: int
    compression: int
    order: int


@dataclass(frozen=True)
class CziScene:
    """An opener of (t, c, z, y, x), or (t, z, y, x, c) of colour pictures."""

    file: File
    shape: tuple[int, ...]
    blocks: tuple[Block, ...] = field(repr=False)
    stored: str = "uint8"
    samples: int = 1
    scene: int = 0

    def open(self) -> _OpenCzi:
        return _OpenCzi(self)


class _OpenCzi:
    serial = False

    def __init__(self, opener: CziScene) -> None:
        self._opener = opener
        self._fd = os.open(
            opener.file.checked(), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
        )
        self._by_plane: dict[tuple[int, int, int], list[Block]] = {}
        for block in opener.blocks:
            self._by_plane.setdefault((block.t, block.c, block.z), []).append(block)
        for found in self._by_plane.values():
            found.sort(key=lambda one: one.order)

    def read(self, ranges: Ranges) -> Numbers:
        shape = [one.stop - one.start for one in ranges]
        room = np.zeros(shape, self._opener.stored)
        if self._opener.samples == 3:
            times, depths, rows, columns, samples = ranges
            for t in range(shape[0]):
                for z in range(shape[1]):
                    place = times.start + t, 0, depths.start + z
                    self._lay(place, rows, columns, room[t, z], samples)
            return room
        times, channels, depths, rows, columns = ranges
        for t, c, z in np.ndindex(*shape[:3]):
            place = times.start + t, channels.start + c, depths.start + z
            self._lay(place, rows, columns, room[t, c, z], slice(None))
        return room

    def close(self) -> None:
        os.close(self._fd)

    def _lay(
        self,
        place: tuple[int, int, int],
        rows: slice,
        columns: slice,
        canvas: Numbers,
        samples: slice,
    ) -> None:
        for one in self._by_plane.get(place, ()):
            top, bottom = max(one.y, rows.start), min(one.y + one.height, rows.stop)
            left = max(one.x, columns.start)
            right = min(one.x + one.width, columns.stop)
            if top >= bottom or left >= right:
                continue
            pixels = self._pixels(one)
            part = pixels[top - one.y : bottom - one.y, left - one.x : right - one.x]
            if self._opener.samples == 3:
                part = part[..., samples]
            canvas[
                top - rows.start : bottom - rows.start,
                left - columns.start : right - columns.start,
            ] = part

    def _pixels(self, block: Block) -> Numbers:
        name = self._opener.file.path.name
        content = os.pread(self._fd, block.length, block.offset)
        if len(content) != block.length:
            raise Damaged(f"{name} is cut off. Copy it again.")
        dtype = np.dtype(self._opener.stored)
        shape: tuple[int, ...] = (block.height, block.width)
        if self._opener.samples == 3:
            shape = (*shape, 3)
        size = int(np.prod(shape)) * dtype.itemsize
        try:
            pixels = _decoded(content, block.compression, dtype, size).reshape(shape)
        except _CZI_ERRORS as error:
            raise Damaged(f"{name} has a tile that cannot be decoded.") from error
        if self._opener.samples == 3 and block.compression != _JPEG:
            return pixels[..., ::-1]  # stored as blue, green, red
        return pixels


def _decoded(
    content: bytes, compression: int, dtype: np.dtype[Any], size: int
) -> Numbers:
    if compression == _RAW:
        return np.frombuffer(content[:size], dtype)
    if compression == _JPEG:
        return np.asarray(imagecodecs.jpeg_decode(content))
    if compression == _JPEG_XR:
        return np.asarray(imagecodecs.jpegxr_decode(content)).astype(dtype, copy=False)
    if compression not in (_ZSTD, _ZSTD_1):
        raise ValueError(f"compression {compression}")
    packed = False
    if compression == _ZSTD_1:
        # A header of one byte, or of three, the last of which tells whether the low
        # and the high bytes of the numbers lie apart.
        length = content[0]
        packed = length == 3 and bool(content[2] & 1)
        content = content[length:]
    plain = imagecodecs.zstd_decode(content, out=size)
    if packed:
        half = len(plain) // 2
        low = np.frombuffer(plain[:half], np.uint8)
        high = np.frombuffer(plain[half:], np.uint8)
        return np.stack([low, high], axis=-1).reshape(-1).view("<u2")
    return np.frombuffer(plain, dtype)


def open_czi(path: Path) -> list[Scene]:
    """The scenes of a CZI file; raises FormatError."""
    file = File.of(path)
    try:
        with czifile.CziFile(str(path)) as czi:
            entries = list(czi.filtered_subblock_directory)
            if not 0 < len(entries) <= _MOST_BLOCKS:
                raise Damaged(f"{path.name} says that it has {len(entries)} parts.")
            facts = _facts(czi.metadata(raw=True), path.name)
            groups: dict[int, list[tuple[int, Any]]] = {}
            for order, entry in enumerate(entries):
                if tuple(entry.shape) != tuple(entry.stored_shape):
                    continue  # a coarser level
                starts = _starts(entry)
                groups.setdefault(starts.get("S", 0), []).append((order, entry))
            return [
                _scene(file, number, members, facts)
                for number, (_, members) in enumerate(sorted(groups.items()))
            ]
    except _CZI_ERRORS as error:
        raise Damaged(f"{path.name} is a damaged CZI file.") from error


def _starts(entry: Any) -> dict[str, int]:
    return {str(one.dimension): int(one.start) for one in entry.dimension_entries}


def _scene(
    file: File, number: int, members: Sequence[tuple[int, Any]], facts: _Facts
) -> Scene:
    first = members[0][1]
    dtype = np.dtype(first.dtype)
    samples = int(first.shape[-1])
    if samples not in (1, 3):
        raise Damaged(f"{file.path.name} has {samples} samples a pixel.")
    base = np.dtype(dtype.base if dtype.subdtype else dtype).newbyteorder("<")
    places = [_starts(entry) for _, entry in members]
    low = {
        dim: min(one.get(dim, 0) for one in places) for dim in ("T", "C", "Z", "Y", "X")
    }
    blocks = []
    for (order, entry), at in zip(members, places, strict=True):
        sizes = dict(zip(str(entry.axes), entry.shape, strict=True))
        segment = entry.data_segment()
        blocks.append(
            Block(
                **{dim.lower(): at.get(dim, 0) - low[dim] for dim in "TCZYX"},
                height=int(sizes["Y"]),
                width=int(sizes["X"]),
                offset=int(segment.data_offset),
                length=int(segment.data_size),
                compression=int(entry.compression),
                order=at.get("M", order),
            )
        )
    times = max(one.t for one in blocks) + 1
    count = max(one.c for one in blocks) + 1
    depths = max(one.z for one in blocks) + 1
    height = max(one.y + one.height for one in blocks)
    width = max(one.x + one.width for one in blocks)
    colour = samples == 3
    if colour and count > 1:
        raise Damaged(f"{file.path.name} has several channels of colour pictures.")
    inner = (height, width)
    shape = (times, depths, *inner, 3) if colour else (times, count, depths, *inner)
    dims = ("t", "z", "y", "x", "c") if colour else ("t", "c", "z", "y", "x")
    channels = (
        tuple(Channel(name) for name in ("red", "green", "blue"))
        if colour
        else facts.channels
        if len(facts.channels) == count
        else tuple(Channel(f"channel {one}") for one in range(count))
    )
    edges = min(height, _CHUNK), min(width, _CHUNK)
    opener = CziScene(file, shape, tuple(blocks), base.str, samples, number)
    array = labelled(
        Stored(opener, shape, base.newbyteorder("=")),
        dims,
        facts.spacing,
        chunks=(1, 1, *edges, 3) if colour else (1, 1, 1, *edges),
        channels=[one.name for one in channels],
    )
    for dim in "tcz":
        if array.sizes[dim] == 1:
            array = array.isel({dim: 0}, drop=True)
    return Scene(
        format="CZI",
        files=(file.path,),
        levels=(array,),
        index=number,
        name=f"scene {number + 1}" if number else "",
        spacing={d: step for d, step in facts.spacing.items() if d in array.sizes},
        channels=channels,
        acquisition=Acquisition(
            modality="SM" if colour else "FM",
            acquired_at=facts.acquired_at,
            device={"maker": "Zeiss"},
            protocol=facts.protocol,
        ),
    )


@dataclass(frozen=True)
class _Facts:
    spacing: Mapping[str, float]
    channels: tuple[Channel, ...]
    acquired_at: str
    protocol: Mapping[str, Any]


def _facts(text: str | None, name: str) -> _Facts:
    """What the file's XML says; of who made it nothing is read."""
    try:
        root = fromstring(text or "<none/>", forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise Damaged(f"{name} holds metadata that cannot be read.") from error
    spacing = {}
    for one in root.iter("Distance"):
        value = _number(one.findtext("Value"))
        if value and value > 0 and one.get("Id", "") in ("X", "Y", "Z"):
            spacing[one.get("Id", "").lower()] = value * 1e3  # metres
    channels = []
    for number, one in enumerate(root.findall(".//Dimensions/Channels/Channel")):
        colour = one.findtext("Color") or ""
        channels.append(
            Channel(
                (one.get("Name") or f"channel {number}")[:128],
                f"#{colour[-6:].lower()}" if len(colour) in (7, 9) else "",
                excitation_nm=_number(one.findtext("ExcitationWavelength")),
                emission_nm=_number(one.findtext("EmissionWavelength")),
                exposure_ms=_exposure(one),
                fluor=(one.findtext("Fluor") or "")[:64],
            )
        )
    protocol = {
        ours: value
        for ours, tag in (
            ("objective", "NominalMagnification"),
            ("numerical_aperture", "LensNA"),
        )
        if (value := _number(root.findtext(f".//Objective/{tag}"))) is not None
    }
    moment = root.findtext(".//Image/AcquisitionDateAndTime") or ""
    return _Facts(spacing, tuple(channels), moment[:19], protocol)


def _exposure(channel: Element) -> float | None:
    value = _number(channel.findtext("ExposureTime"))
    return None if value is None else value / 1e6  # nanoseconds


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
