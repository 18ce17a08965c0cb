"""What no true slide exceeds: figures of a header are believed up to here.

A scanner's largest pictures have some 300 000 pixels a side. A header that says far
more is damaged or hostile, and its figures would be multiplied into memory and time.
"""

from __future__ import annotations

from tile_server.errors import UnreadableSlide
from tile_server.readers.protocol import Reader

MOST_SIDE = 2**23
MOST_PIXELS = 2**43
MOST_LEVELS = 64
LARGEST_TILE = 4096
# Of an associated image, which is decoded whole: 200 MB in RGB.
MOST_WHOLE_PIXELS = 2**26


def refuse_absurd(reader: Reader) -> None:
    """Raise UnreadableSlide where the sizes that a file announces cannot be true."""
    name, levels = reader.path.name, reader.levels
    if not 0 < len(levels) <= MOST_LEVELS:
        raise UnreadableSlide(f"{name} says that it has {len(levels)} levels.")
    for level in levels:
        width, height = level.width, level.height
        if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE):
            raise UnreadableSlide(
                f"{name} says that it has {width} x {height} pixels, which is more "
                f"than {MOST_SIDE} on a side."
            )
        if width * height > MOST_PIXELS:
            raise UnreadableSlide(
                f"{name} says that it has {width} x {height} pixels, which is too many."
            )
        tile = level.tile_width, level.tile_height
        if not (min(tile) > 0 and max(tile) <= LARGEST_TILE):
            raise UnreadableSlide(
                f"{name} has tiles of {tile[0]} x {tile[1]} pixels, "
                f"which is more than {LARGEST_TILE} on a side."
            )
