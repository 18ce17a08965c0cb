"""A catalogue behind the service: pixels, saving and rights, over real sockets."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import theatrum
import xarray as xr
from theatrum import catalog as current
from theatrum.catalog import arrays
from theatrum.catalog.backend import PLANE
from theatrum.catalog.connection import Catalog, connect
from theatrum.catalog.errors import (
    BadArray,
    BadRecord,
    NotAllowed,
    NotConnected,
    NotFound,
    NotOpened,
)
from theatrum.catalog.facts import facts_of_array
from theatrum.catalog.receiving import receive
from theatrum.catalog.record import recording
from theatrum.catalog.tables import (
    Image,
    PlaneTable,
    Project,
    ProjectGroup,
    new_id,
)

from tests.extensions.catalog.test_image import AFFINE, voxels
from tests.services.catalog.running import Site, catalogue


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("far")
    with catalogue(folder, {"ann": (), "max": (), "eve": ()}) as running:
        path = folder / "scan.nii"
        nibabel.save(nibabel.Nifti1Image(voxels().transpose(2, 1, 0), AFFINE), path)
        with recording(running.app.state.service.database, "ann") as book:
            project = book.project("mice")
            for group, role in (("@ann", "maintainer"), ("@max", "viewer")):
                project.groups.append(ProjectGroup(group=group, role=role))
            facts = facts_of_array(arrays.open_array(path)) | {"modality": "MR"}
            book.image(project, path=str(path), name="scan", format="nifti", **facts)
        yield running


@pytest.fixture
def ann(site: Site) -> Catalog:
    """Who maintains `mice`."""
    return connect(site.url, token="ann")


def test_an_array_is_read_block_by_block_over_http(ann: Catalog) -> None:
    image = ann.images["mice/scan"]
    array = image.array
    assert array.chunks is not None
    np.testing.assert_array_equal(array.to_numpy(), voxels())
    np.testing.assert_allclose(array.attrs["affine"], AFFINE)
    assert array.coords["z"].values.tolist() == [0, 3, 6, 9]
    assert image.sel(z=6).to_numpy()[0, 0] == 200
    with pytest.raises(BadArray):
        image.sel(q=1)


def test_planes_and_slides_are_told_far_away_as_near(
    site: Site, ann: Catalog, tmp_path: Path
) -> None:
    image = ann.images["mice/scan"]
    near = connect(site.home.root).images["mice/scan"]
    pd.testing.assert_frame_equal(image.biometa.planes, near.biometa.planes)
    said = {"t": [0, 0], "c": [0, 0], "z": [0, 1], "position_x_mm": [1.5, 1.5]}
    table = tmp_path / "planes.parquet"
    pq.write_table(pa.table(said | {"instance_uid": ["1", "2"]}), table)
    with recording(site.app.state.service.database, "ann") as book:
        row = book.get(Image, image.id)
        asset = book.asset(row, role="planes", uri=str(table))
        book.add(PlaneTable(id=new_id(), image_id=row.id, asset_id=asset.id))
        slide = book.image(book.get(Project, row.project_id), path="/s", name="slide")
        book.change(slide, modality="SM", n_x=9, n_y=9)
    far, here = image.biometa.planes, near.biometa.planes
    pd.testing.assert_frame_equal(far, here)
    assert [*far.columns] == [*PLANE, "instance_uid"]
    assert far["position_x_mm"].tolist() == [1.5, 1.5]
    with pytest.raises(NotOpened, match="open it there"):
        ann.images["mice/slide"].viewer()


def test_levels_and_channels_are_the_same_far_away_as_at_home(
    site: Site, ann: Catalog
) -> None:
    along = {dim: (dim, np.arange(301) * 0.5, {"units": "mm"}) for dim in "yx"}
    stains = xr.DataArray(
        np.zeros((2, 301, 301), np.uint8),
        dims=("c", "y", "x"),
        coords={"c": ["DAPI", "probe"], **along},
        attrs={"affine": np.diag([0.5, 0.5, 1, 1]).tolist()},
    )
    saved = ann.images["mice/scan"].save(stains, "stains")
    with site.app.state.service.database.reading() as session:
        path = session.get(Image, saved.id).path
    for level in (0, 1):
        far, here = saved.level(level), arrays.open_array(path, level=level)
        for name in ("affine", "orientation", "channels", "channel_colors", "level"):
            assert far.attrs[name] == here.attrs[name]
        for dim in ("c", "y", "x"):
            assert far[dim].values.tolist() == here[dim].values.tolist()
    assert far.attrs["channel_colors"] == {"DAPI": "#0000ff", "probe": "#00ff00"}
    assert float(far.x[0]) == 0.25


def test_a_bag_of_far_arrays_is_opened_where_it_is_worked_on(ann: Catalog) -> None:
    bag = ann.images.filter(name="scan").to_bag().map(lambda array: int(array.max()))
    assert bag.compute(scheduler="synchronous") == [357]


def test_what_is_made_far_away_is_kept_with_its_lineage(ann: Catalog) -> None:
    scan = ann.images["mice/scan"]
    saved = scan.derive("negative", lambda array: -array).save("negative")
    assert (saved.kind, saved.modality, saved.spacing) == ("derived", "MR", 3.0)
    np.testing.assert_array_equal(saved.array.to_numpy(), -voxels())
    np.testing.assert_allclose(saved.affine, AFFINE)
    assert saved.run.requested_by == "ann"
    assert saved.lineage.things.keys() == {("image", saved.id), ("image", scan.id)}
    assert saved.lineage.to_prov()["used"]
    assert ann.images.filter(used_in__run=saved.run_id).one() == scan


def test_what_is_said_far_away_is_said(ann: Catalog) -> None:
    scan = ann.images["mice/scan"]
    scan.tag("good")
    scan.set_value("dose", 2.5)
    scan.comment("swollen")
    roi = scan.add_roi("polygon", [[[2, 1], [6, 1], [6, 4], [2, 1]]], name="tumour")
    assert (scan.tags, scan.key_values) == (["good"], {"dose": 2.5})
    assert roi.x1 == 6
    assert scan.crop("tumour").array.sizes["x"] == 4
    assert [one.kind for one in ann.changes()][-1] == "roi"
    scan.untag("good")
    assert scan.tags == []


def test_roles_count_far_away_too(site: Site) -> None:
    looking = connect(site.url, token="max").images["mice/scan"]
    assert looking.array.sizes["z"] == 4
    with pytest.raises(NotAllowed):
        looking.tag("x")
    with pytest.raises(NotAllowed):
        looking.derive("copy", lambda array: array).save()
    outside = connect(site.url, token="eve")
    with pytest.raises(NotFound):
        outside.images["mice/scan"]
    with pytest.raises(NotAllowed):
        connect(site.url, token="ann/pixels:read").images.count()


def test_pictures_come_from_far_away(ann: Catalog) -> None:
    scan = ann.images["mice/scan"]
    assert scan.viewer.show(plane="cor").size == (8, 12)
    assert scan.biometa.physicalsizes.loc["y", "size"] == 2.0
    assert "1 image<" in ann.images.filter(name="scan")._repr_html_()


def test_inside_the_hub_the_catalogue_is_connected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEATRUM_CATALOG_URL", site.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "ann")
    assert current.images["mice/scan"].name == "scan"
    assert theatrum.catalog.current().backend.user == "ann"


def test_elsewhere_it_is_the_one_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THEATRUM_CATALOG_URL", raising=False)
    monkeypatch.delenv("THEATRUM_HOME", raising=False)
    with pytest.raises(NotConnected, match="THEATRUM_HOME"):
        current.images  # noqa: B018
    monkeypatch.setenv("THEATRUM_HOME", str(tmp_path))
    assert current.images.count() == 0
    with pytest.raises(AttributeError):
        current.imagez  # noqa: B018


def test_a_service_that_does_not_answer_is_told() -> None:
    with pytest.raises(NotConnected, match="try again"):
        connect("http://127.0.0.1:9", token="x").images.count()


@pytest.mark.parametrize(
    "names", [["../x/zarr.json"], ["/zarr.json"], ["a/evil.py"], [], ["c", "c/0"]]
)
def test_a_zip_that_is_no_group_is_refused(
    site: Site, tmp_path: Path, names: list[str]
) -> None:
    from theatrum.catalog.local import LocalBackend

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    package = tmp_path / "x.zip"
    package.write_bytes(content.getvalue())
    backend = LocalBackend(site.app.state.service.database, tmp_path, "ann")
    with pytest.raises(BadRecord):
        receive(backend, package, {"project": "mice"})
    with pytest.raises(BadRecord, match="say of an array"):
        receive(backend, package, {"path": "/etc"})
    assert [*(tmp_path / "derived").iterdir()] == []
