"""What is saved lies where its voxels come from, and says so in its row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from theatrum.catalog.connection import Catalog, connect
from theatrum.catalog.facts import facts_of_array
from theatrum.catalog.image import CatalogImage
from theatrum.catalog.record import recording

# Voxels of 1 x 2 x 3 mm, the first at (-10, -20, 5) in RAS
AFFINE = np.array([[1, 0, 0, -10], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return connect(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def scan(catalog: Catalog) -> CatalogImage:
    """A scan of 4 x 6 x 8 voxels, each of which tells its own place."""
    z, y, x = np.indices((4, 6, 8))
    array = xr.DataArray(
        (100 * z + 10 * y + x).astype(np.int16),
        dims=("z", "y", "x"),
        attrs={"affine": AFFINE.tolist(), "modality": "MR"},
    )
    with recording(catalog.backend.database, catalog.backend.user) as book:
        book.project("mice")
    kept = {"project": "mice", "name": "scan", "node": "scanner"}
    row = catalog.backend.keep(array, kept)
    return catalog.images[row["id"]]


def test_an_affine_alone_tells_how_large_voxels_are(scan: CatalogImage) -> None:
    assert (scan.px_x, scan.px_y, scan.px_z, scan.spacing) == (1, 2, 3, 3)
    assert scan.orientation == "RAS"
    assert scan.array.coords["z"].values.tolist() == [0, 3, 6, 9]


def test_the_orientation_is_what_the_affine_says(scan: CatalogImage) -> None:
    made = scan.derive("flip", lambda array: array.isel(x=slice(None, None, -1)))
    assert made.array.attrs["orientation"] == "LAS"
    saved = made.save("flipped")
    assert saved.orientation == "LAS"
    affine = np.asarray(saved.affine)
    assert affine[:3, 0].tolist() == [-1, 0, 0]
    assert affine[:3, 3].tolist() == [-3, -20, 5]


def test_an_affine_in_lps_is_kept_in_ras(scan: CatalogImage) -> None:
    def in_lps(array: xr.DataArray) -> xr.DataArray:
        lps = (np.diag([-1.0, -1, 1, 1]) @ AFFINE).tolist()
        return (array * 2).assign_attrs(affine=lps, convention="LPS")

    saved = scan.derive("to lps", in_lps).save("lps")
    np.testing.assert_allclose(saved.affine, AFFINE)
    np.testing.assert_allclose(saved.array.attrs["affine"], AFFINE)
    assert saved.orientation == "RAS"


@pytest.mark.parametrize(
    "make",
    [
        lambda array: array.isel(z=2, drop=True),
        lambda array: array.max("z"),
        lambda array: array.isel(z=[0, 1, 3]),
    ],
    ids=["a plane that forgot its depth", "a projection", "uneven planes"],
)
def test_what_has_no_one_place_claims_none(
    scan: CatalogImage, make: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    made = scan.derive("part", make)
    assert "affine" not in made.array.attrs
    saved = made.save("part")
    assert (saved.affine, saved.orientation) == (None, None)
    assert (saved.px_x, saved.px_y) == (1, 2)


def test_a_plane_that_kept_its_depth_lies_there(scan: CatalogImage) -> None:
    saved = scan.derive("plane", lambda array: array.isel(z=2)).save("plane")
    assert np.asarray(saved.affine)[:3, 3].tolist() == [-10, -20, 11]


def test_a_row_tells_dimensions_and_numbers_as_they_are_stored(
    scan: CatalogImage, tmp_path: Path
) -> None:
    pixels = np.zeros((5, 6, 3), ">i4")
    array = xr.DataArray(pixels, dims=("y", "x", "c"))
    for given, dtype in ((array, "int32"), (array > 0, "uint8")):
        saved = scan.save(given, "colours")
        assert (saved.dims, saved.shape) == (["c", "y", "x"], [3, 5, 6])
        assert saved.dtype == dtype
        assert saved.array.dims == ("c", "y", "x")
        assert saved.array.dtype == dtype
    assert facts_of_array(array)["dtype"] == "int32"
