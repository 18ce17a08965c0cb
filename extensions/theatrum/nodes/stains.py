"""Stains of a slide by colour deconvolution.

Light that passes a stain falls off exponentially with its amount (Lambert and Beer), so
optical densities of stains add up, and the amounts are found by inverting the matrix of
the stains' own densities: Ruifrok and Johnston, "Quantification of histochemical
staining by color deconvolution", Anal Quant Cytol Histol 23 (2001) 291-299. The vectors
are those of that paper. They fit common dyes, not every laboratory's: amounts are
comparable within one slide, and between slides of one laboratory and scanner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from theatrum.node.pixels import Pixels

Amounts = npt.NDArray[np.float32]
StainSet = Literal["h-dab", "h-e"]

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
DAB = (0.268, 0.570, 0.776)

VECTORS: Mapping[StainSet, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "h-dab": (HAEMATOXYLIN, DAB),
    "h-e": (HAEMATOXYLIN, EOSIN),
}
"""Optical density in red, green and blue of one unit of each stain."""

NAMES: Mapping[StainSet, tuple[str, str]] = {
    "h-dab": ("haematoxylin", "DAB"),
    "h-e": ("haematoxylin", "eosin"),
}

# Of every value that a pixel can have, white being 255; 0 counts as 1.
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def densities(pixels: Pixels) -> Amounts:
    """Return the optical density of each colour, 0 to 2.4."""
    density: Amounts = _DENSITY[pixels]
    return density


def amounts(pixels: Pixels, stains: StainSet) -> tuple[Amounts, Amounts]:
    """Return how much of the two stains is in each pixel, none below 0.

    In optical density along the stain's own vector. A third, perpendicular to both,
    takes what neither of them explains.
    """
    inverse = np.linalg.inv(_matrix(stains)).astype(np.float32)
    found: list[Amounts] = []
    for stain in (0, 1):
        # Colour by colour: a matrix product may round otherwise in another shape, and
        # so let a result depend on the tile.
        total = (_DENSITY * inverse[0, stain])[pixels[..., 0]]
        total += (_DENSITY * inverse[1, stain])[pixels[..., 1]]
        total += (_DENSITY * inverse[2, stain])[pixels[..., 2]]
        found.append(np.maximum(total, 0, out=total))
    return found[0], found[1]


def colour(first: float, second: float, stains: StainSet) -> tuple[int, int, int]:
    """Return the colour of given amounts of the two stains on white: the inverse."""
    density = np.array([first, second, 0]) @ _matrix(stains)
    red, green, blue = np.rint(255 * 10**-density).astype(int).tolist()
    return red, green, blue


def _matrix(stains: StainSet) -> npt.NDArray[np.float64]:
    first, second = (
        np.array(vector) / np.linalg.norm(vector) for vector in VECTORS[stains]
    )
    rest = np.cross(first, second)
    return np.stack([first, second, rest / np.linalg.norm(rest)])
