"""A slide as one grid of pixels at one scale, read tile by tile.

A raster is a rung of the slide's ladder, never a scale in between: so each of its
pixels is the same whatever rectangle it is read with, and what is computed of it does
not depend on how the slide was cut into tiles.

Planes: `l0_` level-0 pixels of the full slide; `r_` pixels of the raster, whose corner
is the slide's: r = l0 / downsample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theatrum.node import Image, Polygon
from theatrum.node.pixels import Pixels
from theatrum.node.shapes import Ring

Mask = npt.NDArray[np.bool_]

ASSUMED_MPP = 0.5
"""Micrometres per level-0 pixel where the slide does not say: a scan at 20x."""

TILE = 1024
"""Side of a tile in raster pixels, without its halo."""


@dataclass(frozen=True)
class Box:
    """A rectangle in raster pixels; right and bottom are not in it any more."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Raster pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Raster pixels."""
        return self.bottom - self.top

    def grown(self, by: int) -> Box:
        """Return the box with `by` more pixels at each side, if need be outside."""
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)


@dataclass(frozen=True)
class Raster:
    """One rung of a slide.

    Attributes
    ----------
    downsample
        Level-0 pixels that one of its pixels spans.
    mpp
        Micrometres per pixel of the raster (mean of both ways); assumed where
        `known` is False.
    """

    image: Image
    level: int
    downsample: float
    mpp: float
    known: bool

    @property
    def box(self) -> Box:
        """All of it; a last pixel that is only in part on the slide is in it."""
        return Box(
            0,
            0,
            math.ceil(self.image.width / self.downsample),
            math.ceil(self.image.height / self.downsample),
        )

    @property
    def pixel_mm2(self) -> float | None:
        """Area of one pixel; None where the slide does not say its scale."""
        per_l0 = l0_pixel_mm2(self.image)
        return None if per_l0 is None else per_l0 * self.downsample**2

    def read(self, box: Box) -> Pixels:
        """Return (height, width, 3) RGB; outside the slide it is background."""
        step = self.downsample
        region = self.image.region(
            box.left * step,
            box.top * step,
            box.width * step,
            box.height * step,
            level=self.level,
        )
        return np.asarray(region, dtype=np.uint8)

    def tiles(self, box: Box, edge: int = TILE) -> list[Box]:
        """Return the tiles that cover a box, on a grid whose corner is the slide's."""
        if box.width <= 0 or box.height <= 0:
            return []
        return [
            Box(
                max(left, box.left),
                max(top, box.top),
                min(left + edge, box.right),
                min(top + edge, box.bottom),
            )
            for top in range(box.top // edge * edge, box.bottom, edge)
            for left in range(box.left // edge * edge, box.right, edge)
        ]

    def around(self, polygon: Polygon) -> Box:
        """Return the part of the raster that a polygon can touch."""
        left, top, right, bottom = (edge / self.downsample for edge in polygon.bounds)
        whole = self.box
        return Box(
            max(whole.left, math.floor(left)),
            max(whole.top, math.floor(top)),
            max(min(whole.right, math.ceil(right)), max(whole.left, math.floor(left))),
            max(min(whole.bottom, math.ceil(bottom)), max(whole.top, math.floor(top))),
        )

    def mask(self, polygon: Polygon, box: Box) -> Mask:
        """Return which pixels of a box have their centre in a polygon.

        Even-odd, and of an edge that two polygons share each centre falls to one of
        them only: what is counted in neighbouring areas adds up.
        """
        toggles = np.zeros((box.height, box.width + 1), np.uint8)
        for ring in (polygon.exterior, *polygon.holes):
            _toggle(toggles, ring / self.downsample - (box.left, box.top))
        inside: Mask = np.cumsum(toggles, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1
        return inside

    def polygon_to_level0(self, polygon: Polygon) -> Polygon:
        """Return a polygon of raster pixels in level-0 pixels, no further than the
        slide: of the last pixel only a part may be on it."""
        limit = self.image.width, self.image.height

        def scaled(ring: Ring) -> Ring:
            return np.minimum(ring * self.downsample, limit)

        return Polygon(
            scaled(polygon.exterior), [scaled(hole) for hole in polygon.holes]
        )


def raster_at(image: Image, mpp: float, most_pixels: int | None = None) -> Raster:
    """Return the rung whose scale is nearest to the one wished, in micrometres.

    With `most_pixels` a coarser one where that would have more.
    """
    known = image.mpp_x is not None and image.mpp_y is not None
    l0_mpp = math.sqrt(image.mpp_x * image.mpp_y) if known else ASSUMED_MPP  # type: ignore[operator]  # both are known
    nearest = min(
        range(len(image.levels)),
        key=lambda k: abs(math.log(image.levels[k].downsample * l0_mpp / mpp)),
    )
    raster = _rung(image, nearest, l0_mpp, known)
    while (
        most_pixels is not None
        and raster.box.width * raster.box.height > most_pixels
        and raster.level + 1 < len(image.levels)
    ):
        raster = _rung(image, raster.level + 1, l0_mpp, known)
    return raster


def l0_pixel_mm2(image: Image) -> float | None:
    """Return the area of a level-0 pixel; None where the slide does not say it."""
    if image.mpp_x is None or image.mpp_y is None:
        return None
    return image.mpp_x * image.mpp_y * 1e-6


def _rung(image: Image, level: int, l0_mpp: float, known: bool) -> Raster:
    downsample = float(image.levels[level].downsample)
    return Raster(image, level, downsample, l0_mpp * downsample, known)


def _toggle(toggles: npt.NDArray[np.uint8], ring: Ring) -> None:
    """Mark where each row of pixel centres crosses a ring."""
    rows, columns = toggles.shape
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y1 == y2:
            continue
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        # Centres lie at row + 0.5; an edge has its upper end, not its lower one.
        first = max(0, math.ceil(y1 - 0.5))
        last = min(rows, math.ceil(y2 - 0.5))
        if first >= last:
            continue
        row = np.arange(first, last)
        x = x1 + (row + 0.5 - y1) * ((x2 - x1) / (y2 - y1))
        column = np.clip(np.ceil(x - 0.5), 0, columns - 1).astype(np.int64)
        toggles[row, column] += 1
