"""A tiled TIFF that openslide does not open, for lack of its codec: the bare structure.

It has levels and a pixel size, and no pixels of its own: `tiff_tiles` decodes them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import tifffile

from tile_server import icc
from tile_server.pixels import Colour, Pixels
from tile_server.readers.protocol import Level, SlideFacts

# What tifffile raises for damaged files, at opening or when a tag is looked at.
TIFF_DAMAGED = (
    tifffile.TiffFileError, OSError, ValueError, LookupError, TypeError, AttributeError,
    ArithmeticError, RuntimeError, struct.error,
)  # fmt: skip
_WHITE: Colour = (255, 255, 255)
_UM = {2: 25_400.0, 3: 10_000.0}  # by TIFF's unit of resolution: inch, centimetre
_MOST_LEVELS = 64


class BareTiff:
    """What `tiff_tiles` asks of a slide, where openslide cannot answer."""

    vendor = "generic-tiff"

    def __init__(
        self, path: Path, levels: tuple[Level, ...], facts: SlideFacts
    ) -> None:
        self.path, self.levels, self.facts = path, levels, facts
        self.properties: Mapping[str, str] = {}

    @classmethod
    def open(cls, path: Path) -> BareTiff | None:
        """The structure of a file, None where it is no tiled TIFF."""
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = [
                    page
                    for page in tiff.pages[:_MOST_LEVELS]
                    if isinstance(page, tifffile.TiffPage) and page.is_tiled
                ]
                if not pages:
                    return None
                full = max(pages, key=lambda page: page.imagewidth)
                sizes = {(page.imagewidth, page.imagelength) for page in pages}
                profile = full.tags.valueof(34675)
                mpp_x, mpp_y = _mpp(full, "XResolution"), _mpp(full, "YResolution")
                levels = tuple(
                    Level(width, height, full.tilewidth, full.tilelength, encoded=False)
                    for width, height in sorted(sizes, reverse=True)
                    if _is_smaller_copy(
                        (width, height), (full.imagewidth, full.imagelength)
                    )
                )
        except TIFF_DAMAGED:
            return None
        raw = profile if isinstance(profile, bytes) else None
        facts = SlideFacts(
            format=cls.vendor,
            mpp_x=mpp_x,
            mpp_y=mpp_y,
            objective=None,
            background=_WHITE,
            associated=(),
            profile=icc.profile_of(raw),
        )
        return cls(path, levels, facts)

    def read(self, level: int, *_: object) -> Pixels:
        raise KeyError(level)  # every level is decoded by its tiles

    def associated_image(self, name: str) -> Pixels:
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is open."""


def _is_smaller_copy(size: tuple[int, int], full: tuple[int, int]) -> bool:
    """True where both sides are smaller by the same factor, but for rounding."""
    if min(size) < 1:
        return False
    factor = full[0] / size[0]
    return abs(full[1] / factor - size[1]) <= max(1.0, 2.0 / factor)


def _mpp(page: tifffile.TiffPage, name: str) -> float | None:
    """Micrometres per pixel, None where the file does not say."""
    value = page.tags.valueof(name)
    unit = _UM.get(int(page.tags.valueof("ResolutionUnit") or 0))
    if not isinstance(value, tuple) or len(value) != 2 or unit is None:
        return None
    pixels, per = value
    return unit * per / pixels if pixels > 0 and per > 0 else None
