"""Registration finds the move that was made, and stops when it is told."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage
from theatrum.node import Cancelled, Context, affine_of
from theatrum.nodes.catalog import register_affine


def blobs(shift_mm: tuple[float, float, float] = (0, 0, 0)) -> xr.DataArray:
    """Smooth noise in RAS, 2 mm a voxel, moved by millimetres along x, y, z."""
    rng = np.random.default_rng(8)
    noise = ndimage.gaussian_filter(rng.normal(size=(32, 36, 40)), 3)
    moved = ndimage.shift(noise, [one / 2 for one in shift_mm[::-1]], mode="nearest")
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -30
    return xr.DataArray(
        (moved * 1e4).astype(np.float32),
        dims=("z", "y", "x"),
        attrs={"affine": affine.tolist(), "modality": "MR"},
    )


def test_a_shift_is_found_and_taken_back() -> None:
    fixed, moving = blobs(), blobs((4.0, -6.0, 2.0))
    found = register_affine(moving, fixed, model="rigid", sampled=0.5)
    matrix = np.stack(
        [found.transform.columns[f"column_{at}"] for at in range(4)], axis=1
    )
    # Fixed to moving, in RAS: what lies at p there lies at p + shift here.
    assert np.allclose(
        matrix[:3, 3] + matrix[:3, :3] @ [10, 6, 2] - [10, 6, 2], [4, -6, 2], atol=0.3
    )
    inner = (slice(5, -5),) * 3
    pair = found.image.values[inner].ravel(), fixed.values[inner].ravel()
    assert np.corrcoef(*pair)[0, 1] > 0.98
    assert np.allclose(affine_of(found.image), affine_of(fixed))
    again = register_affine(moving, fixed, model="rigid", sampled=0.5)
    assert np.array_equal(again.image, found.image)


def test_a_registration_that_is_not_wanted_stops() -> None:
    asked: list[int] = []

    def unwanted() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        register_affine(
            blobs((4, 0, 0)), blobs(), context=Context(is_cancelled=unwanted)
        )
    assert len(asked) < 50
