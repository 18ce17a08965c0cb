"""Images of planes made in code: every number follows from its place and plane.

`numbers` gives the truth; a writer for each format writes it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import tifffile
import zarr
import zarr.storage
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StackSpec:
    """What to write: sizes, type of numbers, and how many levels of halves."""

    width: int = 700
    height: int = 430
    channels: int = 1
    depths: int = 1
    times: int = 1
    dtype: str = "uint16"
    levels: int = 1


def numbers(spec: StackSpec) -> Array:
    """(t, c, z, y, x): a slope along x and y, other in each plane."""
    y, x = np.mgrid[0 : spec.height, 0 : spec.width]
    wave = (3 * x + 5 * y) % 1000
    planes = np.arange(spec.times * spec.channels * spec.depths)
    offsets = 17 * planes.reshape(spec.times, spec.channels, spec.depths, 1, 1)
    whole: Array = wave + offsets
    largest = 127 if np.dtype(spec.dtype).itemsize == 1 else 4000
    if np.dtype(spec.dtype).kind == "f":
        return (whole / 7 - 40).astype(spec.dtype)
    return (whole % largest).astype(spec.dtype)


def pyramid(whole: Array, levels: int) -> list[Array]:
    """Every second number, and again."""
    return [whole[..., :: 2**k, :: 2**k] for k in range(levels)]


def write_ome_tiff(path: Path, spec: StackSpec, **options: Any) -> Path:
    """OME-TIFF of T, C, Z with its pyramid in SubIFDs; returns `path`."""
    full, *halves = pyramid(numbers(spec), spec.levels)
    chosen: dict[str, Any] = {"tile": (128, 128), "compression": "zlib"}
    chosen |= {"photometric": "minisblack"} | options
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 500.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 2.0,
        "PhysicalSizeZUnit": "µm",
        "TimeIncrement": 40.0,
        "TimeIncrementUnit": "ms",
        "Channel": {
            "Name": [f"dye {number}" for number in range(spec.channels)],
            "Color": [_packed(number) for number in range(spec.channels)],
        },
    }
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(full, subifds=len(halves), metadata=metadata, **chosen)
        for half in halves:
            tiff.write(half, subfiletype=1, **chosen)
    return path


def write_ome_files(folder: Path, spec: StackSpec, *, companion: bool = False) -> Path:
    """OME-TIFF with a file for each channel and time; returns the first file.

    The whole description is in each of them or, with `companion`, in a file of its own,
    which is returned then.
    """
    whole = numbers(spec)
    places = [(t, c) for t in range(spec.times) for c in range(spec.channels)]
    names = {place: f"t{place[0]}_c{place[1]}.ome.tif" for place in places}
    uuids = {place: f"urn:uuid:{uuid.uuid4()}" for place in places}
    blocks = "".join(
        f'<TiffData FirstT="{t}" FirstC="{c}" FirstZ="0" IFD="0" '
        f'PlaneCount="{spec.depths}">'
        f'<UUID FileName="{names[t, c]}">{uuids[t, c]}</UUID></TiffData>'
        for t, c in places
    )
    channels = "".join(
        f'<Channel ID="Channel:0:{c}" Name="dye {c}" SamplesPerPixel="1" '
        f'Color="{_packed(c)}"/>'
        for c in range(spec.channels)
    )
    image = (
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="{spec.dtype}" SizeX="{spec.width}" SizeY="{spec.height}" '
        f'SizeZ="{spec.depths}" SizeC="{spec.channels}" SizeT="{spec.times}" '
        f'PhysicalSizeX="0.25" PhysicalSizeY="0.5">{channels}{blocks}</Pixels></Image>'
    )
    start = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    described_by = folder / "all.companion.ome"
    if companion:
        own = uuid.uuid4()
        described_by.write_text(f'{start} UUID="urn:uuid:{own}">{image}</OME>')
    for place in places:
        inside = image
        if companion:
            inside = f'<BinaryOnly MetadataFile="{described_by.name}" UUID="{own}"/>'
        tifffile.imwrite(
            folder / names[place],
            whole[place],
            tile=(64, 64),
            photometric="minisblack",
            compression="zlib",
            description=f'{start} UUID="{uuids[place]}">{inside}</OME>'.encode(),
            metadata=None,
        )
    return described_by if companion else folder / names[places[0]]


def write_array(path: Path, plane: Array) -> Path:
    """One plane as tiled OME-TIFF; returns `path`."""
    tifffile.imwrite(
        path, plane[None], ome=True, tile=(256, 256), metadata={"axes": "ZYX"}
    )
    return path


def write_imagej(path: Path, spec: StackSpec) -> Path:
    """An ImageJ hyperstack, big-endian, in strips; returns `path`."""
    whole = numbers(spec).transpose(0, 2, 1, 3, 4)
    tifffile.imwrite(path, whole, imagej=True, metadata={"axes": "TZCYX"})
    return path


def write_zarr(path: Path, spec: StackSpec, **options: Any) -> Path:
    """OME-Zarr 0.4 or, with `zarr_format=3`, 0.5 of t, c, z, y, x; returns `path`.

    A name that ends in .zip is written as one file.
    """
    zipped = path.suffix == ".zip"
    store = (zarr.storage.ZipStore if zipped else zarr.storage.LocalStore)(
        path, **({"mode": "w"} if zipped else {})
    )
    chosen = {"zarr_format": 2, "chunks": (1, 1, 2, 100, 130)} | options
    axes: list[dict[str, str]] = [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "c", "type": "channel"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    levels = pyramid(numbers(spec), spec.levels)
    datasets = [
        {
            "path": f"s{k}",
            "coordinateTransformations": [
                {"type": "scale", "scale": [5.0, 1.0, 2.0, 250.0 * 2**k, 0.25 * 2**k]}
            ],
        }
        for k in range(len(levels))
    ]
    channels = [
        {
            "label": f"dye {number}",
            "color": "0AC81E",
            "window": {"min": 0, "max": 65535, "start": 10, "end": 900},
        }
        for number in range(spec.channels)
    ]
    image = {"axes": axes, "datasets": datasets, "name": "made"}
    attributes: dict[str, Any] = {"omero": {"channels": channels}}
    if chosen["zarr_format"] == 3:
        attributes |= {"version": "0.5", "multiscales": [image]}
        attributes = {"ome": attributes}
    else:
        attributes["multiscales"] = [image | {"version": "0.4"}]
    group: Any = zarr.create_group(
        store, zarr_format=chosen["zarr_format"], attributes=attributes
    )
    for k, level in enumerate(levels):
        array = group.create_array(
            f"s{k}",
            shape=level.shape,
            dtype=level.dtype,
            chunks=tuple(
                min(one, two)
                for one, two in zip(chosen["chunks"], level.shape, strict=True)
            ),
            shards=options.get("shards"),
        )
        array[:] = level
    store.close()
    return path


def write_nifti(path: Path, spec: StackSpec, **header: Any) -> Path:
    """NIfTI-1, or -2 with `second=True`, of x, y, z, t, c; returns `path`."""
    whole = numbers(spec).transpose(4, 3, 2, 0, 1)
    kind = nibabel.Nifti2Image if header.pop("second", False) else nibabel.Nifti1Image
    image: Any = kind(whole, np.diag([0.5, 0.25, 2.0, 1.0]))
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 40
    for name, value in header.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def write_dicom(path: Path, frames: Array, **changes: Any) -> Path:
    """An uncompressed image of `frames` (frame, y, x); returns `path`."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["made"])
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CT"
    dataset.PatientName = "Nobody^Named"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    bits = 8 * frames.dtype.itemsize
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.PixelData = frames.astype(frames.dtype.newbyteorder("<")).tobytes()
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _packed(number: int) -> int:
    """(10 * number, 200, 30) as OME packs a colour: RGBA in a signed number."""
    colour = (10 * number << 24) | (200 << 16) | (30 << 8) | 255
    return colour - 2**32 if colour >= 2**31 else colour


FLUORESCENCE = StackSpec(channels=3, levels=3)
CONFOCAL = replace(FLUORESCENCE, depths=4, times=2, width=300, height=200, levels=2)
FLOATS = StackSpec(dtype="float32", channels=2)
SIGNED = StackSpec(dtype="int8", depths=3, width=130, height=90)
VOLUME = StackSpec(dtype="int16", depths=5, times=2, channels=2, width=61, height=47)
