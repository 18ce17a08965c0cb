"""Statistics and histograms of a plane, from a level that is coarse enough to be quick.

The whole plane is read where a stored level is small; a slide that has only a large one
is sampled in blocks spread evenly over it, always the same ones.

Coarse levels are averages of finer ones, so their extremes lie inside those of level 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tile_server.readers.planes import Numbers, Plane, PlaneReader, Window

# Enough for a percentile of one in a thousand, and a small part of a second to read.
_FEWEST_PIXELS = 2**16
_MOST_PIXELS = 2**22
_BLOCK = 256
PERCENTILES = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)
# Dark: the empty background. Bright: one pixel in 500 may be dust or a hot spot.
_DARK, _BRIGHT = 1.0, 99.8
_WINDOW_DEPTHS = 3


@dataclass(frozen=True)
class Statistics:
    """What the numbers of a plane are like; `level` is the stored level looked at."""

    level: int
    pixels: int
    minimum: float
    maximum: float
    mean: float
    deviation: float
    percentiles: dict[str, float]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Histogram:
    """How many pixels lie in each of equally wide bins between two numbers."""

    level: int
    minimum: float
    maximum: float
    counts: tuple[int, ...]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def statistics(reader: PlaneReader, plane: Plane) -> Statistics:
    """The statistics of a plane; raises DamagedTile."""
    level = _level(reader)
    numbers = _sample(reader, level, plane)
    shares = np.percentile(numbers, PERCENTILES)
    return Statistics(
        level,
        numbers.size,
        float(numbers.min()),
        float(numbers.max()),
        float(numbers.mean(dtype=np.float64)),
        float(numbers.std(dtype=np.float64)),
        {
            f"{share:g}": float(value)
            for share, value in zip(PERCENTILES, shares, strict=True)
        },
    )


def histogram(reader: PlaneReader, plane: Plane, bins: int) -> Histogram:
    """The histogram of a plane; raises DamagedTile.

    Whole numbers get bins of whole width, so that no bin is empty by arithmetic alone.
    """
    level = _level(reader)
    numbers = _sample(reader, level, plane)
    low, high = float(numbers.min()), float(numbers.max())
    if numbers.dtype.kind in "iub":
        width = max(1, -(-int(high - low + 1) // bins))
        low, high = low - 0.5, low - 0.5 + width * bins
    elif low == high:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(numbers, bins, (low, high))
    return Histogram(level, low, high, tuple(int(count) for count in counts))


def automatic_window(reader: PlaneReader, channel: int) -> Window:
    """The window of a channel: its percentiles over three depths of the first time.

    One window for all depths, so that leafing through them does not flicker. Raises
    DamagedTile.
    """
    level, depths = _level(reader), reader.planes.depths
    chosen = sorted({depths * (2 * n + 1) // 6 for n in range(_WINDOW_DEPTHS)})
    numbers = np.concatenate(
        [_sample(reader, level, Plane(channel, z)) for z in chosen]
    )
    low, high = (float(one) for one in np.percentile(numbers, (_DARK, _BRIGHT)))
    if high <= low:
        low, high = float(numbers.min()), float(numbers.max())
    return (low, high) if high > low else (low, low + 1.0)


def _level(reader: PlaneReader) -> int:
    """The coarsest stored level with enough pixels, else the finest."""
    large = [
        number
        for number, level in enumerate(reader.levels)
        if level.width * level.height >= _FEWEST_PIXELS
    ]
    return large[-1] if large else 0


def _sample(reader: PlaneReader, number: int, plane: Plane) -> npt.NDArray[Any]:
    """The finite numbers of a level, in one row; at least one."""
    level = reader.levels[number]
    size = level.width, level.height
    if level.width * level.height <= _MOST_PIXELS:
        parts: list[Numbers] = [reader.read_plane(number, 0, 0, size, plane=plane)]
    else:
        size = min(_BLOCK, level.width), min(_BLOCK, level.height)
        blocks = _MOST_PIXELS // (_BLOCK * _BLOCK) // 4
        across = max(1, min(round((blocks * level.width / level.height) ** 0.5), 64))
        down = max(1, min(blocks // across, 64))
        parts = [
            reader.read_plane(number, int(x), int(y), size, plane=plane)
            for y in np.linspace(0, level.height - size[1], down)
            for x in np.linspace(0, level.width - size[0], across)
        ]
    numbers = np.concatenate([part.ravel() for part in parts])
    if numbers.dtype.kind == "f":
        numbers = numbers[np.isfinite(numbers)]
    return numbers if numbers.size else np.zeros(1, numbers.dtype)
