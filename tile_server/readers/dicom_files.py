"""The DICOM files of one whole-slide series: their headers as plain values.

A slide is many files: one or more per level (VL Whole Slide Microscopy Image, PS3.3
A.32.8). Only the attributes that place pixels are read; names of people and the like
are never parsed. Everything that pydicom finds odd in a file becomes one clear refusal.

Planes: `frame_places` are columns and rows of the level's own pixels, from 0.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from tile_server.errors import UnreadableSlide
from tile_server.readers.dicom_frames import MOST_FRAMES, FrameIndex, find_frames

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
_IMPLICIT = "1.2.840.10008.1.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
CODECS = {
    "1.2.840.10008.1.2": "uncompressed",
    "1.2.840.10008.1.2.1": "uncompressed",
    "1.2.840.10008.1.2.5": "RLE",
    JPEG_BASELINE: "JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K",
    "1.2.840.10008.1.2.4.202": "HTJ2K",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
_MOST_HEADER_BYTES = 256 * 2**20
_MOST_FILES = 4096
_MOST_FOCAL_PLANES = 4096
_PROFILE_BYTES = 8 * 2**20
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ImageType",
    "TotalPixelMatrixColumns", "TotalPixelMatrixRows", "TotalPixelMatrixFocalPlanes",
    "NumberOfFrames", "NumberOfOpticalPaths", "DimensionOrganizationType",
    "Columns", "Rows", "SamplesPerPixel", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PhotometricInterpretation", "PlanarConfiguration",
    "OpticalPathSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ImagedVolumeWidth", "ImagedVolumeHeight",
    "TotalPixelMatrixOriginSequence",
    "ConcatenationUID", "ConcatenationFrameOffsetNumber",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
]  # fmt: skip
# What pydicom raises for damaged files, at opening or when a value is looked at.
_DAMAGED = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, KeyError,
    IndexError, TypeError, AttributeError, NotImplementedError, OverflowError,
    RecursionError, LookupError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class OpticalPath:
    """One way of light: an identifier within the series, and what people call it.

    Attributes
    ----------
    colour
        In which a monochrome path is shown, or None where the file does not say.
    wavelength_nm
        Of the illumination, or None.
    objective
        Magnification, or None.
    profile
        The ICC profile, or None.
    """

    identifier: str
    name: str
    colour: tuple[int, int, int] | None
    wavelength_nm: float | None
    objective: float | None
    profile: bytes | None


@dataclass(frozen=True)
class Instance:
    """One file of a series.

    Attributes
    ----------
    kind
        The third value of ImageType: VOLUME, LABEL, OVERVIEW, THUMBNAIL.
    width, height
        Of the whole level, in its own pixels.
    tile_width, tile_height
        Of a frame.
    spacing_mm
        Millimetres per pixel, across and down, or None.
    frame_offset
        How many frames of the concatenation lie in the files before this one.
    places
        For TILED_SPARSE one row per frame: column and row of its corner from 0, the
        rank of its depth in `depths_um`, and the number of its optical path. Else None.
    depths_um
        Of the focal planes, from the slide's surface, rising; where the file does not
        tell how far they lie from each other, they are counted: 0, 1, 2.
    depth_step_um
        From one of them to the next, or None where the file does not say.
    """

    path: Path
    uid: str
    series: str
    kind: str
    syntax: str
    width: int
    height: int
    tile_width: int
    tile_height: int
    samples: int
    bits: int
    bits_stored: int
    photometric: str
    planar: bool
    focal_planes: int
    optical_paths: tuple[OpticalPath, ...]
    spacing_mm: tuple[float, float] | None
    frames: int
    frame_offset: int
    places: npt.NDArray[np.int64] | None
    depths_um: tuple[float, ...]
    depth_step_um: float | None
    index: FrameIndex


def is_dicom(path: Path) -> bool:
    """True where the file carries DICOM's mark."""
    try:
        if not path.is_file():
            return False  # opening a pipe would wait for ever
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def slide_files(path: Path) -> tuple[Path, ...]:
    """The files of the whole-slide series that `path` is, or lies in; () if none.

    `path` is one file of a series, or a folder of one series. Raises UnreadableSlide
    where a folder holds several.
    """
    if path.is_dir():
        series: dict[str, list[Path]] = {}
        for file in _neighbours(path):
            uid = _series_of(file)
            if uid:
                series.setdefault(uid, []).append(file)
        if len(series) > 1:
            raise UnreadableSlide(
                f"{path.name} is a folder of {len(series)} DICOM slides: name one "
                "file of the slide instead."
            )
        return tuple(next(iter(series.values()), ()))
    own = _series_of(path)
    if not own:
        return ()
    return tuple(file for file in _neighbours(path.parent) if _series_of(file) == own)


