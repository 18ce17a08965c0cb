"""The pyramid of an imported image: a tiled TIFF, without loss, each level half.

Every plane is a page and its smaller levels are the page's SubIFDs. Tiles are of the
grid that the service shows, so a tile costs one read and one decode.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tile_server.readers.chunks import ChunkCache
from tile_server.readers.tiff_segments import TiffSegments

Array = npt.NDArray[Any]

TILE = 512
# Of one plane, which is held in memory while its pyramid is made, with half as much
# again for the smaller levels: 268 million pixels, 1.2 GB for 8 bit RGB.
MOST_PIXELS = 2**28
_BAND = 64


def write_pyramid(path: Path, planes: Iterable[Array]) -> None:
    """Write planes of one shape, (height, width) or (height, width, 3), to `path`."""
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for plane in planes:
            levels = [plane]
            while max(levels[-1].shape[:2]) > TILE:
                levels.append(_halved(levels[-1]))
            for number, level in enumerate(levels):
                tiff.write(
                    level,
                    tile=(TILE, TILE),
                    photometric="rgb" if level.ndim == 3 else "minisblack",
                    compression="zstd",
                    compressionargs={"level": 3},
                    predictor=level.dtype.kind in "iu",
                    subifds=len(levels) - 1 if number == 0 else None,
                    subfiletype=1 if number else 0,
                    metadata=None,
                    software=False,
                    maxworkers=1,
                )


def read_pyramid(path: Path, chunks: ChunkCache) -> TiffSegments:
    """The segments of a file that `write_pyramid` wrote."""
    with tifffile.TiffFile(path) as tiff:
        pages = [page.keyframe for page in _whole(tiff.pages)]
        below = [_whole(page.pages or ()) for page in pages]
        levels = [pages, *zip(*below, strict=True)]
        return TiffSegments(path, levels, chunks)


def _whole(pages: Iterable[Any]) -> list[tifffile.TiffPage]:
    return [page for page in pages if isinstance(page, tifffile.TiffPage)]


def _halved(level: Array) -> Array:
    """Means of blocks of two by two; an odd last row or column counts twice."""
    height, width = level.shape[:2]
    half = np.empty((-(-height // 2), -(-width // 2), *level.shape[2:]), level.dtype)
    whole_numbers = level.dtype.kind in "iu"
    for top in range(0, height, _BAND):
        band = level[top : top + _BAND]
        odd = [(0, band.shape[0] % 2), (0, width % 2), (0, 0)][: level.ndim]
        padded = np.pad(band, odd, "edge").astype(np.float64)
        mean = padded[0::2, 0::2] + padded[1::2, 0::2]
        mean += padded[0::2, 1::2]
        mean += padded[1::2, 1::2]
        mean /= 4
        half[top // 2 : top // 2 + mean.shape[0]] = (
            np.rint(mean) if whole_numbers else mean
        )
    return half
