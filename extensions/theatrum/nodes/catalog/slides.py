"""Slides: the tissue's mask, tiles of tissue, one staining for all.

Stain normalisation: Macenko et al., "A method for normalizing histology slides for
quantitative analysis", ISBI 2009, 1107-1110: the two stains' colours are the extremes
of the plane that most of the tissue's optical densities lie in.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from theatrum.node import (
    Array,
    Axes,
    BadValue,
    Channels,
    Context,
    DType,
    Image,
    Labels,
    Table,
    node,
)
from theatrum.nodes import tissue
from theatrum.nodes.raster import Raster, raster_at

Values = npt.NDArray[Any]  # of any kind of number


def _tissue(image: Image, mpp: float, context: Context) -> tuple[Raster, Values]:
    raster = raster_at(image, mpp, tissue.MOST_PIXELS)
    pixels = tissue.read_all(raster, context.part(0, 0.8))
    rule = tissue.learned(pixels)
    found = tissue.tissue_mask(
        pixels, rule, raster.mpp, smallest_mm2=0.02, hole_mm2=0.02
    )
    return raster, found


@node(version="1.0.0", kind="filter")
def tissue_mask(
    image: Image,
    *,
    mpp: Annotated[float, Field(ge=1, le=64)] = 8.0,
    context: Context | None = None,
) -> Labels:
    """Find the tissue of a bright-field slide, as a mask on a coarse rung of it.

    Parameters
    ----------
    mpp
        Micrometres per pixel of the mask; the nearest rung is taken.
    """
    raster, found = _tissue(image, mpp, context or Context())
    return Labels(found, {1: "Tissue"}, (0.0, 0.0), raster.downsample)


@node(version="1.0.0", kind="transform")
def tile_slide(
    image: Image,
    *,
    edge_px: Annotated[int, Field(ge=16, le=4096)] = 512,
    mpp: Annotated[float, Field(gt=0, le=64)] | None = None,
    overlap_px: Annotated[int, Field(ge=0)] = 0,
    least_tissue: Annotated[float, Field(ge=0, le=1)] = 0.5,
    context: Context | None = None,
) -> Table:
    """List the tiles of a slide that hold tissue: where each is, and how much of it.

    `x`, `y`, `width`, `height` are level-0 pixels, as `image.region` takes them.

    Parameters
    ----------
    edge_px
        Of a tile at the scale it is read at.
    mpp
        That scale, micrometres per pixel; without it full resolution.
    overlap_px
        Of neighbouring tiles, at the same scale.
    least_tissue
        Share of a tile that has to be tissue; 0 takes all.
    """
    if overlap_px >= edge_px:
        raise BadValue("Tiles overlap by less than they are long.")
    own = image.mpp_x
    if mpp is not None and own is None:
        raise BadValue("This slide does not tell its scale: leave mpp out.")
    scale = 1.0 if mpp is None or own is None else mpp / own
    edge, step = edge_px * scale, (edge_px - overlap_px) * scale
    raster, mask = _tissue(image, 8.0, context or Context())
    sums = np.pad(mask.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    columns: dict[str, list[float | int]] = {
        name: [] for name in ("x", "y", "width", "height", "tissue")
    }
    for top in _starts(image.height, edge, step):
        for left in _starts(image.width, edge, step):
            share = _share(sums, raster.downsample, left, top, edge)
            if share >= least_tissue:
                row = (left, top, edge, edge, share)
                for name, value in zip(columns, row, strict=True):
                    columns[name].append(value)
    return Table(columns, dict.fromkeys(("x", "y", "width", "height"), "px"))


def _starts(size: int, edge: float, step: float) -> list[float]:
    count = max(1, int(np.ceil((size - edge) / step)) + 1)
    return [at * step for at in range(count)]


def _share(
    sums: Values, downsample: float, left: float, top: float, edge: float
) -> float:
    rows, columns = sums.shape[0] - 1, sums.shape[1] - 1
    x1, x2 = (min(columns, round(at / downsample)) for at in (left, left + edge))
    y1, y2 = (min(rows, round(at / downsample)) for at in (top, top + edge))
    whole = (edge / downsample) ** 2
    inside = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return float(min(1.0, inside / whole)) if whole else 0.0


REFERENCE = ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581))
"""Haematoxylin and eosin, as the paper's implementations have them: unit vectors."""
REFERENCE_MOST = (1.9705, 1.0308)
"""Amounts of both that stand for the most, in natural optical density."""


@node(version="1.0.0", kind="filter")
def stain_normalise(
    image: Annotated[Array, Axes("c", "y", "x"), Channels(3, 3), DType("integer")],
    *,
    stains: tuple[tuple[float, float, float], tuple[float, float, float]] = REFERENCE,
    most: tuple[float, float] = REFERENCE_MOST,
    glass: Annotated[int, Field(ge=128, le=255)] = 240,
    least_density: Annotated[float, Field(gt=0, lt=1)] = 0.15,
) -> Annotated[Array, Channels(3, 3), DType("integer")]:
    """Give a picture of two stains the colours of a reference.

    Parameters
    ----------
    stains
        Of the reference: optical density in red, green and blue of each.
    most
        Of the reference: the 99th percentile of the amount of each.
    glass
        Brightness of where nothing is.
    least_density
        What is paler in any colour is glass, and not learned from.
    """
    ordered = image.transpose(..., "c")
    pixels = ordered.values.reshape(-1, 3)
    density = -np.log((pixels.astype(np.float64) + 1) / glass)
    vectors = stain_vectors(density[(density >= least_density).all(axis=1)])
    amounts = np.linalg.lstsq(vectors.T, density.T, rcond=None)[0]
    seen = np.percentile(amounts, 99, axis=1)
    if (seen <= 0).any():
        raise BadValue("One of the two stains is not on this picture.")
    target = np.array(stains, dtype=np.float64)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    scaled = amounts * (np.array(most) / seen)[:, None]
    colours = glass * np.exp(-(scaled.T @ target)) - 1
    out = np.clip(np.rint(colours), 0, 255).astype(np.uint8).reshape(ordered.shape)
    return ordered.copy(data=out).transpose(*image.dims)


def stain_vectors(density: Values) -> Values:
    """Return the two stains of (n, 3) optical densities, the bluer one first."""
    if len(density) < 100:
        raise BadValue("There is too little tissue on this picture to learn from.")
    _, _, axes = np.linalg.svd(np.cov(density.T))
    plane = axes[:2] * np.sign(axes[:2].sum(axis=1))[:, None]
    angles = np.arctan2(density @ plane[1], density @ plane[0])
    ends = np.percentile(angles, (1, 99))
    found = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane
    found *= np.sign(found.sum(axis=1))[:, None]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    # Haematoxylin takes more red than eosin does.
    return np.asarray(found[np.argsort(-found[:, 0])])