def read_instance(path: Path) -> Instance | None:
    """The header of one file; None where it is no part of a whole slide's pictures.

    Raises UnreadableSlide with the file's name and the reason.
    """
    name = path.name
    try:
        with path.open("rb") as file:
            dataset = _header(file, _TAGS)
            at = file.tell()
            if _text(dataset, "SOPClassUID") != _WHOLE_SLIDE:
                return None
            return _instance(dataset, path, file.fileno(), at)
    except UnreadableSlide as error:
        raise UnreadableSlide(f"{name} cannot be read: {error}.") from error
    except _DAMAGED as error:
        kind = type(error).__name__
        raise UnreadableSlide(f"{name} is a damaged DICOM file ({kind}).") from error


def _header(file: io.BufferedReader, tags: list[str]) -> Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)


def _neighbours(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted(one.name for one in entries if one.is_file())
    if len(names) > _MOST_FILES:
        names = names[:_MOST_FILES]
    return (folder / name for name in names if not name.startswith("."))


def _series_of(path: Path) -> str:
    """The series of a whole-slide file, "" for any other file."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return _known_series(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16384)
def _known_series(path: Path, _size: int, _mtime_ns: int) -> str:
    """Kept by size and time: looking a version up asks for all files of a folder."""
    if not is_dicom(path):
        return ""
    try:
        with path.open("rb") as file:
            # Stops long before the big sequences: both tags come early in a file.
            dataset = pydicom.filereader.read_partial(
                file,
                stop_when=lambda tag, _vr, _length: tag > 0x0020000E,
                specific_tags=[0x00080016, 0x0020000E],
            )
            if _text(dataset, "SOPClassUID") != _WHOLE_SLIDE:
                return ""
            return _text(dataset, "SeriesInstanceUID") or "unnamed"
    except _DAMAGED:
        return ""


def _instance(dataset: Dataset, path: Path, fd: int, at: int) -> Instance:
    if at > _MOST_HEADER_BYTES:
        raise UnreadableSlide("its header is absurdly long")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax not in CODECS:
        raise UnreadableSlide(f"its transfer syntax {syntax[:64]} is not read here")
    samples, bits = (
        _whole(dataset, "SamplesPerPixel", 1),
        _whole(dataset, "BitsAllocated", 8),
    )
    tile_width, tile_height = _whole(dataset, "Columns"), _whole(dataset, "Rows")
    frames = _whole(dataset, "NumberOfFrames", 1)
    if samples not in (1, 3) or bits not in (8, 16) or (samples, bits) == (3, 16):
        raise UnreadableSlide(f"it has {samples} samples of {bits} bits a pixel")
    if _whole(dataset, "PixelRepresentation", 0):
        raise UnreadableSlide("it has signed pixels")
    if not 0 < frames <= MOST_FRAMES or not tile_width or not tile_height:
        raise UnreadableSlide("it has no frames")
    native = 0
    if syntax in _UNCOMPRESSED:
        native = tile_width * tile_height * samples * bits // 8
    focal_planes = max(_whole(dataset, "TotalPixelMatrixFocalPlanes", 1), 1)
    if focal_planes > _MOST_FOCAL_PLANES:
        raise UnreadableSlide(f"it says that it has {focal_planes} focal planes")
    paths = _shared_path(dataset, _optical_paths(dataset))
    step = _depth_step_um(dataset)
    places: npt.NDArray[np.int64] | None = None
    depths = _full_depths(dataset, focal_planes, step or 1.0)
    if "TILED_FULL" not in _text(dataset, "DimensionOrganizationType"):
        places, depths = _places(dataset, frames, paths)
        step = depths[1] - depths[0] if len(depths) > 1 else step
    index = find_frames(
        fd,
        at,
        frames,
        explicit=syntax != _IMPLICIT,
        native_bytes=native,
        extended=_extended(dataset),
    )
    image_type = [str(value) for value in _values(dataset, "ImageType")]
    return Instance(
        path=path,
        uid=_text(dataset, "SOPInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID") or "unnamed",
        kind=image_type[2] if len(image_type) > 2 else "",
        syntax=syntax,
        width=_whole(dataset, "TotalPixelMatrixColumns", tile_width),
        height=_whole(dataset, "TotalPixelMatrixRows", tile_height),
        tile_width=tile_width,
        tile_height=tile_height,
        samples=samples,
        bits=bits,
        bits_stored=_whole(dataset, "BitsStored", bits),
        photometric=_text(dataset, "PhotometricInterpretation"),
        planar=bool(_whole(dataset, "PlanarConfiguration", 0)),
        focal_planes=focal_planes,
        optical_paths=paths,
        spacing_mm=_spacing(dataset),
        frames=frames,
        frame_offset=_whole(dataset, "ConcatenationFrameOffsetNumber", 0),
        places=places,
        depths_um=depths,
        depth_step_um=step,
        index=index,
    )


def _text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "")


def _values(dataset: Dataset, name: str) -> list[object]:
    value = dataset.get(name)
    if value is None or isinstance(value, str):
        return [] if value is None else [value]
    return list(value)


def _whole(dataset: Dataset, name: str, default: int | None = None) -> int:
    value = dataset.get(name)
    if value is None or value == "":
        if default is None:
            raise UnreadableSlide(f"it does not say its {name}")
        return default
    number = int(value)
    if not 0 <= number < 2**32:
        raise UnreadableSlide(f"its {name} is {number}")
    return number


def _positive(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0.0 < number < float("inf") else None


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Millimetres per pixel: from the shared groups, else from the imaged volume."""
    for group in dataset.get("SharedFunctionalGroupsSequence") or ():
        for measures in group.get("PixelMeasuresSequence") or ():
            told = [_positive(value) for value in _values(measures, "PixelSpacing")]
            # Rows come first: the distance between them goes down.
            if len(told) == 2 and told[0] and told[1]:
                return told[1], told[0]
    width = _positive(dataset.get("ImagedVolumeWidth"))
    height = _positive(dataset.get("ImagedVolumeHeight"))
    columns = _positive(dataset.get("TotalPixelMatrixColumns"))
    rows = _positive(dataset.get("TotalPixelMatrixRows"))
    if width and height and columns and rows:
        return width / columns, height / rows
    return None


def _depth_step_um(dataset: Dataset) -> float | None:
    """From one focal plane to the next, in micrometres (the file has millimetres)."""
    for group in dataset.get("SharedFunctionalGroupsSequence") or ():
        for measures in group.get("PixelMeasuresSequence") or ():
            told = _positive(measures.get("SpacingBetweenSlices"))
            if told:
                return told * 1000
    return None


def _full_depths(dataset: Dataset, count: int, step: float) -> tuple[float, ...]:
    """The depths of a TILED_FULL file; each plane of a slide can have its own file."""
    first = 0.0
    for origin in dataset.get("TotalPixelMatrixOriginSequence") or ():
        told = origin.get("ZOffsetInSlideCoordinateSystem")
        first = float(told) if told is not None else 0.0
    if not -1e9 < first < 1e9:
        raise UnreadableSlide("its focal planes lie nowhere")
    return tuple(round(first + number * step, 4) for number in range(count))


def _optical_paths(dataset: Dataset) -> tuple[OpticalPath, ...]:
    found = []
    for item in dataset.get("OpticalPathSequence") or ():
        profile = item.get("ICCProfile")
        whole = isinstance(profile, bytes) and 128 < len(profile) <= _PROFILE_BYTES
        identifier = _text(item, "OpticalPathIdentifier")
        found.append(
            OpticalPath(
                identifier=identifier,
                name=_text(item, "OpticalPathDescription") or identifier,
                colour=_palette_colour(item),
                wavelength_nm=_positive(item.get("IlluminationWaveLength")),
                objective=_positive(item.get("ObjectiveLensPower")),
                profile=bytes(profile) if whole else None,
            )
        )
    return tuple(found) or (OpticalPath("1", "", None, None, None, None),)


def _shared_path(
    dataset: Dataset, paths: tuple[OpticalPath, ...]
) -> tuple[OpticalPath, ...]:
    """The one path of all frames, where the file says so; else all that it lists."""
    for group in dataset.get("SharedFunctionalGroupsSequence") or ():
        for item in group.get("OpticalPathIdentificationSequence") or ():
            wanted = _text(item, "OpticalPathIdentifier")
            own = tuple(path for path in paths if path.identifier == wanted)
            if own:
                return own
    return paths


def _palette_colour(item: Dataset) -> tuple[int, int, int] | None:
    """The colour of the brightest value in the path's palette.

    Plain and segmented tables alike end with it (PS3.3 C.7.9.2).
    """
    for table in item.get("PaletteColorLookupTableSequence") or ():
        ends = []
        for name in ("Red", "Green", "Blue"):
            entries = table.get(f"Segmented{name}PaletteColorLookupTableData")
            entries = entries or table.get(f"{name}PaletteColorLookupTableData")
            descriptor = _values(table, f"{name}PaletteColorLookupTableDescriptor")
            if not isinstance(entries, bytes) or len(entries) < 2 or not descriptor:
                return None
            wide = str(descriptor[-1]) == "16"
            ends.append(entries[-1] if wide else entries[-2])
        return ends[0], ends[1], ends[2]
    return None


def _extended(
    dataset: Dataset,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]] | None:
    offsets = dataset.get("ExtendedOffsetTable")
    lengths = dataset.get("ExtendedOffsetTableLengths")
    if not isinstance(offsets, bytes) or not isinstance(lengths, bytes):
        return None
    return (
        np.frombuffer(offsets, "<u8").astype(np.uint64),
        np.frombuffer(lengths, "<u8").astype(np.uint64),
    )


