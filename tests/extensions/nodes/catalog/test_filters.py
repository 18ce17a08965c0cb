"""Filters and projections: equal to scipy and scikit-image, lazily too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage
from skimage import filters, morphology
from theatrum.node import BadInputs, BadValue, Node
from theatrum.nodes.catalog import (
    gauss,
    laplace,
    median,
    prewitt,
    project,
    sobel,
    tophat,
    unsharp,
)

from tests.extensions.nodes.catalog.phantoms import head, plane

FLAT = plane().values
# scikit-image averages where the nodes add up, as Prewitt's and Sobel's papers do.
TRUTH: list[tuple[Node[..., xr.DataArray], dict[str, object], Callable[[], object]]] = [
    (gauss, {"sigma": 2.5}, lambda: ndimage.gaussian_filter(FLAT, 2.5)),
    (median, {"radius": 2}, lambda: ndimage.median_filter(FLAT, 5)),
    (prewitt, {}, lambda: filters.prewitt(FLAT) * 3 * np.sqrt(2)),
    (sobel, {}, lambda: filters.sobel(FLAT) * 4 * np.sqrt(2)),
    (laplace, {}, lambda: ndimage.laplace(FLAT)),
    (
        unsharp,
        {"sigma": 1.5, "amount": 0.7},
        lambda: filters.unsharp_mask(FLAT, 1.5, 0.7, preserve_range=True),
    ),
    (
        tophat,
        {"radius": 4},
        lambda: morphology.white_tophat(FLAT, morphology.disk(4)),
    ),
]


@pytest.mark.parametrize(
    ("filtered", "parameters", "truth"), TRUTH, ids=[one[0].name for one in TRUTH]
)
def test_a_filter_gives_what_the_library_gives(
    filtered: Node[..., xr.DataArray],
    parameters: dict[str, object],
    truth: Callable[[], object],
) -> None:
    mine = filtered(plane(), **parameters)
    # Beyond the edge scikit-image goes on otherwise than scipy does.
    reach = {"tophat": 8, "unsharp": 7, "prewitt": 1, "sobel": 1}.get(filtered.name, 0)
    inner = (slice(reach, -reach or None),) * 2
    assert np.allclose(mine.values[inner], np.asarray(truth())[inner], atol=1e-3)
    assert mine.attrs == plane().attrs
    assert "x" in mine.coords


@pytest.mark.parametrize(
    ("filtered", "parameters"),
    [one[:2] for one in TRUTH],
    ids=[one[0].name for one in TRUTH],
)
def test_a_filter_of_blocks_is_that_of_the_whole(
    filtered: Node[..., xr.DataArray], parameters: dict[str, object]
) -> None:
    lazy = filtered(plane().chunk({"y": 25, "x": 30}), **parameters)
    assert lazy.chunks is not None
    whole = filtered(plane(), **parameters)
    assert np.allclose(lazy.values, whole.values, atol=1e-4)


def test_a_filter_leaves_other_planes_alone_unless_told() -> None:
    volume = head().astype(np.float32)
    flat = gauss(volume, sigma=1.0)
    assert np.allclose(flat[3], ndimage.gaussian_filter(volume.values[3], 1), atol=1e-2)
    deep = gauss(volume, sigma=1.0, within="zyx")
    assert np.allclose(deep, ndimage.gaussian_filter(volume.values, 1), atol=1e-2)
    with pytest.raises(BadValue, match="no axis z"):
        gauss(plane(), within="zyx")


@pytest.mark.parametrize("how", ["max", "min", "mean", "sum", "std", "median"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_projection_is_numpys(how: str, lazy: bool) -> None:
    volume = head().chunk({"z": 3}) if lazy else head()
    out = project(volume, how=how, first=2, last=11)
    want = getattr(np, how)(head().values[2:12], axis=0)
    assert np.allclose(out, want)
    assert out.dims == ("y", "x")
    assert (out.chunks is not None) is lazy
    if how in ("max", "min"):
        assert out.dtype == head().dtype


@pytest.mark.parametrize("along", ["y", "x"])
def test_a_volume_looked_along_its_rows_or_columns_is_a_picture(
    along: Literal["y", "x"],
) -> None:
    out = project(head(), along=along)
    assert out.dims == ("y", "x")
    assert np.array_equal(out, head().values.max(axis="zyx".index(along)))
    assert np.array_equal(out["y"], head()["z"])
    with pytest.raises(BadValue, match="flat image"):
        project(out, along=along)


def test_a_projection_of_one_plane_reads_only_what_it_needs() -> None:
    read: list[object] = []

    def block(block_info: object = None) -> np.ndarray:  # type: ignore[type-arg]
        read.append(block_info)
        return np.zeros((1, 4, 5), np.int16)

    import dask.array as da

    lazy = xr.DataArray(
        da.map_blocks(
            block,
            chunks=((1,) * 10, (4,), (5,)),
            dtype=np.int16,
            meta=np.empty((0, 0, 0), np.int16),
        ),
        dims=("z", "y", "x"),
    )
    project(lazy, first=3, last=4).compute()
    assert len(read) == 2


def test_planes_that_are_not_there_are_told() -> None:
    with pytest.raises(BadValue, match="there are 0 to 19"):
        project(head(), first=5, last=20)
    with pytest.raises(BadValue, match="no axis t"):
        project(head(), along="t")
    with pytest.raises(BadInputs, match="'how'"):
        project.run({"image": head()}, {"how": "mode"})
