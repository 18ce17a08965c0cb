"""Tiles of TIFF files that are not JPEG, decoded straight to RGB.

Every decoder gets the room that the tile may take, so a stream that announces or holds
more than that is refused, not unpacked.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError

from tile_server.errors import DamagedTile
from tile_server.pixels import Pixels
from tile_server.readers.dicom_pixels import jpeg_2000_size, rgb_of_ycbcr

PLAIN, LZW, DEFLATE, ADOBE_DEFLATE = 1, 5, 32946, 8
PACKBITS, ZSTD, WEBP = 32773, 50000, 50001
# Aperio's two, which say nothing of colours in the stream, and the registered one.
APERIO_YCBCR, APERIO_RGB, JPEG_2000 = 33003, 33005, 34712
NAMES = {
    PLAIN: "uncompressed",
    LZW: "LZW",
    DEFLATE: "Deflate",
    ADOBE_DEFLATE: "Deflate",
    PACKBITS: "PackBits",
    ZSTD: "Zstandard",
    WEBP: "WebP",
    APERIO_YCBCR: "JPEG 2000",
    APERIO_RGB: "JPEG 2000",
    JPEG_2000: "JPEG 2000",
}
IS_JPEG_2000 = frozenset({APERIO_YCBCR, APERIO_RGB, JPEG_2000})
_BYTES = {
    LZW: imagecodecs.lzw_decode,
    DEFLATE: imagecodecs.zlib_decode,
    ADOBE_DEFLATE: imagecodecs.zlib_decode,
    PACKBITS: imagecodecs.packbits_decode,
    ZSTD: imagecodecs.zstd_decode,
}
_DAMAGED = "This tile cannot be decoded."
# imagecodecs' own errors derive from RuntimeError, Pillow's from OSError.
_CODEC_ERRORS = (RuntimeError, ValueError, TypeError, OSError, SyntaxError)


@dataclass(frozen=True)
class TileCoding:
    """How the tiles of one level are coded.

    Attributes
    ----------
    codec
        A key of `NAMES`.
    edge
        Of a tile, in pixels.
    samples
        1 (grey) or 3.
    differences
        True where samples are stored as differences along the row (predictor 2).
    """

    codec: int
    edge: int
    samples: int
    differences: bool


def decode(stream: bytes, coding: TileCoding) -> Pixels:
    """The pixels of a tile, (edge, edge, 3); raises DamagedTile."""
    shape: tuple[int, ...] = (coding.edge, coding.edge)
    if coding.samples == 3:
        shape = (*shape, 3)
    try:
        pixels = _decode(stream, coding, np.empty(shape, np.uint8))
    except _CODEC_ERRORS as error:
        raise DamagedTile(_DAMAGED) from error
    if coding.codec == APERIO_YCBCR:
        pixels = rgb_of_ycbcr(pixels)
    if coding.samples == 1:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.asarray(pixels, np.uint8)


def decode_smaller(stream: bytes, coding: TileCoding, reduce: int) -> Pixels:
    """A JPEG 2000 tile, 2**`reduce` times smaller each way while it is decoded.

    Its finer wavelet levels are skipped. A pixel of the answer stands for the first,
    not the middle, pixel of its block: it lies less than half of itself from its place.
    Raises DamagedTile.
    """
    if jpeg_2000_size(stream) != (coding.edge, coding.edge):
        raise DamagedTile(_DAMAGED)
    try:
        with Image.open(io.BytesIO(stream), formats=("JPEG2000",)) as image:
            # Pillow's name for the number of wavelet levels to skip.
            image.reduce = reduce  # type: ignore[method-assign,assignment]
            image.load()
            pixels = np.asarray(image)
    except (*_CODEC_ERRORS, UnidentifiedImageError) as error:
        raise DamagedTile(_DAMAGED) from error
    edge = -(-coding.edge >> reduce)
    shape = (edge, edge, 3) if coding.samples == 3 else (edge, edge)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise DamagedTile(_DAMAGED)
    if coding.codec == APERIO_YCBCR:
        pixels = rgb_of_ycbcr(pixels)
    if coding.samples == 1:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels


# `Any` because imagecodecs ships no types that hold for every decoder.
def _decode(stream: bytes, coding: TileCoding, room: Any) -> Any:
    if coding.codec in IS_JPEG_2000:
        return imagecodecs.jpeg2k_decode(stream, out=room)
    if coding.codec == WEBP:
        return imagecodecs.webp_decode(stream, hasalpha=False, out=room)
    if coding.codec == PLAIN:
        plain = stream
    else:
        plain = bytes(_BYTES[coding.codec](stream, out=room.nbytes))
    if len(plain) != room.nbytes:
        raise DamagedTile(_DAMAGED)
    pixels = np.frombuffer(plain, np.uint8).reshape(room.shape)
    if coding.differences:
        return imagecodecs.delta_decode(pixels, axis=1)
    return pixels
