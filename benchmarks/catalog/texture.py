"""Nodes that give one number, so that no disk is measured; one of them computes."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from theatrum.node import Array, node


@node(version="1.0.0", name="texture")
def texture(image: Array, *, turn: int = 0) -> float:
    """Sum up the detail at five scales; `turn` makes each order another one."""
    values = image.values.astype(np.float32)
    total = float(turn)
    for sigma in (1, 2, 3, 4, 5):
        total += float((values - ndimage.gaussian_filter(values, sigma)).std())
    return total


@node(version="1.0.0", name="brightest")
def brightest(image: Array, *, turn: int = 0) -> float:
    """Tell the brightest voxel, which costs next to nothing."""
    return float(image.values.max()) + turn
