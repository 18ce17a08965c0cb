"""The picture of a IIIF address: read, mirrored, turned, made grey, encoded.

A picture that is one whole tile of the ladder, not turned or greyed, is that tile: what
viewers ask for leaves undecoded. All else is read without loss and encoded once.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from tile_server import codecs
from tile_server.errors import BadRequest
from tile_server.ladder import Ladder, Rung
from tile_server.protocols.iiif_request import Picture
from tile_server.pyramid import Pyramid
from tile_server.regions import read_region

# By the address's ending: media type, Pillow's name, and its options.
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpg": ("image/jpeg", "JPEG", {"quality": codecs.QUALITY}),
    "png": ("image/png", "PNG", {"compress_level": 2}),
    "webp": ("image/webp", "WEBP", {"quality": codecs.QUALITY, "method": 2}),
    "tif": ("image/tiff", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "gif": ("image/gif", "GIF", {}),
    "jp2": ("image/jp2", "JPEG2000", {}),
    "pdf": ("application/pdf", "PDF", {}),
}
_LONGEST_JPEG, _LONGEST_WEBP = 65_500, 16_383
_QUARTERS = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


def tile_of(
    ladder: Ladder, picture: Picture, form: str
) -> tuple[Rung, int, int] | None:
    """The tile whose picture part this is, if it is to leave as a JPEG.

    A viewer asks for edge tiles in whole pixels, rounded up, and draws them at the
    level's exact scale; so they are cut from the map's tile, and never stretched.
    """
    box, edge = picture.box, ladder.tile
    if not picture.is_plain or form != "jpg":
        return None
    full = ladder.rungs[0]
    for rung in ladder.rungs:
        span = edge * rung.downsample
        if box.x % span or box.y % span:
            return None
        width = min(span, full.width - box.x)
        height = min(span, full.height - box.y)
        size = -(-width // rung.downsample), -(-height // rung.downsample)
        if (box.width, box.height, picture.size) == (width, height, size):
            return rung, int(box.x) // span, int(box.y) // span
    return None


def draw(pyramid: Pyramid, picture: Picture, form: str) -> bytes:
    """The picture in a format of `FORMATS`; raises DamagedTile and BadRequest."""
    box, (width, height) = picture.box, picture.size
    longest = {"jpg": _LONGEST_JPEG, "webp": _LONGEST_WEBP}.get(form)
    if longest and max(width, height) > longest // (2 if picture.degrees % 90 else 1):
        raise BadRequest(f"A {form} has at most {longest} pixels a side.")
    place = tile_of(pyramid.ladder, picture, form)
    if place is not None:
        pixels = pyramid.tile(*place).decode()[:height, :width]
    else:
        pixels = read_region(pyramid, box, (box.width / width, box.height / height))
    if form == "jpg" and picture.is_plain:
        return codecs.encode_jpeg(pixels)
    image = Image.fromarray(pixels)
    if picture.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if picture.degrees in _QUARTERS:
        image = image.transpose(_QUARTERS[int(picture.degrees)])
    elif picture.degrees:
        image = image.rotate(
            -picture.degrees,
            Image.Resampling.BICUBIC,
            expand=True,
            fillcolor=pyramid.reader.facts.background,
        )
    if picture.quality in ("gray", "bitonal"):
        image = image.convert("L")
    if picture.quality == "bitonal":
        black_and_white = np.where(np.asarray(image) >= 128, 255, 0)
        image = Image.fromarray(black_and_white.astype(np.uint8))
    _, name, options = FORMATS[form]
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()
