"""The reader for one DICOM file that is no whole slide: MR, CT, X-ray, ultrasound.

Its frames are depths, or depths and times where the file numbers both. The numbers are
those that the modality means (Hounsfield units for CT): stored values after the rescale
slope and intercept. The window is the file's own. Only attributes that say how to show
the pixels are read; who the patient is is never parsed.

Planes: x goes along a row of the image and y down its rows, as the file stores them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers.chunks import LONGEST_CHUNK, ChunkCache, ChunkedPlanes
from tile_server.readers.dicom_files import CODECS, Instance
from tile_server.readers.dicom_frames import FrameIndex, find_frames, read_frame
from tile_server.readers.dicom_pixels import decode
from tile_server.readers.planes import (
    BLACK,
    WHITE,
    Channel,
    Numbers,
    Plane,
    PlaneFacts,
    PlaneReader,
    Window,
    rgb_channels,
)
from tile_server.readers.protocol import Level, SlideFacts

_LOSSLESS_JPEG = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_EXTENDED_JPEG = "1.2.840.10008.1.2.4.51"
_UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
_IMPLICIT = "1.2.840.10008.1.2"
_TAGS = [
    "SOPClassUID", "Modality", "Columns", "Rows", "NumberOfFrames", "SamplesPerPixel",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation",
    "PlanarConfiguration", "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter",
    "WindowWidth", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ImageOrientationPatient", "ImagePositionPatient",
]  # fmt: skip
_DAMAGED = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, KeyError,
    IndexError, TypeError, AttributeError, NotImplementedError, OverflowError,
    RecursionError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class _Scale:
    """From stored values to the modality's; a whole scale keeps whole numbers."""

    slope: float
    intercept: float

    @property
    def is_whole(self) -> bool:
        return self.slope == 1.0 and self.intercept == int(self.intercept)


@dataclass(frozen=True)
class _Image:
    """What the header says of the pixels.

    Attributes
    ----------
    frame_of
        The number of the frame of each (z, t).
    """

    header: Instance
    signed: bool
    scale: _Scale
    frame_of: dict[tuple[int, int], int]
    depths: int
    times: int
    channels: tuple[Channel, ...]
    facts: SlideFacts
    z_step_um: float | None
    unit: str
    index: FrameIndex

    @property
    def stored_type(self) -> np.dtype[Any]:
        size = self.header.bits // 8
        return np.dtype(f"{'i' if self.signed else 'u'}{size}")

    @property
    def number_type(self) -> np.dtype[Any]:
        if self.scale == _Scale(1.0, 0.0):
            return self.stored_type
        return np.dtype(np.int32 if self.scale.is_whole else np.float32)


def open_dicom_image(path: Path, chunks: ChunkCache) -> PlaneReader:
    """The image of a DICOM file; raises UnreadableSlide with the reason."""
    name = path.name
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        image = _image(path, fd)
    except UnreadableSlide as error:
        os.close(fd)
        raise UnreadableSlide(f"{name} cannot be shown: {error}.") from error
    except _DAMAGED as error:
        os.close(fd)
        kind = type(error).__name__
        raise UnreadableSlide(f"{name} is a damaged DICOM file ({kind}).") from error
    owner = chunks.owner()
    header = image.header

    def chunk(_: int, plane: Plane, _x: int, _y: int) -> Numbers | None:
        number = image.frame_of[plane.z, plane.t]
        frame = chunks.chunk(owner, number, lambda: _frame(fd, image, number))
        if frame is None or frame.ndim == 2:
            return frame
        return frame[:, :, plane.channel]

    def release() -> None:
        os.close(fd)
        chunks.forget(owner)

    size = header.width, header.height
    return ChunkedPlanes(
        path,
        (Level(*size, *size, encoded=False),),
        image.facts,
        PlaneFacts(
            image.channels,
            image.depths,
            image.times,
            image.number_type.name,
            image.z_step_um,
            unit=image.unit,
        ),
        chunk,
        release,
    )


