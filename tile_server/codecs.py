"""JPEG and PNG, to and from RGB arrays of shape (height, width, 3).

All of it goes through libjpeg-turbo and libspng without holding the GIL, so several
threads do several tiles.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import simplejpeg

from tile_server.errors import DamagedTile
from tile_server.pixels import Pixels

# Derived pictures are made once and looked at often; above 85 the bytes grow faster
# than what an eye can see on stained tissue.
QUALITY = 85
# A tile of a few kilobytes can announce a picture of gigabytes.
MOST_JPEG_PIXELS = 2**25


def decode_jpeg(
    stream: bytes, reduce: int = 1, *, size: tuple[int, int] | None = None
) -> Pixels:
    """Decode a JPEG, made `reduce` times smaller (1, 2, 4 or 8) while decoding.

    libjpeg takes fewer DCT coefficients, which averages blocks of `reduce` pixels and
    costs less than the full decode. Raises DamagedTile, also where the picture is huge
    or, given `size` (width, height), of another size.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(stream, strict=False)
        wrong = size is not None and size != (width, height)
        if wrong or width * height > MOST_JPEG_PIXELS:
            raise DamagedTile(f"It says that it has {width} x {height} pixels.")
        if reduce == 1:
            return np.asarray(simplejpeg.decode_jpeg(stream, "RGB", strict=False))
        return np.asarray(
            simplejpeg.decode_jpeg(
                stream,
                "RGB",
                min_height=-(-height // reduce),
                min_width=-(-width // reduce),
                min_factor=reduce,
                strict=False,
            )
        )
    except (ValueError, KeyError) as error:  # KeyError: an unknown colour space
        raise DamagedTile("The JPEG stream cannot be decoded.") from error


def encode_jpeg(pixels: Pixels, quality: int = QUALITY) -> bytes:
    """Encode as baseline JPEG, 4:2:0."""
    flat = np.ascontiguousarray(pixels)
    return bytes(simplejpeg.encode_jpeg(flat, quality, "RGB", "420"))


def encode_png(pixels: Pixels) -> bytes:
    """Encode without loss; quickly rather than small."""
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=2))


def decode_png(stream: bytes) -> Pixels:
    """Decode a PNG that `encode_png` made."""
    return np.asarray(imagecodecs.png_decode(stream), np.uint8)
