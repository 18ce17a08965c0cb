"""The pixels behind a slide: a pattern that tells its own place, an array, or a file.

A picture answers any rectangle of any Deep Zoom level, as (height, width, 3) bytes of
RGB. Boxes are in pixels of the level that `downsample` (1 for the full slide) names;
`variant` names the focal plane and the optical path.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import openslide
import tifffile
from PIL import Image

from .deepzoom import Box

Pixels = npt.NDArray[np.uint8]


class Picture(Protocol):
    """What a slide shows."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def region(self, downsample: int, box: Box, variant: str = "") -> Pixels: ...


@dataclass(frozen=True)
class Pattern:
    """A picture of any size, drawn where it is asked for.

    Red is a wave along x and green one along y, in pixels of the level, so that any
    displacement shows; blue is a code of the 64-pixel block, the level, the focal
    plane and the optical path, so that no tile can stand in for another one.
    """

    width: int
    height: int

    def region(self, downsample: int, box: Box, variant: str = "") -> Pixels:
        y, x = np.mgrid[box.y : box.y + box.height, box.x : box.x + box.width]
        salt = zlib.crc32(f"{downsample}|{variant}".encode())
        red = 40 + 160 * np.abs((x % 128) / 64 - 1)
        green = 40 + 160 * np.abs((y % 128) / 64 - 1)
        blue = 40 + (salt % 160 + 37 * (x // 64) + 91 * (y // 64)) % 160
        return np.stack([red, green, blue], axis=2).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """A picture held in memory; lower levels are means of it."""

    pixels: Pixels = field(repr=False)

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    def region(self, downsample: int, box: Box, variant: str = "") -> Pixels:
        del variant  # an array has one focal plane and one optical path
        top, left = box.y * downsample, box.x * downsample
        part = self.pixels[
            top : top + box.height * downsample, left : left + box.width * downsample
        ]
        return _shrunken(part, box.width, box.height)


class FilePicture:
    """A slide's file on disk, read as it is asked for; any thread may read."""

    def __init__(self, path: Path) -> None:
        self._slide = openslide.OpenSlide(path)
        self.width, self.height = self._slide.dimensions
        named = self._slide.properties.get(openslide.PROPERTY_NAME_MPP_X)
        self.mpp: float | None = float(named) if named else None

    def region(self, downsample: int, box: Box, variant: str = "") -> Pixels:
        del variant  # OpenSlide knows one focal plane and one optical path
        left, top = box.x * downsample, box.y * downsample
        if downsample == 1:
            return self._read(left, top, 0, box.width, box.height)
        # The stored level that is at least as sharp, and then the mean of its pixels.
        level = self._slide.get_best_level_for_downsample(downsample + 0.01)
        step = self._slide.level_downsamples[level]
        wide = max(1, round(min(box.width * downsample, self.width - left) / step))
        high = max(1, round(min(box.height * downsample, self.height - top) / step))
        part = self._read(left, top, level, wide, high)
        return _shrunken(part, box.width, box.height)

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> Pixels:
        seen = self._slide.read_region((x, y), level, (width, height))
        # Where a slide has no pixels it is transparent: glass is white.
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, seen).convert("RGB"))


def open_picture(path: Path) -> FilePicture | ArrayPicture:
    """The picture of a slide's file: by OpenSlide, or a plain image as a whole."""
    try:
        return FilePicture(path)
    except openslide.OpenSlideError:
        pixels = tifffile.imread(path)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(
                f"{path.name} is no RGB slide: give a file that OpenSlide opens"
                " or an RGB TIFF of 8 bits"
            ) from None
        return ArrayPicture(pixels)


def encode(pixels: Pixels, extension: str) -> bytes:
    """A tile's bytes; PNG is exact, JPEG is within a few grey values."""
    held = io.BytesIO()
    image = Image.fromarray(pixels)
    if extension == "png":
        image.save(held, "PNG", compress_level=1)
    else:
        image.save(held, "JPEG", quality=92, subsampling=0)
    return held.getvalue()


def _shrunken(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image)