def _frame(fd: int, image: _Image, number: int) -> npt.NDArray[Any]:
    """One frame's numbers, (height, width) or (height, width, 3)."""
    index, header = image.index, image.header
    start, end = int(index.starts[number]), int(index.ends[number])
    stream = read_frame(fd, start, end, encapsulated=index.encapsulated)
    if header.syntax in _LOSSLESS_JPEG or header.bits > 16:
        pixels = _other_frame(stream, header)
    else:
        pixels = decode(stream, header)
    if header.samples == 3:
        return pixels
    unused = header.bits - header.bits_stored
    stored = np.ascontiguousarray(pixels).view(image.stored_type)
    if unused and header.bits <= 16:
        # Bits above the stored ones may hold anything (overlays, in old files).
        stored = (stored << unused) >> unused
    if image.scale == _Scale(1.0, 0.0):
        return stored
    if image.scale.is_whole:
        return stored.astype(np.int32) + int(image.scale.intercept)
    scaled = stored * image.scale.slope + image.scale.intercept
    return scaled.astype(np.float32)


def _other_frame(stream: bytes, header: Instance) -> npt.NDArray[Any]:
    try:
        if header.bits > 16:
            pixels = np.frombuffer(stream, f"<u{header.bits // 8}")
            return pixels.reshape(header.height, header.width).astype("=u4")
        pixels = np.asarray(imagecodecs.ljpeg_decode(stream))
    except (RuntimeError, ValueError, TypeError) as error:
        raise DamagedTile("This frame cannot be decoded.") from error
    if pixels.shape[:2] != (header.height, header.width) or pixels.ndim != 2:
        raise DamagedTile("This frame is not of the size that its file says.")
    return pixels.astype(np.uint8 if header.bits == 8 else np.uint16, copy=False)


def _image(path: Path, fd: int) -> _Image:
    with path.open("rb") as file:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        at = file.tell()
    if "Rows" not in dataset or "Columns" not in dataset:
        raise UnreadableSlide("it is a DICOM file without an image")
    header = _header(path, dataset)
    native = 0
    if header.syntax in _UNCOMPRESSED:
        native = header.width * header.height * header.samples * header.bits // 8
    index = find_frames(
        fd,
        at,
        header.frames,
        explicit=header.syntax != _IMPLICIT,
        native_bytes=native,
        extended=None,
    )
    frame_of, depths, times = _order(dataset, header.frames)
    slope, intercept, unit = _rescale(dataset)
    colour = header.samples == 3
    signed = bool(int(dataset.get("PixelRepresentation") or 0)) and not colour
    scale = _Scale(1.0, 0.0) if colour else _Scale(slope, intercept)
    modality = str(dataset.get("Modality") or "image")[:16]
    grey = Channel(modality, WHITE, _window(dataset, header, scale, signed=signed))
    mpp_x, mpp_y = _mpp(dataset)
    return _Image(
        header=header,
        signed=signed,
        scale=scale,
        frame_of=frame_of,
        depths=depths,
        times=times,
        channels=rgb_channels() if colour else (grey,),
        facts=SlideFacts(
            f"DICOM {modality}, {CODECS.get(header.syntax, 'JPEG')}",
            mpp_x,
            mpp_y,
            None,
            BLACK,
            (),
        ),
        z_step_um=_thickness_um(dataset),
        unit="" if colour else unit,
        index=index,
    )


