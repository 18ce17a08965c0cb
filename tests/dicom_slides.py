"""DICOM whole slides made in code: one file per level, or several.

They hold the picture of `tests.slides`. What a writer may choose is a field of
`DicomSpec`: the codec, how frames are placed and found, how they are spread over files.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from tests.slides import PADDING, Pixels, picture, shrunken

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
SYNTAXES = {
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "rle": "1.2.840.10008.1.2.5",
    "plain": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
}
# No profile, and looks like one from outside.
PROFILE = bytes(36) + b"acsp" + bytes(160)


@dataclass(frozen=True)
class DicomSpec:
    """What to write.

    Attributes
    ----------
    codec
        A key of `SYNTAXES`.
    rgb
        JPEG components are RGB without a marker that says so, else YCbCr.
    sparse
        Frames say their places (TILED_SPARSE), in reverse order, else TILED_FULL.
    table
        "basic", "extended" or "empty": how frames are found.
    fragments
        Pieces that each frame is cut into.
    parts
        Files that each level is spread over (a concatenation).
    channels
        0 for colour, else that many monochrome optical paths.
    file_per_channel
        Each optical path has a file of its own.
    paths
        Optical paths of a colour slide; the colours of each are turned once more.
    depths
        Focal planes; each is a shade darker than the one below.
    coarse_depths
        Those of the levels below the first, from the lowest; 0 for as many.
    file_per_depth
        Each focal plane has a file of its own.
    step_um
        From one focal plane to the next where they are not in frames' places; 0: the
        files do not say.
    bits
        Of a monochrome sample.
    left_out
        Tiles (x, y) of level 0 that are not there (sparse only).
    """

    width: int = 700
    height: int = 500
    downsamples: tuple[int, ...] = (1, 4)
    tile: int = 64
    codec: str = "jpeg"
    rgb: bool = False
    sparse: bool = False
    table: str = "basic"
    fragments: int = 1
    parts: int = 1
    channels: int = 0
    file_per_channel: bool = False
    paths: int = 1
    depths: int = 1
    coarse_depths: int = 0
    file_per_depth: bool = False
    step_um: float = 0.0
    bits: int = 8
    profile: bytes | None = None
    left_out: frozenset[tuple[int, int]] = frozenset()


COLOUR = {
    "full": DicomSpec(),
    "rgb": DicomSpec(rgb=True, table="extended"),
    "sparse": DicomSpec(sparse=True, left_out=frozenset({(2, 1), (3, 1)})),
    "empty table": DicomSpec(table="empty"),
    "fragments": DicomSpec(fragments=3),
    "fragments without table": DicomSpec(fragments=3, table="empty"),
    "concatenation": DicomSpec(parts=3),
    "sparse concatenation": DicomSpec(parts=2, sparse=True),
    "depths": DicomSpec(depths=3),
    "sparse depths": DicomSpec(depths=3, sparse=True),
    "jpeg2000": DicomSpec(codec="jpeg2000"),
    "jpeg-ls": DicomSpec(codec="jpeg-ls"),
    "rle": DicomSpec(codec="rle"),
    "plain": DicomSpec(codec="plain"),
    "implicit": DicomSpec(codec="implicit", parts=2),
    "jpeg2000 concatenation": DicomSpec(codec="jpeg2000", parts=3, depths=2),
    "paths": DicomSpec(paths=2, depths=3, codec="plain"),
    "paths in files": DicomSpec(paths=3, file_per_channel=True),
    "sparse paths": DicomSpec(paths=2, sparse=True, depths=2, parts=2),
    "depths in files": DicomSpec(depths=3, file_per_depth=True, step_um=0.8),
    "fewer coarse depths": DicomSpec(depths=3, coarse_depths=1, step_um=2.0),
}
MONOCHROME = {
    "channels": DicomSpec(channels=3),
    "channels in files": DicomSpec(channels=2, file_per_channel=True),
    "16 bit": DicomSpec(channels=1, bits=16, codec="plain"),
    "16 bit jpeg2000": DicomSpec(channels=2, bits=16, codec="jpeg2000", depths=2),
    "sparse channels": DicomSpec(channels=2, sparse=True, depths=2),
    "depths in files": DicomSpec(
        channels=2, depths=3, file_per_channel=True, file_per_depth=True, step_um=1.5
    ),
}


def truth(spec: DicomSpec, level: int, channel: int = 0, depth: int = 0) -> Pixels:
    """The pixels of one plane of a level (RGB where there are no channels).

    `channel` is the number of the optical path.
    """
    full = shrunken(picture(spec.width, spec.height), spec.downsamples[level])
    shade = full - (full // 8) * depth
    if not spec.channels:
        return np.roll(shade, channel, axis=2)
    plane = shade[:, :, channel % 3]
    return plane.astype(np.uint16) * 257 if spec.bits == 16 else plane


def stored_depth(spec: DicomSpec, level: int, depth: int) -> int:
    """The focal plane of a level that stands for one of level 0."""
    return min(depth, spec.coarse_depths - 1) if level and spec.coarse_depths else depth


def write_dicom_slide(folder: Path, spec: DicomSpec, *, label: bool = True) -> Path:
    """Write the files of a slide into `folder`; returns the first file of level 0."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for number in range(len(spec.downsamples)):
        _write_level(folder, spec, series, number)
    if label:
        small = np.full((48, 80, 3), (10, 200, 60), np.uint8)
        own = DicomSpec(codec="plain")
        dataset = _dataset(own, series, (80, 48), (80, 48), "LABEL")
        _save(folder / "label.dcm", dataset, own, [small])
    return min(folder.glob("level0_*.dcm"))