def _places(
    dataset: Dataset, frames: int, paths: tuple[OpticalPath, ...]
) -> tuple[npt.NDArray[np.int64] | None, tuple[float, ...]]:
    """Where the frames of a sparse level lie, and the depths that occur in it.

    A file of one frame may leave its place out.
    """
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if len(groups) != frames:
        if frames == 1:
            return None, (0.0,)
        raise UnreadableSlide(
            f"it tells the places of {len(groups)} of its {frames} frames"
        )
    numbers = {path.identifier: number for number, path in enumerate(paths)}
    places = np.zeros((frames, 4), np.int64)
    depths = np.zeros(frames)
    for row, group in enumerate(groups):
        (place,) = group.PlanePositionSlideSequence
        column = int(place.ColumnPositionInTotalImagePixelMatrix)
        line = int(place.RowPositionInTotalImagePixelMatrix)
        depth = place.get("ZOffsetInSlideCoordinateSystem")
        depths[row] = float(depth) if depth is not None else 0.0
        number = 0
        for path in group.get("OpticalPathIdentificationSequence") or ():
            number = numbers[str(path.OpticalPathIdentifier)]
        places[row] = column - 1, line - 1, 0, number
    levels, places[:, 2] = np.unique(np.round(depths, 4), return_inverse=True)
    return places, tuple(float(level) for level in levels)