def _header(path: Path, dataset: Dataset) -> Instance:
    """The pixels' description in the form that frames are decoded by."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax not in CODECS and syntax not in (*_LOSSLESS_JPEG, _EXTENDED_JPEG):
        raise UnreadableSlide(f"its transfer syntax {syntax[:64]} is not read here")
    width, height = int(dataset.Columns), int(dataset.Rows)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.get("BitsAllocated") or 8)
    stored = int(dataset.get("BitsStored") or bits)
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    allowed = {1: (8, 16, 32), 3: (8,)}.get(samples, ())
    if bits not in allowed or not 0 < stored <= bits:
        raise UnreadableSlide(f"it has {samples} samples of {bits} bits a pixel")
    if bits == 32 and syntax not in _UNCOMPRESSED:
        raise UnreadableSlide("it has compressed pixels of 32 bits")
    if photometric == "PALETTE COLOR":
        raise UnreadableSlide("it has palette colours, which are not read here")
    if not width or not height or width * height * samples * bits // 8 > LONGEST_CHUNK:
        raise UnreadableSlide(f"its image is {width} x {height} pixels")
    if syntax == _EXTENDED_JPEG:
        # 8 bits decode like baseline; of 12 bits the decoder says so.
        syntax = "1.2.840.10008.1.2.4.50"
    return Instance(
        path=path,
        uid="",
        series="",
        kind="",
        syntax=syntax,
        width=width,
        height=height,
        tile_width=width,
        tile_height=height,
        samples=samples,
        bits=bits,
        bits_stored=stored,
        # MONOCHROME1 is shown by an inverted window; its numbers stay.
        photometric=photometric if samples == 3 else "MONOCHROME2",
        planar=bool(int(dataset.get("PlanarConfiguration") or 0)),
        focal_planes=1,
        optical_paths=(),
        spacing_mm=None,
        frames=int(dataset.get("NumberOfFrames") or 1),
        frame_offset=0,
        places=None,
        depths_um=(0.0,),
        depth_step_um=None,
        index=FrameIndex(
            np.zeros(0, np.uint64), np.zeros(0, np.uint64), encapsulated=False
        ),
    )


def _order(
    dataset: Dataset, frames: int
) -> tuple[dict[tuple[int, int], int], int, int]:
    """The frame of each (z, t): by the file's own numbers, else one depth after
    another."""
    places = []
    for group in dataset.get("PerFrameFunctionalGroupsSequence") or ():
        content = (group.get("FrameContentSequence") or [Dataset()])[0]
        z, t = (
            content.get("InStackPositionNumber"),
            content.get("TemporalPositionIndex"),
        )
        places.append((z, t))
    depths = sorted({z for z, _ in places if z is not None})
    times = sorted({t for _, t in places if t is not None})
    complete = len(set(places)) == len(places) == frames == len(depths) * len(times)
    if not complete or not frames:
        return {(z, 0): z for z in range(frames)}, frames, 1
    order = {
        (depths.index(z), times.index(t)): number
        for number, (z, t) in enumerate(places)
    }
    return order, len(depths), len(times)


def _groups(dataset: Dataset, name: str) -> Sequence[Dataset]:
    """The macro `name` where it may stand: in the file, for all frames, for the first.

    A scale that differs between frames is that of the first.
    """
    found = [dataset]
    for sequence in (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    ):
        for group in list(dataset.get(sequence) or ())[:1]:
            found += list(group.get(name) or ())[:1]
    return found


def _number(group: Dataset, name: str) -> float | None:
    value = group.get(name)
    if value is None or value == "":
        return None
    first = value if isinstance(value, int | float | str) else next(iter(value), None)
    number = float(first) if first is not None else float("nan")
    return number if np.isfinite(number) else None


def _rescale(dataset: Dataset) -> tuple[float, float, str]:
    for group in _groups(dataset, "PixelValueTransformationSequence"):
        slope, intercept = (
            _number(group, "RescaleSlope"),
            _number(group, "RescaleIntercept"),
        )
        if slope and intercept is not None and abs(intercept) < 2**24:
            unit = str(group.get("RescaleType") or "")[:16]
            if not unit and dataset.get("Modality") == "CT":
                unit = "HU"
            return slope, intercept, "" if unit == "US" else unit
    return 1.0, 0.0, ""


def _window(
    dataset: Dataset, header: Instance, scale: _Scale, *, signed: bool
) -> Window | None:
    """The file's first window (PS3.3 C.11.2.1.2.1), upside down for MONOCHROME1."""
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    for group in _groups(dataset, "FrameVOILUTSequence"):
        centre, width = _number(group, "WindowCenter"), _number(group, "WindowWidth")
        if centre is not None and width is not None and width > 1:
            low = centre - 0.5 - (width - 1) / 2
            high = centre - 0.5 + (width - 1) / 2
            return (high, low) if inverted else (low, high)
    if not inverted:
        return None
    largest = 2 ** (header.bits_stored - (1 if signed else 0)) - 1
    smallest = -largest - 1 if signed else 0
    low, high = (scale.slope * one + scale.intercept for one in (smallest, largest))
    return high, low


def _mpp(dataset: Dataset) -> tuple[float | None, float | None]:
    for group in _groups(dataset, "PixelMeasuresSequence"):
        for name in ("PixelSpacing", "ImagerPixelSpacing"):
            value = group.get(name)
            if value is not None and not isinstance(value, str) and len(value) == 2:
                down, across = (float(one) * 1000 for one in value)
                if 0 < down < 1e9 and 0 < across < 1e9:
                    return across, down
    return None, None


def _thickness_um(dataset: Dataset) -> float | None:
    for group in _groups(dataset, "PixelMeasuresSequence"):
        for name in ("SpacingBetweenSlices", "SliceThickness"):
            value = _number(group, name)
            if value and 0 < value < 1e6:
                return value * 1000
    return None
