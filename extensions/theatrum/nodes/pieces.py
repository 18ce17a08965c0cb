"""From grey values to pieces: where two classes part, and which pieces are small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theatrum.nodes.raster import Mask


def otsu(histogram: npt.NDArray[np.int64]) -> int:
    """Return the last bin of the lower class, so that the classes differ most."""
    bins = np.arange(len(histogram))
    below = np.cumsum(histogram).astype(np.float64)
    sums = np.cumsum(histogram * bins).astype(np.float64)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return int(np.argmax(np.nan_to_num(between)))


def smaller_pieces(mask: Mask, pixels: float, *, touching_edge: bool) -> Mask:
    """Return the pieces of fewer pixels; at will only those that touch no edge."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    small = np.bincount(labels.ravel(), minlength=count + 1) < pixels
    small[0] = False
    if not touching_edge:
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            small[edge] = False
    found: Mask = small[labels]
    return found
