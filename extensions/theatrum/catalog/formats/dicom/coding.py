"""Frames of a DICOM file as numbers: where each lies, and how it is decoded.

Native frames are read by their rows. Compressed ones are decoded by the tile service's
codecs, none of which decodes a picture that is larger than the header says. Numbers are
those that are stored; the rescaling is `frames`'.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from theatrum.catalog.formats.dicom.headers import DAMAGED, Header
from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import Numbers
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers.dicom_files import CODECS, Instance
from tile_server.readers.dicom_frames import FrameIndex, find_frames, unpack
from tile_server.readers.dicom_pixels import decode, rgb_of_ycbcr

IMPLICIT: Final = "1.2.840.10008.1.2"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_NATIVE: Final = frozenset({IMPLICIT, "1.2.840.10008.1.2.1", BIG_ENDIAN, DEFLATED})
_LOSSLESS_JPEG: Final = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_EXTENDED_JPEG: Final = "1.2.840.10008.1.2.4.51"
_BASELINE_JPEG: Final = "1.2.840.10008.1.2.4.50"
_LONGEST_FRAME: Final = 1 << 30


@dataclass(frozen=True)
class Coding:
    """How the frames of a file are written.

    Attributes
    ----------
    rows, columns
        Of a frame.
    samples
        1, or 3 of a colour picture.
    bits, stored
        Of a number: as written, and as meant; the others may hold anything.
    """

    syntax: str
    rows: int
    columns: int
    samples: int
    bits: int
    stored: int
    signed: bool
    photometric: str
    planar: bool

    @property
    def native(self) -> bool:
        return self.syntax in _NATIVE

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of stored numbers, in this machine's byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits // 8}")

    @property
    def written(self) -> np.dtype[Any]:
        """Of native numbers, as they lie in the file."""
        order = ">" if self.syntax == BIG_ENDIAN else "<"
        return np.dtype(f"{order}{self.dtype.kind}{self.bits // 8}")

    @property
    def frame_bytes(self) -> int:
        """Of a native frame."""
        return self.rows * self.columns * self.samples * self.bits // 8

    @cached_property
    def instance(self) -> Instance:
        """The same for the tile service's codecs."""
        syntax = _BASELINE_JPEG if self.syntax == _EXTENDED_JPEG else self.syntax
        none = np.zeros(0, np.uint64)
        return Instance(
            path=None,  # type: ignore[arg-type]  # no codec looks at it
            uid="",
            series="",
            kind="",
            syntax=syntax,
            width=self.columns,
            height=self.rows,
            tile_width=self.columns,
            tile_height=self.rows,
            samples=self.samples,
            bits=self.bits,
            bits_stored=self.stored,
            # MONOCHROME1 is a way to show numbers; the numbers stay.
            photometric=self.photometric if self.samples == 3 else "MONOCHROME2",
            planar=self.planar,
            focal_planes=1,
            optical_paths=(),
            spacing_mm=None,
            frames=1,
            frame_offset=0,
            places=None,
            depths_um=(0.0,),
            depth_step_um=None,
            index=FrameIndex(none, none, encapsulated=False),
        )


def coding_of(header: Header) -> Coding:
    """How a file's frames are written; raises Damaged for what is not read."""
    name = header.path.name
    rows, columns = header.whole("Rows"), header.whole("Columns")
    samples = header.whole("SamplesPerPixel", 1)
    bits = header.whole("BitsAllocated", 8)
    stored = header.whole("BitsStored", bits)
    syntax = header.syntax
    known = _NATIVE | _LOSSLESS_JPEG | {_EXTENDED_JPEG} | set(CODECS)
    if syntax not in known:
        raise Damaged(
            f"{name} is in the transfer syntax {syntax[:64]}, which is not read here: "
            "export it as Explicit VR Little Endian."
        )
    if samples not in (1, 3) or bits not in (8, 16, 32) or not 0 < stored <= bits:
        raise Damaged(f"{name} has {samples} samples of {bits} bits a pixel.")
    if bits == 32 and syntax not in _NATIVE:
        raise Damaged(f"{name} has compressed pixels of 32 bits.")
    photometric = header.text("PhotometricInterpretation") or "MONOCHROME2"
    if photometric == "PALETTE COLOR":
        raise Damaged(f"{name} has palette colours: export it as RGB.")
    if photometric == "YBR_FULL_422" and syntax in _NATIVE:
        raise Damaged(f"{name} has halved colours without compression: export as RGB.")
    coding = Coding(
        syntax,
        rows,
        columns,
        samples,
        bits,
        stored,
        bool(header.whole("PixelRepresentation")) and samples == 1,
        photometric,
        bool(header.whole("PlanarConfiguration")),
    )
    if not rows or not columns or coding.frame_bytes > _LONGEST_FRAME:
        raise Damaged(f"{name} says that its image is {columns} x {rows} pixels.")
    return coding


