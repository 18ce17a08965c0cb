"""How much tissue is on a slide, and where it ends.

Glass lets all light through and dust takes it from all colours alike; stained tissue
takes more of one colour than of another. So the slide is read at a coarse scale, and a
pixel is tissue where the optical densities of its colours, measured from the glass of
this slide, differ by more than a threshold. The threshold is Otsu's ("A threshold
selection method from gray-level histograms", IEEE Trans Syst Man Cybern 9 (1979)
62-66), kept within bounds, because Otsu's always finds two classes, also on a slide
that is empty or full. Opening and closing smooth the result; specks and pinholes go.

Bounds: bright-field slides only. Pen on the glass is coloured and counts as tissue;
fat and unstained tissue do not. The densities that are compared are those after a
median over 3 x 3 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from theatrum.node import Context, Image, Measure, Polygon, Resources, node
from theatrum.node.pixels import Pixels
from theatrum.nodes.outlines import outlines, simplified
from theatrum.nodes.pieces import otsu, smaller_pieces
from theatrum.nodes.raster import TILE, Mask, Raster, raster_at

MOST_PIXELS = 2**24
"""Of the raster: 50 MB of colours, a slide of 25 mm by 43 mm at 8 µm."""

LEAST_DIFFERENCE, MOST_DIFFERENCE = 0.03, 0.09
"""Bounds of the threshold, in optical density: paler is glass, stronger is tissue."""

_STEPS = 250
_PER_STEP = 0.004  # in optical density: the histogram reaches to 1
_BAND_ROWS = 512


@dataclass(frozen=True)
class TissueRule:
    """What is tissue on one slide.

    Attributes
    ----------
    glass
        Red, green and blue of the slide where nothing is.
    threshold
        In optical density: how much the colours differ at least.
    """

    glass: tuple[int, int, int]
    threshold: float

    def differences(self, pixels: Pixels) -> npt.NDArray[np.uint8]:
        """Return how much the colours' densities differ, in steps of 0.004."""
        values = np.maximum(np.arange(256), 1)
        spread: list[npt.NDArray[np.float32]] = []
        for channel, glass in enumerate(self.glass):
            table = np.maximum(np.log10(glass / values), 0).astype(np.float32)
            spread.append(table[pixels[..., channel]])
        most = np.maximum(np.maximum(spread[0], spread[1]), spread[2])
        least = np.minimum(np.minimum(spread[0], spread[1]), spread[2])
        steps = np.rint((most - least) / _PER_STEP)
        return np.minimum(steps, _STEPS - 1).astype(np.uint8)

    def mask(self, pixels: Pixels) -> Mask:
        """Return which pixels are tissue, each by itself."""
        found: Mask = self.differences(pixels) > round(self.threshold / _PER_STEP)
        return found


@dataclass(frozen=True)
class TissueArea:
    """Where the tissue of a slide is."""

    area_mm2: Annotated[
        float | None, Measure(unit="mm2", title="Tissue area", digits=2)
    ]
    """None where the slide does not say its scale."""
    share: Annotated[float, Measure(unit="%", title="Share of the slide", digits=1)]
    pieces: Annotated[int, Measure(title="Pieces")]
    outline: Sequence[Polygon]
    """The largest piece first, in level-0 pixels."""


@node(
    name="tissue-area",
    version="1.0.0",
    title="Tissue area",
    resources=Resources(memory_bytes=500_000_000, seconds=120),
)
def tissue_area(
    image: Image,
    *,
    mpp: Annotated[float, Field(ge=1, le=64)] = 8.0,
    smallest_mm2: Annotated[float, Field(ge=0, le=100)] = 0.02,
    smallest_hole_mm2: Annotated[float, Field(ge=0, le=100)] = 0.02,
    simplify_um: Annotated[float, Field(ge=0, le=200)] = 8.0,
    context: Context | None = None,
) -> TissueArea:
    """Find the tissue of a whole slide: its area and its outline.

    Parameters
    ----------
    image
        A bright-field slide.
    mpp
        Micrometres per pixel to look at it with; the nearest rung of the slide is
        taken, a coarser one on very large slides.
    smallest_mm2
        Pieces that are smaller are left out.
    smallest_hole_mm2
        Holes that are smaller are filled.
    simplify_um
        How far the outline may be off its place to have fewer corners; the area is
        measured before.
    """
    context = context or Context()
    raster = raster_at(image, mpp, MOST_PIXELS)
    pixels = read_all(raster, context.part(0, 0.7))
    rule = learned(pixels)
    context.progress(0.75, "looking for tissue")
    mask = tissue_mask(
        pixels, rule, raster.mpp, smallest_mm2=smallest_mm2, hole_mm2=smallest_hole_mm2
    )
    del pixels
    context.progress(0.9, "drawing the outline")
    tolerance_px = simplify_um / raster.mpp * raster.downsample
    pieces = [
        simplified(raster.polygon_to_level0(piece), tolerance_px)
        for piece in outlines(mask)
    ]
    context.progress(1.0, "done")
    covered = int(mask.sum())
    return TissueArea(
        area_mm2=None if raster.pixel_mm2 is None else covered * raster.pixel_mm2,
        share=100 * covered / mask.size,
        pieces=len(pieces),
        outline=pieces,
    )


