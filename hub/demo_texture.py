"""The demo slide's tissues, each a texture made from one photograph.

The photograph is ``skimage.data.immunohistochemistry()``: colon glands with FHL2 in
brown (DAB) and nuclei in blue (haematoxylin), 512 x 512 px, in scikit-image's wheel.
From it come three textures, all at the photograph's own scale:

- *glands*: the photograph itself;
- *stroma*: the connective tissue between its glands, continued to a square by image
  quilting (small patches, each cut to its neighbours along the path of least
  difference), so that it can stand alone in a submucosa;
- *muscle*: stroma drawn out along its fibres, denser and lightly brown.

A texture is a picture that mirrors at its rims. Besides red, green and blue it holds a
*weight* with which a pixel holds its ground against a neighbouring field: high in
glands, so that fields meet along the outlines of glands rather than across them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import data

GLASS = (243, 243, 242)
"""Colour of bare glass; the photograph's own white is brought to it."""

RIM = 240
"""Mirrored pixels of the photograph on each side of a texture."""

FINENESS = 2
"""A texture's pixels to one of the photograph's.

Twice as fine, so that a field may take the nearest pixel: seventeen times as fast in
Pillow as interpolating, and sharper than bilinear.
"""

Picture = NDArray[np.uint8]
Field = NDArray[np.float32]


@dataclass(frozen=True)
class Textures:
    """The three textures, and the photograph's colours that structures are drawn in."""

    glands: Image.Image
    stroma: Image.Image
    muscle: Image.Image
    connective: Picture
    """The quilted stroma without its mirrored rim, RGB."""


DENSITY = np.log(
    np.array(GLASS, np.float32)[:, None]
    / np.maximum(np.arange(256, dtype=np.float32), 4)
).clip(0)
"""Optical density (natural logarithm) against bare glass, by channel and value."""


def plane_density(plane: Picture, channel: int) -> Field:
    """Optical density of one channel's values."""
    # np.take is three times as fast on a contiguous index as on a view.
    absorbed: Field = DENSITY[channel].take(np.ascontiguousarray(plane))
    return absorbed


def plane_colour(absorbed: Field, channel: int) -> Picture:
    """The values of one channel after passing ``absorbed``, which is used up."""
    np.negative(absorbed, out=absorbed)
    np.exp(absorbed, out=absorbed)
    absorbed *= np.float32(GLASS[channel])
    absorbed += np.float32(0.5)
    return absorbed.astype(np.uint8)


def density(rgb: Picture) -> Field:
    """Optical density of colours, by channel."""
    return np.dstack(
        [plane_density(rgb[..., channel], channel) for channel in range(3)]
    )


def textures(rng: np.random.Generator) -> Textures:
    """Every texture; ``rng`` decides how the stroma is quilted."""
    photograph: Picture = data.immunohistochemistry()
    white = np.percentile(photograph, 97, axis=(0, 1))
    levelled = np.clip(photograph * (np.array(GLASS) / white), 0, 250)
    rgb: Picture = (levelled + 0.5).astype(np.uint8)
    brown = _brown(rgb)
    connective = _quilt(rgb, _stroma_corners(rgb, brown), rng)
    muscle = _muscle(connective)
    return Textures(
        glands=_texture(rgb, _gland_weight(brown)),
        stroma=_texture(connective, _fibre_weight(connective)),
        muscle=_texture(muscle, _fibre_weight(muscle)),
        connective=connective,
    )


def _brown(rgb: Picture) -> Field:
    """How brown each pixel is, 0 to 1."""
    step = rgb[..., 0].astype(np.float32) - rgb[..., 2]
    share: Field = np.clip((step - 10) / 50, 0, 1)
    return share


def _gland_weight(brown: Field) -> Field:
    """One in glands with their lumens and nuclei, zero in stroma, soft between."""
    inside = ndimage.gaussian_filter(brown, 5) > 0.32
    inside = ndimage.binary_closing(inside, iterations=12) | inside
    weight: Field = ndimage.gaussian_filter(inside.astype(np.float32), 3)
    return weight


def _texture(rgb: Picture, weight: Field) -> Image.Image:
    layers = np.dstack([rgb, np.clip(weight * 255, 0, 255).astype(np.uint8)])
    mirrored = np.pad(layers, ((RIM, RIM), (RIM, RIM), (0, 0)), mode="symmetric")
    # As CMYK, because Pillow multiplies RGBA by its fourth channel when it resamples.
    rows, columns = mirrored.shape[:2]
    texture = Image.frombytes("CMYK", (columns, rows), mirrored.tobytes())
    finer = columns * FINENESS, rows * FINENESS
    return texture.resize(finer, Image.Resampling.BICUBIC)


