"""Pictures and volumes made in code, for the tests of the catalogue's nodes."""

from __future__ import annotations

import numpy as np
import xarray as xr


def plane(seed: int = 0, shape: tuple[int, int] = (61, 83)) -> xr.DataArray:
    """Blobs and noise, (y, x) float32, half a millimetre a pixel."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    values = noise.normal(10, 1, shape)
    for cy, cx, r in ((15, 20, 6), (40, 60, 9), (50, 12, 4)):
        values += 60 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r))
    return xr.DataArray(
        values.astype(np.float32),
        dims=("y", "x"),
        coords={
            "y": ("y", np.arange(shape[0]) * 0.5, {"units": "mm"}),
            "x": ("x", np.arange(shape[1]) * 0.5, {"units": "mm"}),
        },
    )


def head(
    shape: tuple[int, int, int] = (20, 24, 28),
    spacing: tuple[float, float, float] = (2.0, 3.0, 4.0),
) -> xr.DataArray:
    """A volume (z, y, x) in RAS whose every octant is of another brightness.

    Spacing is along x, y and z; the origin is off 0 on all axes.
    """
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    marks = 1 + (x > shape[2] // 3) + 2 * (y > shape[1] // 3) + 4 * (z > shape[0] // 3)
    values = marks * 1000 + (x + 7 * y + 13 * z) % 100
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-11.0, -7.0, 5.0)
    return xr.DataArray(
        values.astype(np.int16),
        dims=("z", "y", "x"),
        attrs={"affine": affine.tolist(), "modality": "MR"},
    )


def ball(radius: int = 12, edge: int = 40, inside: float = 100.0) -> xr.DataArray:
    """A bright ball on dark, (z, y, x) float32, with a shell around it as a skull."""
    z, y, x = np.mgrid[:edge, :edge, :edge] - (edge - 1) / 2
    r = np.sqrt(z * z + y * y + x * x)
    values = np.where(r < radius, inside, 1.0)
    values = np.where((r > radius + 3) & (r < radius + 5), inside * 0.9, values)
    values += np.random.default_rng(1).normal(0, 0.5, values.shape)
    return xr.DataArray(
        values.astype(np.float32),
        dims=("z", "y", "x"),
        attrs={"affine": np.eye(4).tolist(), "modality": "MR"},
    )
