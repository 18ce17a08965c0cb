"""Scans made in code: a phantom whose every voxel tells where it lies in the body.

A voxel's number is `value_at` of its place, so that any reader, whatever order it reads
the axes in, can be checked by the affine alone.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SHAPE = (6, 5, 4)
"""x, y, z"""
STEPS = (1.5, 2.0, 3.0)
ORIGIN = (-10.0, 20.0, 30.0)


def phantom() -> np.ndarray[Any, Any]:
    """Numbers [x, y, z] on the RAS grid: each is another."""
    x, y, z = np.indices(SHAPE)
    return (100 * x + 10 * y + z).astype(np.int16)


def ras_affine() -> np.ndarray[Any, Any]:
    """Of the phantom: its axes lead right, anterior and superior."""
    affine = np.diag([*STEPS, 1.0])
    affine[:3, 3] = ORIGIN
    return affine


def turned(
    order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The phantom with its axes in another order and direction, and its affine."""
    array = phantom().transpose(order)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    affine[:3, 3] = ORIGIN
    for axis, old in enumerate(order):
        step = STEPS[old]
        if flips[axis]:
            array = np.flip(array, axis)
            affine[old, 3] += step * (SHAPE[old] - 1)
            step = -step
        affine[old, axis] = step
    return np.ascontiguousarray(array), affine


def to_ras(array: Any, affine: Any) -> np.ndarray[Any, Any]:
    """[x, y, z] on the phantom's grid, out of an array [x, y, z] and its RAS affine."""
    found = np.full(SHAPE, -1, np.int64)
    for index in np.ndindex(*array.shape):
        place = (affine @ [*index, 1])[:3]
        at = tuple(
            round((one - start) / step)
            for one, start, step in zip(place, ORIGIN, STEPS, strict=True)
        )
        found[at] = array[index]
    return found


def header(**changes: Any) -> Dataset:
    """A data set of one MR slice without pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.FrameOfReferenceUID = "1.2.3.5"
    dataset.Modality = "MR"
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = "4711"
    dataset.SeriesDescription = "t1 mprage"
    dataset.Manufacturer = "Maker"
    dataset.MagneticFieldStrength = 3
    dataset.EchoTime = 4.5
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in changes.items():
        setattr(dataset, name, value)
    return dataset


def write(path: Path, dataset: Dataset, pixels: np.ndarray[Any, Any]) -> Path:
    """The slice [y, x] (or frames [f, y, x]) in a file; returns `path`."""
    *frames, rows, columns = pixels.shape
    dataset.Rows, dataset.Columns = rows, columns
    if frames:
        dataset.NumberOfFrames = frames[0]
    big = not dataset.file_meta.TransferSyntaxUID.is_little_endian
    order = ">" if big else "<"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    array: np.ndarray[Any, Any] | None = None,
    affine: np.ndarray[Any, Any] | None = None,
    *,
    leave_out: tuple[int, ...] = (),
    shear: float = 0.0,
    shuffled: bool = True,
    **changes: Any,
) -> list[Path]:
    """A series of slices of [x, y, z], placed by its RAS affine; the files.

    `shear` moves each slice so many millimetres along its rows' direction more than
    the one before. File names tell nothing of the order.
    """
    array = phantom() if array is None else array
    affine = ras_affine() if affine is None else affine
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    across, down = lps[:3, 0] / steps[0], lps[:3, 1] / steps[1]
    names = np.random.default_rng(1).permutation(array.shape[2])
    files = []
    for z in range(array.shape[2]):
        if z in leave_out:
            continue
        place = lps[:3, 3] + lps[:3, 2] * z + down * shear * z
        dataset = header(
            ImagePositionPatient=[float(one) for one in place],
            ImageOrientationPatient=[float(one) for one in (*across, *down)],
            PixelSpacing=[float(steps[1]), float(steps[0])],
            SliceThickness=float(steps[2]),
            InstanceNumber=int(names[z]) + 1 if shuffled else z + 1,
            **changes,
        )
        name = f"{int(names[z]) if shuffled else z:03d}.dcm"
        files.append(write(folder / name, dataset, array[:, :, z].T))
    return files


def csa(count: int, normal: tuple[float, float, float]) -> bytes:
    """Siemens' header with the two fields that a mosaic needs."""
    fields = {
        "NumberOfImagesInMosaic": [str(count)],
        "SliceNormalVector": [f"{one:.8f}" for one in normal],
    }
    content = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        content += name.encode().ljust(64, b"\0")
        content += struct.pack("<I", len(values)) + b"IS\0\0"
        content += struct.pack("<III", 6, len(values), 77)
        for value in values:
            text = value.encode() + b"\0"
            content += struct.pack("<4I", len(text), len(text), 77, len(text))
            content += text.ljust(-(-len(text) // 4) * 4, b"\0")
    return content


def write_mosaic(path: Path, *, private: bool = True) -> Path:
    """The phantom as a mosaic of 2 x 2 tiles, axial, slices rising."""
    array = phantom()
    size_x, size_y, size_z = SHAPE
    whole = np.zeros((2 * size_y, 2 * size_x), np.int16)
    # LPS: x and y lead left and posterior, against the phantom's.
    for z in range(size_z):
        row, column = divmod(z, 2)
        tile = array[::-1, ::-1, z].T
        whole[
            row * size_y : (row + 1) * size_y, column * size_x : (column + 1) * size_x
        ] = tile
    first = np.array(
        [
            -(ORIGIN[0] + STEPS[0] * (size_x - 1)),
            -(ORIGIN[1] + STEPS[1] * (size_y - 1)),
            ORIGIN[2],
        ]
    )
    # Of a picture as large as the mosaic around the same centre.
    corner = first - [STEPS[0] * size_x / 2, STEPS[1] * size_y / 2, 0]
    dataset = header(
        SeriesInstanceUID="1.2.3.9",
        ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
        ImagePositionPatient=[float(one) for one in corner],
        ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        PixelSpacing=[STEPS[1], STEPS[0]],
        SliceThickness=STEPS[2] - 0.5,
        SpacingBetweenSlices=STEPS[2],
        AcquisitionMatrix=[0, size_x, size_y, 0],
    )
    if private:
        block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x10, "OB", csa(size_z, (0.0, 0.0, 1.0)))
    return write(path, dataset, whole)


def write_enhanced(path: Path, times: int = 2) -> Path:
    """The phantom as one multi-frame file, slices and times in a jumbled order."""
    array = phantom()
    size_z = SHAPE[2]
    shared, groups, frames = Dataset(), [], []
    measures, direction = Dataset(), Dataset()
    measures.PixelSpacing = [STEPS[1], STEPS[0]]
    measures.SliceThickness = STEPS[2]
    direction.ImageOrientationPatient = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [direction]
    order = np.random.default_rng(2).permutation(size_z * times)
    for number in order:
        t, z = divmod(int(number), size_z)
        group, place, content, value = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-ORIGIN[0], -ORIGIN[1], ORIGIN[2] + STEPS[2] * z]
        content.TemporalPositionIndex = t + 1
        content.InStackPositionNumber = z + 1
        # Each frame is scaled by itself.
        value.RescaleSlope, value.RescaleIntercept = 2.0 + t, float(-z)
        group.PlanePositionSequence = [place]
        group.FrameContentSequence = [content]
        group.PixelValueTransformationSequence = [value]
        groups.append(group)
        frames.append(array[:, :, z].T)
    dataset = header(
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )
    return write(path, dataset, np.stack(frames))
