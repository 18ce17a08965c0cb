"""The forms in which pixels leave: JPEG, PNG, WebP, and numpy's own.

JPEG is smallest to make and is what stored tiles are. PNG loses nothing, and has
transparency and 16 bits. WebP has transparency and fewer bytes than both; it loses a
little of a picture, and nothing of a tile whose pixels are the file's own.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from tile_server import codecs, icc
from tile_server.errors import BadRequest

# (height, width) grey, (height, width, 3) RGB or (height, width, 4) with transparency.
Picture: TypeAlias = npt.NDArray[Any]

JPG, PNG, WEBP, NPY = "jpg", "png", "webp", "npy"
MEDIA_TYPES = {
    JPG: "image/jpeg",
    PNG: "image/png",
    WEBP: "image/webp",
    NPY: "application/octet-stream",
}
BY_MEDIA_TYPE = {media_type: form for form, media_type in MEDIA_TYPES.items()}
# As an address ends.
ENDINGS = {"jpg": JPG, "jpeg": JPG, "png": PNG, "webp": WEBP, "npy": NPY}
TRANSPARENT = frozenset({PNG, WEBP})
# The formats' own limits.
_LONGEST_SIDE = {JPG: 65_500, WEBP: 16_383}


@dataclass(frozen=True)
class Form:
    """One way to encode a picture.

    Attributes
    ----------
    name
        One of `MEDIA_TYPES`.
    is_transparent
        Whether what lies past a slide's picture is to be transparent.
    lossless
        For WebP, which can be either.
    profile
        An ICC profile to put into it, or None.
    """

    name: str
    is_transparent: bool = False
    lossless: bool = False
    profile: bytes | None = None

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.name]

    @property
    def key(self) -> str:
        """The same for the same bytes of the same slide."""
        parts = [self.name]
        if self.is_transparent:
            parts.append("clear")
        if self.lossless:
            parts.append("whole")
        if self.profile is not None:
            parts.append("icc")
        return "-".join(parts)


def encode(pixels: Picture, form: Form) -> bytes:
    """The picture in a form; raises BadRequest where it is too large for that."""
    longest = _LONGEST_SIDE.get(form.name)
    if longest is not None and max(pixels.shape[:2]) > longest:
        raise BadRequest(
            f"A {form.name} has at most {longest} pixels a side: ask for png or npy."
        )
    if form.name == JPG:
        return icc.embedded(codecs.encode_jpeg(pixels), form.profile)
    if form.name == PNG:
        flat = np.ascontiguousarray(pixels)
        return icc.embedded(bytes(imagecodecs.png_encode(flat, level=2)), form.profile)
    buffer = io.BytesIO()
    if form.name == WEBP:
        Image.fromarray(np.ascontiguousarray(pixels)).save(
            buffer,
            "WEBP",
            lossless=form.lossless,
            quality=codecs.QUALITY if not form.lossless else 20,  # effort, then
            method=2 if not form.lossless else 0,
            icc_profile=form.profile,
        )
    else:
        np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def transparent_outside(pixels: Picture, width: int, height: int) -> Picture:
    """RGB pixels whose first `width` columns and `height` rows are the picture."""
    seen = np.zeros((*pixels.shape[:2], 4), np.uint8)
    seen[:height, :width, :3] = pixels[:height, :width]
    seen[:height, :width, 3] = 255
    return seen
