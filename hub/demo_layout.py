"""Where the demo slide's tissue lies: coarse maps of islands, layers and staining.

Islands of colon wall lie on glass. One cell of a map stands for ``MAP_PX`` level-0
pixels on each side. The depth below the mucosal surface decides between the layers:
mucosa, a thin muscle under it, submucosa, and the outer muscle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hub.demo_structures import FOLLICLE, FULL_WIDTH, VESSEL
from hub.demo_texture import Field

MAP_PX = 32
"""Level-0 pixels to one cell of the coarse maps."""


@dataclass(frozen=True)
class Island:
    """A piece of colon wall, in shares of the slide's width."""

    x: float
    y: float
    half_length: float
    half_breadth: float
    turn: float
    bend: float
    surface: float
    """Direction in which the mucosa faces, radians; see ``all_round``."""
    mucosa_px: float
    all_round: bool = False


ISLANDS = (
    Island(0.255, 0.215, 0.190, 0.150, -0.10, -0.35, -1.75, 1600),
    Island(0.700, 0.215, 0.150, 0.145, 0.15, -0.30, -1.40, 1400),
    Island(0.285, 0.570, 0.185, 0.105, 0.22, 0.30, 1.85, 1300),
    Island(0.770, 0.545, 0.185, 0.120, 0.38, -0.25, -1.0, 1500),
    Island(0.530, 0.635, 0.040, 0.028, 0.9, 0.0, 0.0, 9999, all_round=True),
    Island(0.925, 0.330, 0.038, 0.052, 0.3, 0.0, 0.0, 9999, all_round=True),
)


def noise(columns: int, rows: int, cells: float, rng: np.random.Generator) -> Field:
    """Smooth noise of unit spread whose hills are about ``cells`` map cells wide."""
    step = max(1.0, cells / 5)
    coarse = rng.standard_normal((int(rows / step) + 3, int(columns / step) + 3))
    smooth = ndimage.gaussian_filter(coarse.astype(np.float32), cells / 2.5 / step)
    fine = Image.fromarray(smooth).resize((columns, rows), Image.Resampling.BICUBIC)
    scaled: Field = np.array(fine) / smooth.std()
    return scaled


def drift(columns: int, rows: int, share: float, rng: np.random.Generator) -> Field:
    """Uneven staining: a factor around one, over hills of half to three millimetres."""
    broad = noise(columns, rows, 120, rng)
    local = noise(columns, rows, 26, rng)
    factor: Field = np.exp(share * (0.75 * broad + 0.6 * local))
    return np.clip(factor, 0.62, 1.5).astype(np.float32)


def layers(
    columns: int, rows: int, factor: float, rng: np.random.Generator
) -> tuple[Field, NDArray[np.uint8], Field]:
    """The coarse maps: signed distance to the rim, the layer, the fibres' direction.

    Distances are level-0 pixels, positive in tissue; layers number the textures.
    """
    x = (np.arange(columns, dtype=np.float32)[None, :] + 0.5) * MAP_PX
    y = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) * MAP_PX
    width = FULL_WIDTH * factor
    ragged = noise(columns, rows, 30 * factor + 2, rng) * 0.10
    ragged += noise(columns, rows, 9 * factor + 2, rng) * 0.035
    tissue = np.zeros((rows, columns), bool)
    layer = np.ones((rows, columns), np.uint8)
    along = np.zeros((rows, columns), np.float32)
    uneven = noise(columns, rows, 22 * factor + 2, rng)
    for island in ISLANDS:
        dx, dy = x - island.x * width, y - island.y * width
        cos, sin = np.cos(island.turn), np.sin(island.turn)
        u = (dx * cos + dy * sin) / (island.half_length * width)
        v = (dy * cos - dx * sin) / (island.half_breadth * width)
        v = v + island.bend * (u * u - 0.4)
        body = 1 - np.abs(u) ** 2.8 - np.abs(v) ** 2.8
        piece = body + 1.9 * ragged * (0.8 if island.all_round else 1.0) > 0
        tissue |= piece
        facing = dx * np.cos(island.surface) + dy * np.sin(island.surface)
        surface = ~piece & (facing > 0.25 * island.half_breadth * width)
        if island.all_round:
            surface = ~piece
        deep = ndimage.distance_transform_edt(~surface) * (MAP_PX / factor)
        deep = deep + 170 * uneven
        smooth = ndimage.gaussian_filter(deep, 12 * factor + 1)
        slope_y, slope_x = np.gradient(smooth)
        kinds = np.select(
            [
                deep < island.mucosa_px,
                deep < island.mucosa_px + 330,
                deep < island.mucosa_px + 1750,
            ],
            [0, 2, 1],
            2,
        ).astype(np.uint8)
        layer[piece] = kinds[piece]
        # Textures' fibres run down; turned so that they lie along the wall.
        along[piece] = np.arctan2(slope_y, slope_x)[piece]
    for centre, reach in ((FOLLICLE, 800.0), (VESSEL, 900.0)):
        away = np.hypot(x - centre[0] * factor, y - centre[1] * factor)
        layer[away < reach * factor] = 1
    # Continued onto the glass, so that the rim of a piece is of what it belongs to.
    _, (row, column) = ndimage.distance_transform_edt(~tissue, return_indices=True)
    return signed(tissue), layer[row, column], along[row, column]


def signed(part: NDArray[np.bool_]) -> Field:
    """Distance to the rim of ``part`` in level-0 pixels, positive inside."""
    within = ndimage.distance_transform_edt(part)
    within -= ndimage.distance_transform_edt(~part)
    distance: Field = (ndimage.gaussian_filter(within, 1.2) * MAP_PX).astype(np.float32)
    return distance