def read_all(
    raster: Raster, context: Context, edge: int = TILE, text: str = "reading the slide"
) -> Pixels:
    """Return a whole raster, read by tiles; tells how far it is."""
    whole = np.empty((raster.box.height, raster.box.width, 3), np.uint8)
    tiles = raster.tiles(raster.box, edge)
    for done, tile in enumerate(tiles):
        context.progress(done / len(tiles), text)
        whole[tile.top : tile.bottom, tile.left : tile.right] = raster.read(tile)
    return whole


def learned(pixels: Pixels) -> TissueRule:
    """Return the rule that fits the slide that these pixels show."""
    whole = np.zeros((3, 256), np.int64)
    for rows in _bands(pixels):
        for channel in range(3):
            counts = np.bincount(pixels[rows, :, channel].ravel(), minlength=256)
            whole[channel] += counts
    glass = tuple(_glass(counts) for counts in whole)
    rule = TissueRule((glass[0], glass[1], glass[2]), 0.0)
    histogram = np.zeros(_STEPS, np.int64)
    for rows in _bands(pixels):
        histogram += np.bincount(
            rule.differences(pixels[rows]).ravel(), minlength=_STEPS
        )
    threshold = otsu(histogram) * _PER_STEP
    bounded = min(max(threshold, LEAST_DIFFERENCE), MOST_DIFFERENCE)
    return TissueRule(rule.glass, bounded)


def tissue_mask(
    pixels: Pixels,
    rule: TissueRule,
    mpp: float,
    *,
    smallest_mm2: float,
    hole_mm2: float,
) -> Mask:
    """Return the tissue of a raster: smoothed, without specks and pinholes."""
    from scipy import ndimage

    differences = np.empty(pixels.shape[:2], np.uint8)
    for rows in _bands(pixels):
        differences[rows] = rule.differences(pixels[rows])
    differences = ndimage.median_filter(differences, size=3, mode="nearest")
    mask = differences > round(rule.threshold / _PER_STEP)
    disk = _disk(max(1, round(12 / mpp)))
    # Beyond the edge the tissue goes on as it is at the edge.
    padded = np.pad(mask, disk.shape[0], mode="edge")
    padded = ndimage.binary_closing(ndimage.binary_opening(padded, disk), disk)
    inner = slice(disk.shape[0], -disk.shape[0])
    mask = padded[inner, inner]
    pixel_mm2 = (mpp / 1000) ** 2
    holes = smaller_pieces(~mask, hole_mm2 / pixel_mm2, touching_edge=False)
    mask = mask | holes
    mask &= ~smaller_pieces(mask, smallest_mm2 / pixel_mm2, touching_edge=True)
    found: Mask = mask
    return found


def _glass(counts: npt.NDArray[np.int64]) -> int:
    """Return the value of glass in one colour.

    Glass is the brightest there is much of: where the brightest twentieth begins. Of
    a slide without glass that is pale tissue, so it is never taken for less than 200.
    """
    from_top = np.cumsum(counts[::-1])
    brightest = 255 - int(np.searchsorted(from_top, 0.05 * from_top[-1]))
    return max(200, brightest)


def _disk(radius: int) -> Mask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk: Mask = x * x + y * y <= radius * radius + radius
    return disk


def _bands(pixels: Pixels) -> list[slice]:
    return [
        slice(top, top + _BAND_ROWS) for top in range(0, pixels.shape[0], _BAND_ROWS)
    ]