def spans(header: Header, coding: Coding) -> list[tuple[int, int]]:
    """Where the frames lie in the file: start and end of each; raises Damaged."""
    frames = max(header.whole("NumberOfFrames", 1), 1)
    if coding.syntax == DEFLATED:
        # The whole file is one stream: frames are counted in what it unpacks to.
        size = coding.frame_bytes
        return [(at * size, (at + 1) * size) for at in range(frames)]
    fd = os.open(header.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        if coding.syntax == BIG_ENDIAN:
            return _big_endian_spans(fd, header.pixels_at, frames, coding)
        index = find_frames(
            fd,
            header.pixels_at,
            frames,
            explicit=coding.syntax != IMPLICIT,
            native_bytes=coding.frame_bytes if coding.native else 0,
            extended=_extended(header.dataset),
        )
    except UnreadableSlide as error:
        raise Damaged(f"{header.path.name} cannot be read: {error}.") from error
    except DAMAGED as error:
        raise Damaged(f"{header.path.name} has damaged pixel data.") from error
    finally:
        os.close(fd)
    return [
        (int(start), int(end))
        for start, end in zip(index.starts, index.ends, strict=True)
    ]


def _big_endian_spans(
    fd: int, at: int, frames: int, coding: Coding
) -> list[tuple[int, int]]:
    head = os.pread(fd, 12, at)
    if len(head) < 12 or struct.unpack_from(">HH", head) != (0x7FE0, 0x0010):
        raise UnreadableSlide("it has no pixel data")
    start, size = at + 12, coding.frame_bytes
    if os.fstat(fd).st_size < start + frames * size:
        raise UnreadableSlide("it is cut off within its pixel data")
    return [(start + k * size, start + (k + 1) * size) for k in range(frames)]


def _extended(dataset: Dataset) -> tuple[Any, Any] | None:
    offsets, lengths = (
        dataset.get("ExtendedOffsetTable"),
        dataset.get("ExtendedOffsetTableLengths"),
    )
    if not offsets or not lengths or len(offsets) != len(lengths):
        return None
    return np.frombuffer(offsets, "<u8"), np.frombuffer(lengths, "<u8")


def read_rows(
    fd: int, start: int, coding: Coding, rows: tuple[int, int], name: str
) -> Numbers:
    """Rows of a native frame of one sample, (rows, columns), as stored."""
    width = coding.columns * coding.bits // 8
    first, last = rows
    wanted = (last - first) * width
    content = os.pread(fd, wanted, start + first * width)
    if len(content) != wanted:
        raise Damaged(f"{name} is cut off within its pixel data. Copy it again.")
    numbers = np.frombuffer(content, coding.written)
    return _without_unused(numbers.reshape(-1, coding.columns), coding)


def decoded(content: bytes, coding: Coding, name: str) -> Numbers:
    """A whole frame out of its bytes: (rows, columns) or (rows, columns, 3) in RGB."""
    try:
        if coding.native:
            return _native(content, coding)
        stream = unpack(content)
        if coding.syntax in _LOSSLESS_JPEG:
            pixels = np.asarray(imagecodecs.ljpeg_decode(stream))
            if pixels.shape[:2] != (coding.rows, coding.columns):
                raise Damaged(f"{name} has a frame that is not of its size.")
            pixels = pixels.astype(np.uint8 if coding.bits == 8 else np.uint16)
        elif coding.syntax == _EXTENDED_JPEG and coding.bits == 16:
            pixels = np.asarray(imagecodecs.jpeg_decode(stream, bitspersample=12))
            if pixels.shape != (coding.rows, coding.columns):
                raise Damaged(f"{name} has a frame that is not of its size.")
        else:
            pixels = decode(stream, coding.instance)
    except (DamagedTile, RuntimeError, ValueError, TypeError, IndexError) as error:
        raise Damaged(f"{name} has a frame that cannot be decoded.") from error
    return pixels if coding.samples == 3 else _without_unused(pixels, coding)


def _native(content: bytes, coding: Coding) -> Numbers:
    numbers = np.frombuffer(content, coding.written)
    if coding.samples == 1:
        return _without_unused(numbers.reshape(coding.rows, coding.columns), coding)
    shape = coding.rows, coding.columns
    if coding.planar:
        pixels = numbers.reshape(3, *shape).transpose(1, 2, 0)
    else:
        pixels = numbers.reshape(*shape, 3)
    if coding.photometric == "YBR_FULL" and coding.bits == 8:
        return rgb_of_ycbcr(pixels)
    return pixels.astype(pixels.dtype.newbyteorder("="))


def _without_unused(numbers: Numbers, coding: Coding) -> Numbers:
    """Numbers in native order; bits above the stored ones (overlays once) taken off."""
    native = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    values = np.ascontiguousarray(native).view(coding.dtype)
    unused = coding.bits - coding.stored
    return (values << unused) >> unused if unused else values


def inflated(content: bytes) -> bytes:
    """The pixel data of a deflated file, whole; raises Damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bytes(pydicom.dcmread(io.BytesIO(content)).PixelData)
    except DAMAGED as error:
        raise Damaged("A deflated DICOM file cannot be unpacked.") from error
