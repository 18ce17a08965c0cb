"""Nuclei in a stained section: found, split where they touch, measured one by one.

The amounts of the two stains come from colour deconvolution (stains.py). A nucleus is
where the nuclear stain, smoothed, is above a threshold: Otsu's, over the area that is
looked at, within bounds. Nuclei that touch are split by a watershed on the distance to
the edge (Vincent and Soille, "Watersheds in digital spaces", IEEE Trans Pattern Anal
Mach Intell 13 (1991) 583-598), flooded from the distance's peaks.

The work goes tile by tile. Each tile is read with a halo that is wider than any clump's
reach, and a nucleus counts for the tile that holds its centroid: so no tile's edge cuts
a nucleus, none counts twice, and the count does not depend on the tiles.

Bounds: nuclei of 3 to 20 µm. Crowded, overlapping nuclei in thick sections are
under-counted, as by eye; so are those in cytoplasm that is as dark as other nuclei (on
a public slide about a fifth, in the basal epithelium of skin). Blurred places lose pale
nuclei: look at the focus map first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from theatrum.node import Context, Polygon
from theatrum.nodes.pieces import otsu, smaller_pieces
from theatrum.nodes.raster import TILE, Box, Mask, Raster
from theatrum.nodes.stains import Amounts, StainSet, amounts

HALO_UM = 48.0
"""Read around each tile: twice the widest nucleus and more."""

LEAST_DENSITY, MOST_DENSITY = 0.12, 0.6
"""Bounds of the threshold for nuclear stain, in optical density."""

_BINS = 256
_TOP_DENSITY = 2.0


@dataclass(frozen=True)
class Look:
    """What counts as a nucleus.

    Attributes
    ----------
    stains
        What the section is stained with.
    smallest_um2, largest_um2
        Other pieces are left out.
    radius_um
        Peaks closer than this are one nucleus.
    """

    stains: StainSet
    smallest_um2: float = 12.0
    largest_um2: float = 400.0
    radius_um: float = 2.5


@dataclass(frozen=True)
class Nuclei:
    """What was found, one row each, in the order of their places.

    Attributes
    ----------
    points
        (n, 2) centroids in level-0 pixels.
    first, second
        (n,) mean amounts of the two stains over each nucleus, in optical density.
    areas_um2
        (n,)
    """

    points: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]
    areas_um2: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)


def find_nuclei(
    raster: Raster,
    areas: Sequence[Polygon],
    look: Look,
    context: Context,
    *,
    edge: int = TILE,
) -> Nuclei:
    """Return the nuclei whose centroids lie in any of the areas.

    Parameters
    ----------
    areas
        Level-0 pixels; they do not overlap.
    edge
        Of a tile in raster pixels: the answer does not depend on it, memory does.
    """
    wanted = _tiles(raster, areas, edge)
    threshold = _threshold(raster, areas, wanted, look, context.part(0, 0.3))
    found: list[npt.NDArray[np.float64]] = [np.empty((0, 5))]
    counting = context.part(0.3, 1)
    for done, tile in enumerate(wanted):
        counting.progress(done / len(wanted), "counting nuclei")
        rows = _in_tile(raster, tile, threshold, look)
        if len(rows):
            found.append(rows[_inside(raster, areas, tile, rows[:, :2])])
    every = np.concatenate(found)
    # By place: neither the tiles nor their order show.
    every = every[np.lexsort((every[:, 0], every[:, 1]))]
    return Nuclei(
        every[:, :2] * raster.downsample, every[:, 2], every[:, 3], every[:, 4]
    )


def _tiles(raster: Raster, areas: Sequence[Polygon], edge: int) -> list[Box]:
    """Return the tiles that hold a part of an area."""
    tiles = {tile for area in areas for tile in _around(raster, area, edge)}
    return sorted(tiles, key=lambda tile: (tile.top, tile.left))


def _around(raster: Raster, area: Polygon, edge: int) -> list[Box]:
    around = raster.around(area)
    # Whole tiles of the grid, so that two areas in one tile share it.
    left, top = around.left // edge * edge, around.top // edge * edge
    right = min(raster.box.right, math.ceil(around.right / edge) * edge)
    bottom = min(raster.box.bottom, math.ceil(around.bottom / edge) * edge)
    return [
        tile
        for tile in raster.tiles(Box(left, top, right, bottom), edge)
        if raster.mask(area, tile).any()
    ]


def _threshold(
    raster: Raster,
    areas: Sequence[Polygon],
    tiles: Sequence[Box],
    look: Look,
    context: Context,
) -> float:
    """Return the density of nuclear stain that parts nuclei from the rest."""
    histogram = np.zeros(_BINS, np.int64)
    for done, tile in enumerate(tiles):
        context.progress(done / len(tiles), "looking at the stain")
        density = _nuclear(raster, tile, look)[0]
        for area in areas:
            mask = raster.mask(area, tile)
            bins = np.minimum(density[mask] * (_BINS / _TOP_DENSITY), _BINS - 1)
            histogram += np.bincount(bins.astype(np.int64), minlength=_BINS)
    threshold = (otsu(histogram) + 1) * (_TOP_DENSITY / _BINS)
    return min(max(threshold, LEAST_DENSITY), MOST_DENSITY)


def _nuclear(
    raster: Raster, tile: Box, look: Look, halo: int | None = None
) -> tuple[Amounts, Amounts, Amounts]:
    """Return smoothed nuclear stain, and both stains, of a tile.

    DAB on a nuclear antigen stains nuclei as haematoxylin does, eosin does not. A
    Gaussian of 0.75 µm smooths it, so that chromatin makes no edge.
    """
    from scipy import ndimage

    sigma = 0.75 / raster.mpp
    reach = math.ceil(4 * sigma) + 1
    margin = reach if halo is None else halo
    first, second = amounts(raster.read(tile.grown(margin)), look.stains)
    nuclear = first + second if look.stains == "h-dab" else first
    smooth = ndimage.gaussian_filter(nuclear, sigma, truncate=4, mode="nearest")
    if halo is None:
        inner = slice(reach, -reach)
        smooth = smooth[inner, inner]
    return smooth, first, second


def _in_tile(
    raster: Raster, tile: Box, threshold: float, look: Look
) -> npt.NDArray[np.float64]:
    """Return rows (x, y, first, second, area) of the nuclei centred in a tile.

    x and y are raster pixels of the slide.
    """
    from scipy import ndimage

    halo = math.ceil(HALO_UM / raster.mpp)
    smooth, first, second = _nuclear(raster, tile, look, halo)
    mask = smooth > threshold
    pinhole = look.smallest_um2 / raster.mpp**2
    mask |= smaller_pieces(~mask, pinhole, touching_edge=False)
    labels = _split(ndimage.binary_opening(mask), look.radius_um / raster.mpp)
    count = int(labels.max(initial=0))
    if count == 0:
        return np.empty((0, 5))
    flat = labels.ravel()
    pixels = np.bincount(flat, minlength=count + 1)[1:]
    sums = [
        np.bincount(flat, weights=stain.ravel(), minlength=count + 1)[1:]
        for stain in (first, second)
    ]
    areas_um2 = pixels * raster.mpp**2
    grown = tile.grown(halo)
    row, column = np.nonzero(labels)
    number = labels[row, column]
    # Sums of places on the slide, which are exact; offsets added to means are not, and
    # the tile would show in the last digit.
    x = np.bincount(number, column + (grown.left + 0.5), count + 1)[1:] / pixels
    y = np.bincount(number, row + (grown.top + 0.5), count + 1)[1:] / pixels
    kept = (
        (areas_um2 >= look.smallest_um2)
        & (areas_um2 <= look.largest_um2)
        & (x >= tile.left)
        & (x < tile.right)
        & (y >= tile.top)
        & (y < tile.bottom)
    )
    rows = np.stack([x, y, sums[0] / pixels, sums[1] / pixels, areas_um2], axis=1)
    return np.asarray(rows[kept], dtype=np.float64)


def _split(mask: Mask, radius: float) -> npt.NDArray[np.int32]:
    """Return one label for each nucleus of a mask; `radius` in its pixels."""
    from scipy import ndimage
    from skimage import feature, segmentation

    peak_local_max: Any = feature.peak_local_max  # scikit-image has no types here
    watershed: Any = segmentation.watershed
    distance = ndimage.distance_transform_edt(mask)
    # The grid makes false peaks along a straight edge: a little smoothing, none left.
    hills = ndimage.gaussian_filter(distance, max(1.0, radius / 4), truncate=3)
    peaks = peak_local_max(
        hills,
        min_distance=max(1, round(radius)),
        labels=mask.astype(np.int32),
        exclude_border=False,
    )
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: npt.NDArray[np.int32] = watershed(-hills, seeds, mask=mask)
    return labels


def _inside(
    raster: Raster,
    areas: Sequence[Polygon],
    tile: Box,
    points: npt.NDArray[np.float64],
) -> Mask:
    """Return which points, in raster pixels, lie in the pixels of any of the areas."""
    covered = np.zeros((tile.height, tile.width), bool)
    for area in areas:
        covered |= raster.mask(area, tile)
    column = np.floor(points[:, 0]).astype(np.int64) - tile.left
    row = np.floor(points[:, 1]).astype(np.int64) - tile.top
    inside: Mask = covered[row, column]
    return inside
