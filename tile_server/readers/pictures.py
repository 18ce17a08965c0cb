"""The reader for plain pictures: PNG, JPEG and TIFF in strips, imported once.

Such a file can only be decoded whole. Its pyramid is written without loss into the
folder of imports; from then on it is served like any tiled image.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile
from PIL import Image

from tile_server.errors import UnreadableSlide
from tile_server.pixels import Pixels, plain
from tile_server.readers.chunks import ChunkCache, ChunkedPlanes, paste
from tile_server.readers.imports import Imports
from tile_server.readers.planes import (
    BLACK,
    WHITE,
    Channel,
    Numbers,
    Plane,
    PlaneFacts,
    PlaneReader,
    rgb_channels,
)
from tile_server.readers.protocol import Closes, Level, Reader, SlideFacts
from tile_server.readers.pyramid_file import MOST_PIXELS, read_pyramid, write_pyramid
from tile_server.readers.rendering import rendered
from tile_server.readers.tiff_segments import DECODE_ERRORS, TiffSegments

Array = npt.NDArray[Any]

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class PictureReader(Closes):
    """An imported RGB picture; see `protocol.Reader` for the methods."""

    path: Path
    facts: SlideFacts
    segments: TiffSegments
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.segments.levels

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:  # noqa: ARG002
        return None

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        pixels = plain(*size, self.facts.background)
        paste(
            pixels,
            self.levels[level],
            (l_x, l_y),
            lambda t_x, t_y: self.segments.samples(level, 0, t_x, t_y),
        )
        return pixels

    def associated_image(self, name: str) -> Pixels:
        raise KeyError(name)

    def close(self) -> None:
        self.segments.close()


def open_png(path: Path, chunks: ChunkCache, imports: Imports) -> Reader:
    """A PNG; raises UnreadableSlide."""
    return _open(path, ("PNG", _png), chunks, imports)


def open_jpeg(path: Path, chunks: ChunkCache, imports: Imports) -> Reader:
    """A JPEG; raises UnreadableSlide."""
    return _open(path, ("JPEG", _jpeg), chunks, imports)


def open_strips(path: Path, chunks: ChunkCache, imports: Imports) -> Reader:
    """A TIFF without tiles; raises UnreadableSlide."""
    return _open(path, ("TIFF in strips", _strips), chunks, imports)


def _open(
    path: Path,
    kind_and_decoder: tuple[str, Callable[[Path], Array]],
    chunks: ChunkCache,
    imports: Imports,
) -> Reader:
    """The imported picture; deeper than 8 bits it is an image of planes."""
    kind, decode = kind_and_decoder

    def write(to: Path) -> None:
        try:
            pixels = decode(path)
        except (*DECODE_ERRORS, OSError) as error:
            raise UnreadableSlide(
                f"{path.name} is a {kind} that cannot be decoded, or it is cut off."
            ) from error
        deep = pixels.dtype != np.uint8
        write_pyramid(to, np.moveaxis(pixels, 2, 0) if deep else [_rgb(pixels)])

    segments = read_pyramid(imports.copy(path, ".picture.tiff", write), chunks)
    facts = SlideFacts(f"{kind}, imported", None, None, None, WHITE, ())
    if segments.samples_per_pixel == 3:
        return PictureReader(path, facts, segments)
    deep = _deep_picture(path, replace(facts, background=BLACK), segments)
    return rendered(deep)


def _deep_picture(path: Path, facts: SlideFacts, segments: TiffSegments) -> PlaneReader:
    """A picture of more than 8 bits, whose samples were written as pages."""
    largest = (
        float(np.iinfo(segments.dtype).max) if segments.dtype.kind in "iu" else 1.0
    )
    colours = segments.pages in (3, 4)
    grey = (Channel("grey", WHITE),)

    def chunk(level: int, plane: Plane, t_x: int, t_y: int) -> Numbers | None:
        return segments.segment(level, plane.channel, 0, t_x, t_y)

    return ChunkedPlanes(
        path,
        segments.levels,
        facts,
        PlaneFacts(
            rgb_channels(largest) if colours else grey, 1, 1, segments.dtype.name
        ),
        chunk,
        segments.close,
    )


def _png(path: Path) -> Array:
    stream = path.read_bytes()
    _refuse_large(path, *struct.unpack_from(">II", stream, 16))
    # The decoder fills up what is missing; a struct.error tells that here.
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", stream, at)
        at += 12 + length
    return _three_axes(np.asarray(imagecodecs.png_decode(stream)))


def _jpeg(path: Path) -> Array:
    stream = path.read_bytes()
    height, width, space, _ = simplejpeg.decode_jpeg_header(stream, strict=False)
    _refuse_large(path, width, height)
    if stream.rfind(b"\xff\xd9") < stream.rfind(b"\xff\xda"):
        raise ValueError("no end")  # the decoder fills up what is missing
    if space in ("CMYK", "YCCK"):
        pixels = _from_cmyk(imagecodecs.jpeg8_decode(stream))
    else:
        pixels = simplejpeg.decode_jpeg(stream, "RGB", strict=False)
    return _upright(np.asarray(pixels), _orientation(stream))


def _strips(path: Path) -> Array:
    with tifffile.TiffFile(path, _multifile=False) as tiff:
        page = tiff.pages.first
        if page.is_tiled:
            raise ValueError("tiled")
        _refuse_large(path, page.imagewidth, page.imagelength)
        pixels = page.asarray(maxworkers=1)
        if (
            page.photometric == tifffile.PHOTOMETRIC.PALETTE
            and page.colormap is not None
        ):
            return np.moveaxis(page.colormap[:, pixels] >> 8, 0, 2).astype(np.uint8)
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, 2)
        if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            return _from_cmyk(255 - pixels)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = np.invert(pixels)
    return _three_axes(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


def _refuse_large(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableSlide(
            f"{path.name} has {width} x {height} pixels, more than can be imported; "
            "write it as a tiled pyramidal TIFF."
        )
    if not width or not height:
        raise UnreadableSlide(f"{path.name} has no pixels.")


def _three_axes(pixels: Array) -> Array:
    if pixels.ndim not in (2, 3):
        raise ValueError("no picture")
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _rgb(pixels: Pixels) -> Pixels:
    """Grey, grey with alpha, RGB or RGBA as RGB, on white where it is clear."""
    samples = pixels.shape[2]
    colours = pixels[:, :, : 3 if samples >= 3 else 1]
    if samples in (2, 4):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        under = Image.new("RGBA", image.size, (*WHITE, 255))
        under.alpha_composite(image.convert("RGBA"))
        return np.asarray(under.convert("RGB"))
    return np.ascontiguousarray(np.broadcast_to(colours, (*pixels.shape[:2], 3)))


def _from_cmyk(inks: Array) -> Pixels:
    """RGB of inks as Adobe writes them into JPEG: 255 is no ink."""
    light = inks.astype(np.uint16)
    return (light[:, :, :3] * light[:, :, 3:] // 255).astype(np.uint8)


def _orientation(stream: bytes) -> int:
    """The Exif orientation, 1 to 8, of a JPEG; 1 where it says nothing."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", stream, at + 2)
        segment = stream[at + 4 : at + 2 + length]
        if stream[at + 1] == 0xE1 and segment.startswith(_EXIF):
            exif = Image.Exif()
            try:
                exif.load(segment)
            except DECODE_ERRORS:
                return 1
            wanted = exif.get(_ORIENTATION, 1)
            return wanted if wanted in range(1, 9) else 1
        at += 2 + length
    return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """The picture as a viewer turns it (Exif 2.3, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    across = orientation in (2, 3, 6, 7)
    down = orientation in (3, 4, 7, 8)
    return pixels[:: -1 if down else 1, :: -1 if across else 1]
