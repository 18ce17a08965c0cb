"""Pixels over HTTP: slices, numbers, and Zarr whatever an image lies in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import PIL.Image
import pytest
import xarray as xr
from theatrum.catalog import connect
from theatrum.catalog.record import recording
from theatrum.catalog.tables import ProjectGroup
from theatrum.catalog.zarr_store import write_image

from tests.services.catalog.running import Site

SHAPE = (5, 6, 7)
VALUES = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
"""By z, y, x."""


@pytest.fixture(scope="module")
def scans(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same voxels as NIfTI and as OME-Zarr: their ids."""
    folder = tmp_path_factory.mktemp("scans")
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    nifti = folder / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VALUES.transpose(2, 1, 0), affine), nifti)
    group = folder / "scan.ome.zarr"
    steps = {"z": 3.0, "y": 2.0, "x": 1.5}
    coords = {
        dim: (dim, np.arange(size) * steps[dim], {"units": "mm"})
        for dim, size in zip("zyx", SHAPE, strict=True)
    }
    array = xr.DataArray(VALUES, coords, dims=list("zyx"))
    write_image(group, array.assign_attrs(affine=affine.tolist()))
    with recording(site.app.state.service.database, "pix") as book:
        project = book.project("pixels")
        project.groups.append(ProjectGroup(group="@pix", role="maintainer"))
        return {
            path.suffix: book.image(
                project,
                path=str(path),
                name=path.name,
                px_x=1.5,
                px_y=2.0,
                px_z=3.0,
                dims=list("zyx"),
                shape=list(SHAPE),
                affine=affine.tolist(),
                orientation="RAS",
            ).id
            for path in (nifti, group)
        }


@pytest.fixture
def pix(site: Site) -> Iterator[httpx.Client]:
    with site.client("pix") as client:
        yield client


KINDS = pytest.mark.parametrize("kind", [".gz", ".zarr"])


@KINDS
def test_an_array_over_http_is_the_array(
    site: Site, scans: dict[str, str], kind: str
) -> None:
    image = connect(site.url, token="pix").images.get(id=scans[kind])
    array = image.array
    assert array.dims == ("z", "y", "x")
    assert np.array_equal(array.to_numpy(), VALUES)
    assert np.allclose(array.coords["z"], np.arange(5) * 3.0)
    assert np.array_equal(array.isel(z=2, y=slice(1, 3)), VALUES[2, 1:3])


@KINDS
def test_a_slice_shows_the_pixels_and_no_plot(
    pix: httpx.Client, scans: dict[str, str], kind: str
) -> None:
    address = f"images/{scans[kind]}/slice.png?plane=ax&index=3&window=0,209"
    picture = PIL.Image.open(io.BytesIO(pix.get(address).content))
    # Sides are as in the body: 7 x 1.5 mm wide and 6 x 2 mm tall.
    assert picture.size == (7, 8)
    # Radiologists' view: the patient's left is on the right, the front is on top.
    wanted = np.round(VALUES[3] / 209 * 255)[::-1, ::-1]
    shown = np.asarray(picture.resize((7, 6), PIL.Image.Resampling.BILINEAR), float)
    assert np.abs(shown - wanted).max() < 6