def _fibre_weight(rgb: Picture) -> Field:
    """A little more in cells than between them, so that seams run between cells."""
    dark = ndimage.gaussian_filter(density(rgb).mean(axis=2), 4)
    weight: Field = np.clip((dark - dark.mean()) / dark.std() * 0.16 + 0.22, 0, 0.6)
    return weight


def _muscle(connective: Picture) -> Picture:
    """Smooth muscle: fibres twice as long, tan from FHL2 in the cells' bodies."""
    side = connective.shape[0]
    long = np.asarray(
        Image.fromarray(connective[side // 4 : side // 4 + side // 2]).resize(
            (side, side), Image.Resampling.BICUBIC
        )
    )
    absorbed = density(long)
    fibres = ndimage.gaussian_filter(absorbed.mean(axis=2), (9, 1.2))
    absorbed *= np.float32(0.9)
    body = np.array((0.16, 0.30, 0.46), np.float32)
    absorbed += (0.55 + 2.2 * fibres)[..., None] * body
    return np.dstack(
        [plane_colour(absorbed[..., channel], channel) for channel in range(3)]
    )


PATCH = 56
OVERLAP = 16
QUILT_SIDE = OVERLAP + 18 * (PATCH - OVERLAP)


def _stroma_corners(rgb: Picture, brown: Field) -> NDArray[np.intp]:
    """Top-left corners (row, column) of patches that hold nothing but stroma."""
    bare = ndimage.gaussian_filter((rgb.min(axis=2) > 229).astype(np.float32), 5)
    clean = (
        (ndimage.gaussian_filter(brown, 6) < 0.3)
        & (ndimage.gaussian_filter(brown, 2) < 0.12)
        & (bare < 0.8)
    )
    clean[:, :75] = False  # the gland's lumen at the left is not stroma
    share = ndimage.uniform_filter(clean.astype(np.float32), PATCH)
    half = PATCH // 2
    return np.argwhere(share[half:-half, half:-half] > 0.96)


def _quilt(
    rgb: Picture, corners: NDArray[np.intp], rng: np.random.Generator
) -> Picture:
    """A square of stroma from patches of the photograph that fit one another."""
    canvas = np.zeros((QUILT_SIDE, QUILT_SIDE, 3), np.float32)
    source = rgb.astype(np.float32)
    step = PATCH - OVERLAP
    for y in range(0, QUILT_SIDE - OVERLAP, step):
        for x in range(0, QUILT_SIDE - OVERLAP, step):
            under = canvas[y : y + PATCH, x : x + PATCH]
            patch = _best_patch(source, corners, under, rng, left=x > 0, above=y > 0)
            keep = np.ones((PATCH, PATCH), np.float32)
            gap = ((patch - under) ** 2).sum(axis=2)
            if x > 0:
                keep[:, :OVERLAP] *= _cut(gap[:, :OVERLAP])
            if y > 0:
                keep[:OVERLAP] *= _cut(gap[:OVERLAP].T).T
            under += keep[..., None] * (patch - under)
    quilted: Picture = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return quilted


def _best_patch(
    source: Field,
    corners: NDArray[np.intp],
    under: Field,
    rng: np.random.Generator,
    *,
    left: bool,
    above: bool,
) -> Field:
    """The one of two dozen random patches that agrees best with what lies there.

    Patches are mirrored but never turned a quarter: the fibres keep their direction.
    """
    best: tuple[float, Field] | None = None
    for row, column in corners[rng.integers(len(corners), size=24)]:
        patch = source[row : row + PATCH, column : column + PATCH]
        flips = int(rng.integers(4))
        patch = patch[:: -1 if flips & 1 else 1, :: -1 if flips & 2 else 1]
        cost = 0.0
        if left:
            cost += float(((patch - under)[:, :OVERLAP] ** 2).sum())
        if above:
            cost += float(((patch - under)[:OVERLAP] ** 2).sum())
        if best is None or cost < best[0]:
            best = cost, patch
    if best is None:
        raise ValueError("the photograph shows no stroma to quilt from")
    return best[1]


def _cut(gap: Field) -> Field:
    """For each row, 0 left of the path of least ``gap`` and 1 right of it, softened."""
    rows, columns = gap.shape
    total = gap.copy()
    for row in range(1, rows):
        before = np.pad(total[row - 1], 1, constant_values=np.inf)
        total[row] += np.minimum(np.minimum(before[:-2], before[1:-1]), before[2:])
    path = np.empty(rows, np.intp)
    path[-1] = int(total[-1].argmin())
    for row in range(rows - 2, -1, -1):
        low = max(0, path[row + 1] - 1)
        path[row] = low + int(total[row, low : path[row + 1] + 2].argmin())
    right = np.arange(columns)[None, :] - path[:, None]
    soft: Field = np.clip((right + 2) / 4, 0, 1).astype(np.float32)
    return soft
