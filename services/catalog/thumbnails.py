"""Thumbnails of images, made once for each version, in a few sizes.

Anybody who may see an image may ask for any size, so only `SIZES` are kept; another
size is made from the next larger one, which costs a millisecond. A file is never opened
here: a worker of the prober draws.
"""

from __future__ import annotations

import io
import secrets
from pathlib import Path

from PIL import Image

from services.catalog.errors import ImageGoneError
from tile_server.errors import TileServerError
from tile_server.probing import Prober

SIZES = (128, 256, 512, 1024)


def thumbnail(
    cache: Path, prober: Prober, path: Path, named: tuple[str, str], size: int
) -> bytes:
    """A JPEG whose longer side is `size` pixels or, of a smaller slide, its own.

    Parameters
    ----------
    cache
        The folder in which the sizes of `SIZES` are kept.
    prober
        Draws what is not kept.
    path
        The slide's file.
    named
        The image's id and version; what was kept of other versions goes.
    size
        Up to the largest of `SIZES`; beyond it, that one is given.

    Raises
    ------
    ImageGoneError
        Where the slide cannot be read.
    """
    image_id, version = named
    wanted = next((one for one in SIZES if one >= size), SIZES[-1])
    kept = cache / f"{image_id}-{version}-{wanted}.jpg"
    if kept.is_file():
        return _fitted(kept.read_bytes(), size)
    try:
        jpeg = prober.thumbnail(path, version, wanted)
    except (OSError, TileServerError) as err:
        raise ImageGoneError(f"image {image_id} cannot be read") from err
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(f"{image_id}-*.jpg"):
        if not old.name.startswith(f"{image_id}-{version}-"):
            old.unlink(missing_ok=True)
    staging = kept.with_suffix(f".{secrets.token_hex(4)}")
    staging.write_bytes(jpeg)
    staging.replace(kept)
    return _fitted(jpeg, size)


def _fitted(jpeg: bytes, size: int) -> bytes:
    """The picture with `size` pixels at its longer side, if it has more."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        if max(image.size) <= size:
            return jpeg
        image.thumbnail((size, size))
        smaller = io.BytesIO()
        image.save(smaller, "JPEG", quality=85)
    return smaller.getvalue()
