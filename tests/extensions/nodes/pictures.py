"""Slides drawn in code, of which the truth is known: areas, nuclei, focus.

A `Drawn` slide computes its pixels where it is read, so that it can be larger than any
memory; it counts what is read of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from theatrum.node import ArrayImage, Polygon
from theatrum.node.pixels import Pixels, Rung
from theatrum.nodes.stains import colour

GLASS = (243, 241, 240)
TISSUE = (205, 140, 190)
MPP = 0.5


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    """An upright rectangle."""
    return Polygon([(left, top), (right, top), (right, bottom), (left, bottom)])


def noisy(array: npt.NDArray[np.int16], amount: float = 2.0, seed: int = 1) -> Pixels:
    """A picture with the noise of a camera."""
    height, width = array.shape[:2]
    patch = np.random.default_rng(seed).normal(0, amount, (256, 256, 3))
    noise = np.tile(
        np.rint(patch).astype(np.int16), (height // 256 + 1, width // 256 + 1, 1)
    )
    return (array + noise[:height, :width]).clip(0, 255).astype(np.uint8)


def blank(width: int, height: int) -> npt.NDArray[np.int16]:
    """Glass."""
    return np.full((height, width, 3), GLASS, np.int16)


def draw_disk(
    array: npt.NDArray[np.int16],
    centre: tuple[float, float],
    radius: float,
    colour_of_disk: Sequence[int],
) -> None:
    """Draw a disk: the pixels whose centres lie in it."""
    x, y = centre
    left, top = max(0, int(x - radius - 1)), max(0, int(y - radius - 1))
    part = array[top : int(y + radius + 2), left : int(x + radius + 2)]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    away = (columns + left + 0.5 - x) ** 2 + (rows + top + 0.5 - y) ** 2
    part[away <= radius * radius] = colour_of_disk


@dataclass(frozen=True)
class Section:
    """A section with known nuclei."""

    image: ArrayImage
    centres: npt.NDArray[np.float64]
    positive: npt.NDArray[np.bool_]


def section(
    width: int = 900,
    height: int = 700,
    *,
    pitch: int = 32,
    every: int = 4,
    pairs: bool = False,
    seed: int = 1,
    mpp: float | None = MPP,
) -> Section:
    """A haematoxylin-DAB section, a nucleus of 3 to 4.5 µm radius every `pitch` pixels.

    Every `every`-th is positive. With `pairs`, each has a second beside it that it
    touches and overlaps by a pixel.
    """
    rng = np.random.default_rng(seed)
    array = blank(width, height)
    centres, positive = [], []
    places = [
        (x, y)
        for y in range(pitch, height - pitch // 2, pitch)
        for x in range(pitch, width - pitch // 2, pitch)
    ]
    for number, (x, y) in enumerate(places):
        at = x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)
        radius = rng.uniform(6, 9) if not pairs else 6.0
        brown = number % every == 0
        tint = colour(0.3, 0.7, "h-dab") if brown else colour(0.6, 0.02, "h-dab")
        both = [at] if not pairs else [at, (at[0] + 2 * radius - 1, at[1])]
        for one in both:
            draw_disk(array, one, radius, tint)
            centres.append(one)
            positive.append(brown)
    image = ArrayImage(noisy(array, 4.0, seed), mpp)
    return Section(image, np.array(centres), np.array(positive))


@dataclass
class Drawn:
    """A slide whose pixels are computed from their places.

    `paint` takes level-0 x and y of pixels' centres and returns their colours.
    """

    width: int
    height: int
    paint: Callable[
        [npt.NDArray[np.float64], npt.NDArray[np.float64]], npt.NDArray[np.uint8]
    ]
    mpp: float = MPP
    rungs: int = 6
    pixels_read: int = field(default=0, init=False)
    most_at_once: int = field(default=0, init=False)

    @property
    def mpp_x(self) -> float | None:
        return self.mpp

    @property
    def mpp_y(self) -> float | None:
        return self.mpp

    @property
    def levels(self) -> tuple[Rung, ...]:
        return tuple(Rung(2.0**k) for k in range(self.rungs))

    def region(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        level: int | None = None,
        mpp: float | None = None,
    ) -> Pixels:
        assert mpp is None, "an analysis reads rungs, never scales in between"
        step = 2.0 ** (level or 0)
        columns, rows = round(width / step), round(height / step)
        self.pixels_read += columns * rows
        self.most_at_once = max(self.most_at_once, columns * rows)
        l0_x = x + (np.arange(columns) + 0.5) * step
        l0_y = y + (np.arange(rows) + 0.5) * step
        painted = self.paint(l0_x[None, :], l0_y[:, None])
        outside = (
            (l0_x[None, :] < 0)
            | (l0_x[None, :] > self.width)
            | (l0_y[:, None] < 0)
            | (l0_y[:, None] > self.height)
        )
        return np.where(outside[..., None], np.uint8(255), painted)


def large_tissue(width: int, height: int) -> Drawn:
    """A slide with one ellipse of tissue over half its width and height."""

    def paint(
        x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.uint8]:
        away = ((x - width / 2) / (width / 4)) ** 2
        away = away + ((y - height / 2) / (height / 4)) ** 2
        return np.where(
            (away <= 1)[..., None], np.uint8(TISSUE), np.uint8(GLASS)
        ).astype(np.uint8)

    return Drawn(width, height, paint, rungs=9)