@pytest.mark.parametrize(("kind", "form"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_a_slice_comes_in_other_formats(
    pix: httpx.Client, scans: dict[str, str], kind: str, form: str
) -> None:
    answer = pix.get(f"images/{scans['.gz']}/slice.{kind}?plane=sag&project=max")
    assert PIL.Image.open(io.BytesIO(answer.content)).format == form


@pytest.mark.parametrize(
    "query",
    [
        "index=99",
        "plane=upward",
        "project=guess",
        "window=1",
        "window=a,b",
        "index=1&mm=3",
        "channels=red",
        "size=1",
        "mm=nan",
    ],
)
def test_a_slice_that_is_none_is_refused(
    pix: httpx.Client, scans: dict[str, str], query: str
) -> None:
    answer = pix.get(f"images/{scans['.gz']}/slice.jpg?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


def test_numbers_about_an_image_are_right(
    pix: httpx.Client, scans: dict[str, str]
) -> None:
    (stats,) = pix.get(f"images/{scans['.gz']}/stats").json()["channels"]
    assert (stats["min"], stats["max"], stats["values"]) == (0, 209, 210)
    assert stats["mean"] == pytest.approx(104.5)
    told = pix.get(f"images/{scans['.gz']}/histogram?bins=10").json()
    (histogram,) = told["channels"]
    assert histogram["counts"] == [21] * 10
    assert len(histogram["edges"]) == 11


@KINDS
def test_the_group_says_dimensions_and_spacing(
    pix: httpx.Client, scans: dict[str, str], kind: str
) -> None:
    group = pix.get(f"images/{scans[kind]}/zarr/zarr.json").json()
    (multiscale,) = group["attributes"]["ome"]["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["z", "y", "x"]
    (scale,) = multiscale["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [3.0, 2.0, 1.5]


@KINDS
@pytest.mark.parametrize(
    "key",
    ["0/c/9/9/9", "9/zarr.json", "0/c/0", "../scan.nii.gz", "%2e%2e/scan.nii.gz", "x"],
)
def test_no_key_leads_out_of_the_group(
    pix: httpx.Client, scans: dict[str, str], kind: str, key: str
) -> None:
    assert pix.get(f"images/{scans[kind]}/zarr/{key}").status_code == 404


def test_a_part_of_a_block_can_be_asked_for(
    pix: httpx.Client, scans: dict[str, str]
) -> None:
    address = f"images/{scans['.zarr']}/zarr/zarr.json"
    whole = pix.get(address).content
    part = pix.get(address, headers={"Range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, whole[3:10])
    assert part.headers["content-range"] == f"bytes 3-9/{len(whole)}"
    assert pix.get(address, headers={"Range": "bytes=-4"}).content == whole[-4:]
    beyond = pix.get(address, headers={"Range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416


def test_a_file_that_went_away_is_told_and_not_where_it_was(
    ann: httpx.Client,
) -> None:
    image = ann.get("images").json()["items"][0]
    for route in ("slice.jpg", "info", "stats", "zarr/zarr.json"):
        answer = ann.get(f"images/{image['id']}/{route}")
        assert answer.status_code == 410
        assert "/nowhere" not in answer.text


def test_the_tile_address_leads_to_the_tile_service(
    site: Site, pix: httpx.Client, scans: dict[str, str]
) -> None:
    answer = pix.get(f"images/{scans['.gz']}/tile/0/0/0")
    assert answer.status_code == 307
    assert answer.headers["location"].startswith("/services/tiles/s/")
    answer = pix.get(f"images/{scans['.gz']}/tile.dzi")
    assert answer.status_code == 307
    assert answer.headers["location"].endswith("/dzi/slide.dzi")


@pytest.mark.parametrize("suffix", [".gz", ".zarr"])
@pytest.mark.parametrize("what", ["slice.png?plane=cor", "zarr/zarr.json", "stats"])
def test_pixels_that_one_has_are_not_sent_again(
    pix: httpx.Client, scans: dict[str, str], suffix: str, what: str
) -> None:
    address = f"images/{scans[suffix]}/{what}"
    first = pix.get(address)
    assert first.status_code == 200
    known = {"If-None-Match": first.headers["etag"]}
    again = pix.get(address, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    if "slice" in what:
        other = pix.get(address.replace("cor", "sag"), headers=known)
        assert other.status_code == 200


def test_pixels_want_a_scope_of_their_own(site: Site, scans: dict[str, str]) -> None:
    with site.client("pix/catalog:read") as reader:
        assert reader.get(f"images/{scans['.gz']}").status_code in (200, 410)
        assert reader.get(f"images/{scans['.gz']}/slice.jpg").status_code == 403


def test_the_group_of_a_file_passes_the_reader_of_ome_zarr(
    site: Site, scans: dict[str, str], tmp_path: Path
) -> None:
    import zarr

    address = f"{site.url}/api/v1/images/{scans['.gz']}/zarr"
    store = zarr.storage.FsspecStore.from_url(
        address,
        storage_options={"headers": {"Authorization": "token pix"}},
        read_only=True,
    )
    array = zarr.open_group(store, mode="r")["0"]
    assert array.metadata.dimension_names == ("z", "y", "x")
    assert np.array_equal(array[...], VALUES)
