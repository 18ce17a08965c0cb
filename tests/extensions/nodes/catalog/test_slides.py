"""Slides: tiles of tissue, their mask, and one staining for all."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from theatrum.node import ArrayImage, BadValue
from theatrum.nodes.catalog import stain_normalise, tile_slide, tissue_mask
from theatrum.nodes.catalog.slides import REFERENCE, stain_vectors


def slide(edge: int = 1024) -> ArrayImage:
    """White, with a pink square in the right lower quarter, 4 µm a pixel."""
    pixels = np.full((edge, edge, 3), 245, np.uint8)
    half = edge // 2
    rng = np.random.default_rng(1)
    pixels[half:, half:] = (210, 110, 170)
    pixels[half:, half:] -= rng.integers(0, 20, (half, half, 3), dtype=np.uint8)
    return ArrayImage(pixels, mpp=4.0)


def test_the_mask_covers_the_tissue_and_says_its_scale() -> None:
    labels = tissue_mask(slide())
    assert labels.downsample == 2
    truth = np.zeros((512, 512), bool)
    truth[256:, 256:] = True
    both = (labels.array > 0) & truth
    assert 2 * both.sum() / ((labels.array > 0).sum() + truth.sum()) > 0.98


def test_tiles_cover_the_tissue_and_nothing_else() -> None:
    table = tile_slide(slide(), edge_px=128, least_tissue=0.5)
    places = set(zip(table.columns["x"], table.columns["y"], strict=True))
    fourths = [512.0 + 128 * at for at in range(4)]
    assert places == {(x, y) for x in fourths for y in fourths}
    assert min(table.columns["tissue"]) > 0.9
    everything = tile_slide(slide(), edge_px=128, least_tissue=0)
    assert len(everything) == 64


def test_tiles_at_another_scale_overlap_as_they_are_told() -> None:
    table = tile_slide(slide(), edge_px=128, mpp=8.0, overlap_px=64, least_tissue=0)
    steps = sorted(set(table.columns["x"]))
    assert steps[:3] == [0.0, 128.0, 256.0]  # half of 256 level-0 pixels
    assert set(table.columns["width"]) == {256.0}
    with pytest.raises(BadValue, match="does not tell its scale"):
        tile_slide(ArrayImage(slide().array), mpp=8.0)


def stained(vectors: np.ndarray, seed: int = 0) -> xr.DataArray:  # type: ignore[type-arg]
    """A picture of two stains whose optical densities are known."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.35, (64, 64, 2))
    amounts[..., 1] *= rng.random((64, 64)) > 0.3
    amounts[..., 0] *= rng.random((64, 64)) > 0.3
    colours = 240 * np.exp(-(amounts @ vectors)) - 1
    values = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    return xr.DataArray(values, dims=("y", "x", "c")).transpose("c", "y", "x")


def unit(rows: object) -> np.ndarray:  # type: ignore[type-arg]
    found = np.array(rows, dtype=float)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


OTHER = unit([[0.48, 0.75, 0.45], [0.12, 0.88, 0.46]])


def test_the_stains_of_a_picture_are_found() -> None:
    pixels = stained(OTHER).transpose("y", "x", "c").values.reshape(-1, 3)
    density = -np.log((pixels + 1.0) / 240)
    found = stain_vectors(density[(density >= 0.15).all(axis=1)])
    assert (found * OTHER).sum(axis=1).min() > 0.995


def test_two_laboratories_come_to_the_same_colours() -> None:
    one, two = stained(unit(REFERENCE)), stained(OTHER)
    before = np.abs(one.values.astype(int) - two.values).mean()
    a, b = stain_normalise(one), stain_normalise(two)
    after = np.abs(a.values.astype(int) - b.values).mean()
    assert after < before / 2
    assert a.dtype == np.uint8


def test_a_picture_of_glass_has_no_stains() -> None:
    glass = xr.DataArray(np.full((3, 20, 20), 245, np.uint8), dims=("c", "y", "x"))
    with pytest.raises(BadValue, match="too little tissue"):
        stain_normalise(glass)
