"""Plain pictures that the tile service does not read: JPEG 2000, WebP, BMP, GIF, PNM.

Pillow decodes them, whole; a picture that says it is larger than a screen wall of
screens is refused before. They have no size in millimetres unless they say so.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from theatrum.catalog.formats.errors import Damaged, NotAnImage
from theatrum.catalog.formats.lazy import File, Numbers, Ranges, Stored, labelled
from theatrum.catalog.formats.scene import Acquisition, Channel, Scene

FORMATS: Final = ("JPEG2000", "WEBP", "BMP", "GIF", "PPM", "PNG", "JPEG")
MOST_PIXELS: Final = 2**28
_GREY: Final = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16, "I": np.int32,
                "F": np.float32}  # fmt: skip
_DAMAGED: Final = (
    OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, MemoryError,
    ArithmeticError, RuntimeError, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An opener of (y, x) numbers, or (y, x, c) of a colour picture."""

    file: File
    colour: bool

    def open(self) -> _OpenPicture:
        return _OpenPicture(self)


class _OpenPicture:
    serial = False

    def __init__(self, opener: Picture) -> None:
        path = opener.file.checked()
        try:
            with _image(path) as image:
                chosen: Any = image.convert("RGB") if opener.colour else image
                self._pixels = np.asarray(chosen)
        except _DAMAGED as error:
            raise Damaged(f"{path.name} cannot be decoded.") from error
        if self._pixels.dtype == bool:
            self._pixels = self._pixels.astype(np.uint8) * 255

    def read(self, ranges: Ranges) -> Numbers:
        return self._pixels[ranges]

    def close(self) -> None:
        self._pixels = np.empty(0)


def open_picture(path: Path) -> Scene:
    """The picture of a file; raises FormatError."""
    try:
        with _image(path) as image:
            width, height = image.size
            mode, kind = image.mode, str(image.format)
    except UnidentifiedImageError as error:
        raise NotAnImage(
            f"{path.name} is of no image format that is taken in."
        ) from error
    except _DAMAGED as error:
        raise Damaged(f"{path.name} is a damaged picture.") from error
    if width * height > MOST_PIXELS:
        raise Damaged(
            f"{path.name} says that it is {width} x {height} pixels: store a picture "
            "of this size as a tiled TIFF or OME-Zarr."
        )
    colour = mode not in _GREY
    dtype = np.dtype(np.uint8 if colour else _GREY[mode])
    shape = (height, width, 3) if colour else (height, width)
    names = ("red", "green", "blue") if colour else ()
    array = labelled(
        Stored(Picture(File.of(path), colour), shape, dtype),
        ("y", "x", "c") if colour else ("y", "x"),
        {},
        chunks=shape,
        channels=names,
    )
    return Scene(
        format=kind,
        files=(path,),
        levels=(array,),
        channels=tuple(Channel(name) for name in names),
        acquisition=Acquisition(modality="OT"),
        facts={"mode": mode},
    )


def _image(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)