def _write_level(folder: Path, spec: DicomSpec, series: str, number: int) -> None:
    channels = range(max(spec.channels, spec.paths))
    files = [[one] for one in channels] if spec.file_per_channel else [list(channels)]
    count = spec.coarse_depths if number and spec.coarse_depths else spec.depths
    depths = range(count)
    piles = [[one] for one in depths] if spec.file_per_depth else [list(depths)]
    for group, pile in itertools.product(files, piles):
        frames, places = _frames(spec, number, group, pile)
        size = truth(spec, number).shape[1::-1]
        share = -(-len(frames) // spec.parts)
        whole = generate_uid()
        for part in range(spec.parts):
            own = slice(part * share, (part + 1) * share)
            dataset = _dataset(
                spec, series, size, (spec.tile, spec.tile), "VOLUME", group
            )
            dataset.NumberOfFrames = len(frames[own])
            dataset.TotalPixelMatrixFocalPlanes = len(pile)
            if number:
                dataset.SharedFunctionalGroupsSequence = Items(
                    [_measures(spec, number)]
                )
            if spec.step_um:
                origin = Dataset()
                origin.ZOffsetInSlideCoordinateSystem = pile[0] * spec.step_um
                dataset.TotalPixelMatrixOriginSequence = Items([origin])
            if spec.parts > 1:
                dataset.ConcatenationUID = whole
                dataset.ConcatenationFrameOffsetNumber = part * share
            if spec.sparse:
                dataset.DimensionOrganizationType = "TILED_SPARSE"
                dataset.PerFrameFunctionalGroupsSequence = Items(
                    [_place(spec, *place) for place in places[own]]
                )
            name = f"level{number}_{part}.dcm"
            if spec.file_per_channel or spec.file_per_depth:
                name = f"level{number}_{group[0]}_{pile[0]}.dcm"
            _save(folder / name, dataset, spec, frames[own])


def _frames(
    spec: DicomSpec, number: int, channels: Sequence[int], depths: Sequence[int]
) -> tuple[list[Pixels], list[tuple[int, int, int, int]]]:
    """The frames of a level as TILED_FULL orders them, and their places."""
    frames, places = [], []
    left_out = spec.left_out if number == 0 else frozenset()
    for channel in channels:
        for depth in depths:
            pixels = truth(spec, number, channel, depth)
            height, width = pixels.shape[:2]
            for y in range(-(-height // spec.tile)):
                for x in range(-(-width // spec.tile)):
                    if (x, y) in left_out:
                        continue
                    frames.append(_padded(pixels, x, y, spec.tile))
                    places.append((x, y, depth, channel))
    if spec.sparse:
        frames.reverse()
        places.reverse()
    return frames, places


def _padded(pixels: Pixels, x: int, y: int, tile: int) -> Pixels:
    part = pixels[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
    whole = np.empty((tile, tile, *pixels.shape[2:]), pixels.dtype)
    whole[:] = PADDING if pixels.ndim == 3 else 255
    whole[: part.shape[0], : part.shape[1]] = part
    return whole


def _dataset(
    spec: DicomSpec,
    series: str,
    size: tuple[int, int],
    tile: tuple[int, int],
    kind: str,
    channels: Sequence[int] = (0,),
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(WHOLE_SLIDE)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.UID(SYNTAXES[spec.codec])
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = series
    dataset.PatientName = "Nobody^Known"
    dataset.ImageType = ["DERIVED", "PRIMARY", kind, "NONE"]
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = size
    dataset.Columns, dataset.Rows = tile
    dataset.NumberOfFrames = 1
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.TotalPixelMatrixFocalPlanes = spec.depths
    dataset.SamplesPerPixel = 1 if spec.channels else 3
    dataset.PlanarConfiguration = 0
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated = dataset.BitsStored = spec.bits
    dataset.HighBit = spec.bits - 1
    dataset.PhotometricInterpretation = "RGB"
    if spec.channels:
        dataset.PhotometricInterpretation = "MONOCHROME2"
    elif spec.codec == "jpeg" and not spec.rgb:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.OpticalPathSequence = Items([_path(spec, one) for one in channels])
    dataset.SharedFunctionalGroupsSequence = Items([_measures(spec, 0)])
    return dataset


def _measures(spec: DicomSpec, number: int) -> Dataset:
    measures = Dataset()
    spacing = 0.0005 * spec.downsamples[number]
    measures.PixelSpacing = [spacing, spacing]
    if spec.step_um:
        measures.SpacingBetweenSlices = spec.step_um / 1000
    group = Dataset()
    group.PixelMeasuresSequence = Items([measures])
    return group


def _path(spec: DicomSpec, channel: int) -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier = f"path {channel}"
    path.OpticalPathDescription = f"dye {channel}"
    path.ObjectiveLensPower = 20
    if spec.profile:
        path.ICCProfile = spec.profile
    if spec.channels:
        table = Dataset()
        for index, name in enumerate(("Red", "Green", "Blue")):
            last = 255 if index == channel % 3 else 0
            setattr(table, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
            ramp = np.asarray([0, 1, 0, 1, 255, last], "<u2").tobytes()
            setattr(table, f"Segmented{name}PaletteColorLookupTableData", ramp)
        path.PaletteColorLookupTableSequence = Items([table])
    return path


def _place(spec: DicomSpec, x: int, y: int, depth: int, channel: int) -> Dataset:
    place = Dataset()
    place.ColumnPositionInTotalImagePixelMatrix = x * spec.tile + 1
    place.RowPositionInTotalImagePixelMatrix = y * spec.tile + 1
    place.ZOffsetInSlideCoordinateSystem = depth * 1.5
    path = Dataset()
    path.OpticalPathIdentifier = f"path {channel}"
    group = Dataset()
    group.PlanePositionSlideSequence = Items([place])
    group.OpticalPathIdentificationSequence = Items([path])
    return group


def _save(
    path: Path, dataset: FileDataset, spec: DicomSpec, frames: Sequence[Pixels]
) -> None:
    streams = [_encode(frame, spec) for frame in frames]
    if spec.codec in ("plain", "implicit"):
        dataset.PixelData = b"".join(streams)
    elif spec.table == "extended":
        body, offsets, lengths = encapsulate_extended(streams)
        dataset.PixelData = body
        dataset.ExtendedOffsetTable = offsets
        dataset.ExtendedOffsetTableLengths = lengths
    else:
        dataset.PixelData = encapsulate(
            streams, fragments_per_frame=spec.fragments, has_bot=spec.table == "basic"
        )
    dataset["PixelData"].VR = "OB" if spec.bits == 8 else "OW"
    dataset["PixelData"].is_undefined_length = spec.codec not in ("plain", "implicit")
    dataset.save_as(path, enforce_file_format=True)


def _encode(frame: Pixels, spec: DicomSpec) -> bytes:
    """A frame as the file holds it."""
    if spec.codec in ("plain", "implicit"):
        return frame.astype(frame.dtype.newbyteorder("<")).tobytes()
    if spec.codec == "jpeg2000":
        return bytes(
            imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True)
        )
    if spec.codec == "jpeg-ls":
        return bytes(imagecodecs.jpegls_encode(frame))
    if spec.codec == "rle":
        return _rle(frame)
    if spec.channels:
        return bytes(imagecodecs.jpeg8_encode(frame, level=95))
    stream = imagecodecs.jpeg8_encode(
        frame,
        level=95,
        colorspace="RGB",
        outcolorspace="RGB" if spec.rgb else "YCBCR",
        subsampling="444" if spec.rgb else "422",
    )
    return _without_marks(bytes(stream)) if spec.rgb else bytes(stream)


def _without_marks(stream: bytes) -> bytes:
    """A JPEG of RGB that says so nowhere: no Adobe marker, components 1, 2, 3."""
    out, at = bytearray(b"\xff\xd8"), 2
    while stream[at + 1] != 0xDA:
        length = 2 + int.from_bytes(stream[at + 2 : at + 4])
        segment = bytearray(stream[at : at + length])
        if segment[1] == 0xC0:
            segment[10], segment[13], segment[16] = 1, 2, 3
        if not 0xE0 <= segment[1] <= 0xEF:
            out += segment
        at += length
    rest = bytearray(stream[at:])
    rest[5], rest[7], rest[9] = 1, 2, 3
    return bytes(out + rest)


def _rle(frame: Pixels) -> bytes:
    """RLE (PS3.5 G): one PackBits segment per sample, after a header of 64 bytes."""
    planes = frame.transpose(2, 0, 1) if frame.ndim == 3 else frame[None]
    segments = []
    for plane in planes:
        rows = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane)
        segments.append(rows + b"\0" * (len(rows) % 2))
    offsets = np.zeros(16, "<u4")
    offsets[0] = len(segments)
    at = 64
    for number, segment in enumerate(segments):
        offsets[1 + number] = at
        at += len(segment)
    return offsets.tobytes() + b"".join(segments)
