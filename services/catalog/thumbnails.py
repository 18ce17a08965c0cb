"""Thumbnails of images, made once for each version and size."""

from __future__ import annotations

import secrets
from pathlib import Path

from services.catalog.errors import ImageGoneError
from tile_server.errors import TileServerError
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.regions import thumbnail as draw


def thumbnail(cache: Path, path: Path, image_id: str, version: str, size: int) -> bytes:
    """A JPEG whose longest side is `size` pixels; from `cache` where it is there.

    Raises
    ------
    ImageGoneError
        Where the slide cannot be read.
    """
    kept = cache / f"{image_id}-{version}-{size}.jpg"
    if kept.is_file():
        return kept.read_bytes()
    try:
        with open_slide(path) as slide:
            jpeg = draw(Pyramid(slide), size)
    except (OSError, TileServerError) as err:
        raise ImageGoneError(f"image {image_id} cannot be read") from err
    cache.mkdir(parents=True, exist_ok=True)
    staging = kept.with_suffix(f".{secrets.token_hex(4)}")
    staging.write_bytes(jpeg)
    staging.replace(kept)
    return jpeg
