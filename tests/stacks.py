"""Images of planes made in code: every number follows from its place and plane.

`numbers` gives the truth; a writer for each format writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

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


def write_imagej(path: Path, spec: StackSpec) -> Path:
    """An ImageJ hyperstack, big-endian, in strips; returns `path`."""
    whole = numbers(spec).transpose(0, 2, 1, 3, 4)
    tifffile.imwrite(path, whole, imagej=True, metadata={"axes": "TZCYX"})
    return path


def _packed(number: int) -> int:
    """(10 * number, 200, 30) as OME packs a colour: RGBA in a signed number."""
    colour = (10 * number << 24) | (200 << 16) | (30 << 8) | 255
    return colour - 2**32 if colour >= 2**31 else colour


FLUORESCENCE = StackSpec(channels=3, levels=3)
CONFOCAL = replace(FLUORESCENCE, depths=4, times=2, width=300, height=200, levels=2)
FLOATS = StackSpec(dtype="float32", channels=2)
SIGNED = StackSpec(dtype="int8", depths=3, width=130, height=90)
