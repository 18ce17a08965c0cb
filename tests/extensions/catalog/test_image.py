"""An image in a notebook: its array, its metadata, what is made and said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from theatrum.catalog import arrays, picture
from theatrum.catalog.backend import PLANE
from theatrum.catalog.connection import Catalog
from theatrum.catalog.errors import BadArray, BadQuery, BadRecord, NotFound
from theatrum.catalog.facts import facts_of_array
from theatrum.catalog.freezing import manifest
from theatrum.catalog.image import CatalogImage
from theatrum.catalog.lineage import Lineage, Made
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.record import recording

from hub.durable.database import Database

# Voxels of 1 x 2 x 3 mm, the first at (-10, -20, 5) in RAS
AFFINE = np.array([[1, 0, 0, -10], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])


def voxels() -> npt.NDArray[np.int16]:
    """Each voxel tells its own place: 100 z + 10 y + x."""
    z, y, x = np.indices((4, 6, 8))
    numbers: npt.NDArray[np.int16] = (100 * z + 10 * y + x).astype(np.int16)
    return numbers


@pytest.fixture
def catalog(database: Database, tmp_path: Path) -> Catalog:
    """A catalogue with one scan, ingested as a file and its acquisition."""
    path = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(voxels().transpose(2, 1, 0), AFFINE), path)
    with recording(database, "erika") as book:
        project = book.project("mice")
        file = book.source_file(project, sha256="a" * 64, uri=str(path), name="scan")
        acquisition = book.acquisition(
            project,
            modality="MR",
            manufacturer="Maker",
            field_strength=3.0,
            protocol={"echo_time_ms": 12.0},
            raw_meta={"00180087": "3"},
        )
        book.members(acquisition, [{"source_file_id": file.id}])
        book.image(
            project,
            path=str(path),
            name="scan",
            acquisition_id=acquisition.id,
            format="nifti",
            **facts_of_array(arrays.open_array(path)) | {"modality": "MR"},
        )
    return Catalog(LocalBackend(database, tmp_path / "files", "erika"))


@pytest.fixture
def scan(catalog: Catalog) -> CatalogImage:
    return catalog.images["mice/scan"]


def test_an_array_is_lazy_and_in_millimetres(scan: CatalogImage) -> None:
    array = scan.array
    assert array.chunks is not None
    assert array.dims == ("z", "y", "x")
    assert array.coords["z"].values.tolist() == [0, 3, 6, 9]
    assert array.attrs["id"] == scan.id
    np.testing.assert_array_equal(array.to_numpy(), voxels())
    assert [*scan.tree.children] == ["scale0"]


def test_a_part_is_chosen_by_places_and_by_units(scan: CatalogImage) -> None:
    assert scan.isel(z=1, y=(2, 4)).to_numpy()[0, 0] == 120
    assert scan.sel(z=6).to_numpy()[0, 0] == 200
    assert scan.sel(z=(3, 6)).sizes["z"] == 2
    assert scan.sel(x=(2000, 4000), unit="um").coords["x"].values.tolist() == [2, 3, 4]
    assert scan.sel(y=0.39, unit="cm").to_numpy()[0, 0] == 20
    with pytest.raises(BadArray, match="lengths are in"):
        scan.sel(x=1, unit="inch")
    with pytest.raises(BadArray, match="has no c"):
        scan.sel(c="DAPI")


def test_metadata_are_data_frames(scan: CatalogImage) -> None:
    sizes = scan.biometa.physicalsizes
    assert sizes.loc["z"].to_dict() == {
        "size": 3.0, "unit": "mm", "count": 4, "extent": 12.0,
    }  # fmt: skip
    row = scan.biometa.scan.iloc[0]
    assert (row["SizeX"], row["SizeZ"], row["PhysicalSizeY"]) == (8, 4, 2.0)
    assert row["DimensionOrder"] == "XYZ"
    assert len(scan.biometa.planes) == 4
    assert scan.biometa.planes["position_z_mm"].tolist() == [0, 3, 6, 9]
    assert [*scan.biometa.planes.columns] == [*PLANE]
    assert scan.biometa.device.loc["manufacturer", "value"] == "Maker"
    assert scan.biometa.dicom.loc["00180087", "value"] == "3"
    assert scan.biometa.protocol.loc["echo_time_ms", "value"] == 12.0
    assert scan.biometa.channels.empty


def test_nifti_has_the_same_affine_and_voxels(
    scan: CatalogImage, tmp_path: Path
) -> None:
    scan.to_nifti(tmp_path / "again.nii.gz")
    again = nibabel.load(tmp_path / "again.nii.gz")
    np.testing.assert_array_equal(again.affine, AFFINE)
    np.testing.assert_array_equal(again.dataobj, voxels().transpose(2, 1, 0))


def test_a_derived_image_is_saved_with_the_run_that_made_it(
    catalog: Catalog, scan: CatalogImage
) -> None:
    best = scan.derive("project", lambda array, over: array.max(over), over="z")
    saved = best.save("brain-max")
    assert saved.kind == "derived"
    assert (saved.px_x, saved.px_y, saved.spacing) == (1.0, 2.0, 2.0)
    assert saved.modality == "MR"
    assert saved.acquisition == scan.acquisition
    np.testing.assert_array_equal(saved.array.to_numpy().squeeze(), voxels().max(0))
    run = saved.run
    assert (run.requested_by, run.params, run.state) == (
        "erika", {"over": "z"}, "succeeded",
    )  # fmt: skip
    assert run.node.name == "project"
    assert len(run.code_version) == 64
    assert run.inputs.one().object_id == scan.id
    assert run.outputs.one().checksum == saved.checksum
    assert catalog.images.filter(used_in__run=run.id).one() == scan


def test_voxels_and_affine_survive_saving(scan: CatalogImage) -> None:
    saved = scan.derive("negative", lambda array: -array).save()
    assert saved.name == "scan-negative"
    np.testing.assert_array_equal(saved.array.to_numpy(), -voxels())
    np.testing.assert_allclose(saved.array.attrs["affine"], AFFINE)
    assert (saved.orientation, saved.affine) == ("RAS", AFFINE.tolist())


def test_a_crop_lies_where_it_was_cut_out(scan: CatalogImage) -> None:
    corners = [[2, 1], [6, 1], [6, 4], [2, 4], [2, 1]]
    roi = scan.add_roi("polygon", [corners], name="tumour", z0=1, z1=3)
    cropped = scan.crop("tumour")
    np.testing.assert_array_equal(cropped.array.to_numpy(), voxels()[1:3, 1:4, 2:6])
    saved = cropped.save("tumour")
    assert saved.kind == "crop"
    assert saved.run.params == {"roi": roi.id, "mask": False}
    # The same voxel is at the same place of the patient.
    place = np.array([*saved.affine]) @ [0, 0, 0, 1]
    np.testing.assert_allclose(place, AFFINE @ [2, 1, 1, 1])
    with pytest.raises(NotFound):
        scan.crop("tumor")
    with pytest.raises(BadArray, match="outside"):
        scan.crop({"x0": 100, "x1": 110})


def test_a_masked_crop_is_0_outside_of_its_polygon(scan: CatalogImage) -> None:
    scan.add_roi("polygon", [[[0, 0], [6, 0], [0, 6], [0, 0]]], name="corner")
    cut = scan.crop("corner", mask=True).array
    assert cut.sizes["x"] == 6
    assert cut.dtype == np.int16
    assert cut.isel(z=1, y=1, x=1) == 111
    assert cut.isel(z=1, y=5, x=5) == 0


def test_what_is_saved_of_several_names_them_all(
    catalog: Catalog, scan: CatalogImage
) -> None:
    other = scan.derive("double", lambda array: array * 2).save()
    both = scan.save(scan.array + other.array, "sum", also=[other], node="add")
    inputs = both.run.inputs.order_by("position")
    assert [one.object_id for one in inputs] == [scan.id, other.id]
    assert both.lineage.originals() == [("source_file", catalog.files.one().id)]


@pytest.mark.parametrize(
    ("part", "first", "step"),
    [
        ({"z": slice(1, 3)}, (0, 0, 1), (1, 1, 1)),
        ({"x": slice(2, None, 3), "y": slice(4, None)}, (2, 4, 0), (3, 1, 1)),
        ({"y": slice(None, None, -1)}, (0, 5, 0), (1, -1, 1)),
        ({"z": 2}, (0, 0, 2), (1, 1, 1)),
    ],
)
def test_a_part_lies_in_the_patient_where_it_was_taken_from(
    scan: CatalogImage,
    part: dict[str, slice | int],
    first: tuple[int, ...],
    step: tuple[int, ...],
) -> None:
    taken = scan.derive("part", lambda array: array.isel(part)).array
    affine = np.asarray(taken.attrs["affine"])
    assert np.allclose(affine[:, 3], AFFINE @ [*first, 1])
    assert np.allclose(affine[:3, :3], AFFINE[:3, :3] * step)


def test_what_is_padded_lies_where_its_inside_lay(
    catalog: Catalog, scan: CatalogImage
) -> None:
    padded = scan.derive("pad", lambda array: array.pad(z=(2, 3), x=1)).save("padded")
    expected = AFFINE.copy()
    expected[:, 3] = AFFINE @ [-1, 0, -2, 1]
    np.testing.assert_allclose(padded.affine, expected)
    np.testing.assert_allclose(padded.array.attrs["affine"], expected)
    assert (padded.px_x, padded.px_z, padded.n_z) == (1, 3, 9)
    assert np.isfinite(padded.array.to_numpy()[2:-3, :, 1:-1]).all()
    # Of one plane its neighbours lie where the affine says.
    flat = scan.derive("flat", lambda array: array.isel(z=slice(1, 2)).pad(z=1))
    np.testing.assert_allclose(flat.array.attrs["affine"], AFFINE)
    assert flat.array.coords["z"].values.tolist() == [0, 3, 6]
    # Said without derive it lies there too.
    by_hand = scan.save(scan.array.pad(z=1), "by-hand")
    assert by_hand.affine[2][3] == pytest.approx(2)
    assert {one.name for one in catalog.images} >= {"padded", "by-hand"}


def test_every_derived_row_has_one_run_and_reaches_the_originals(
    catalog: Catalog, database: Database, scan: CatalogImage
) -> None:
    image = scan
    for step in range(12):
        image = image.derive(f"step {step}", lambda array: array + 1).save()
    with recording(database, "erika") as book:
        from theatrum.catalog.tables import Image

        run = book.run(image.project_id, node="measure")
        row = book.get(Image, image.id)
        book.input(run, "image", row)
        book.measurements(row, run, {"mean": 3.5, "word": "wide"})
    derived = [
        *catalog.images.filter(kind="derived"),
        *catalog.measurements,
    ]
    assert len(derived) == 14
    for one in derived:
        assert one.made_in.count() == 1
        assert one.made_in.one().run_id == one.run_id
        assert one.run.requested_by == "erika"
    lineage = image.lineage
    assert len(lineage.runs) == 12
    assert lineage.originals() == [("source_file", catalog.files.one().id)]
    assert lineage.people() == ["erika"]
    prov = lineage.to_prov()
    generated = [one["prov:entity"] for one in prov["wasGeneratedBy"].values()]
    assert len(generated) == len({*generated}) == 12
    assert {*prov["entity"]} == {
        f"theatrum:{kind}/{key}" for kind, key in lineage.things
    }
    for relation in ("used", "wasGeneratedBy"):
        for one in prov[relation].values():
            assert one["prov:entity"] in prov["entity"]
            assert one["prov:activity"] in prov["activity"]
    assert str(lineage).count("for erika") == 12
    assert lineage._repr_html_().count("<rect") == 26


def test_others_lineage_is_not_told(
    catalog: Catalog, database: Database, scan: CatalogImage, tmp_path: Path
) -> None:
    with recording(database, "erika") as book:
        book.project("open")
    shared = scan.derive("copy", lambda array: array).save("copy", project="open")
    outside = Catalog(LocalBackend(database, tmp_path, "max", frozenset({"open"})))
    lineage = outside.images["open/copy"].lineage
    assert lineage.things.keys() == {("image", shared.id)}
    assert all(not run.used for run in lineage.runs)
    assert scan.id not in str(lineage.to_prov())


def test_nothing_is_written_where_one_may_only_look(
    catalog: Catalog, database: Database, tmp_path: Path
) -> None:
    from theatrum.catalog.errors import NotAllowed

    looking = LocalBackend(
        database, tmp_path / "files", "max", frozenset({"mice"}), frozenset()
    )
    image = Catalog(looking).images["mice/scan"]
    for attempt in (
        lambda: image.tag("x"),
        lambda: image.change(title="x"),
        lambda: image.delete(),
        lambda: image.add_roi("point", [1, 1]),
        lambda: image.derive("copy", lambda array: array).save(),
    ):
        with pytest.raises(NotAllowed):
            attempt()
    assert not (tmp_path / "files" / "derived").exists()
    assert catalog.annotations.count() == catalog.rois.count() == 0


def test_tags_values_comments_and_regions(catalog: Catalog, scan: CatalogImage) -> None:
    scan.tag("good", "seen", "good")
    scan.untag("seen")
    scan.set_value("dose", 2, unit="Gy")
    scan.set_value("dose", 3)
    scan.comment("left hemisphere")
    assert scan.tags == ["good"]
    assert scan.key_values == {"dose": 3}
    assert [one.text for one in scan.comments] == ["left hemisphere"]
    assert catalog.images.filter(tags="good", kv__dose__gt=2).one() == scan
    roi = scan.add_roi("line", [[0, 0], [5, 3]])
    assert (roi.x1, roi.y1, roi.author) == (5, 3, "erika")
    assert catalog.images.filter(rois__x1__gte=5).exists()
    scan.change(title="A scan")
    assert catalog.images["mice/scan"].title == "A scan"
    scan.delete()
    assert (
        catalog.images.count() == catalog.rois.filter(image__name="scan").count() == 0
    )


def test_what_the_catalogue_knows_itself_cannot_be_set(
    catalog: Catalog, scan: CatalogImage
) -> None:
    for wrong in ({"path": "/etc/passwd"}, {"run_id": "x"}, {"checksum": "0"}):
        with pytest.raises(BadRecord, match="by the catalogue"):
            scan.change(**wrong)
    with pytest.raises(BadRecord, match="title"):
        scan.change(titel="x")
    with pytest.raises(NotFound):
        scan.change(sample_id="0" * 12)
    with pytest.raises(BadRecord):
        catalog.backend.create("runs", {"requested_by": "x"})


def test_the_feed_goes_on_from_where_one_was(
    catalog: Catalog, scan: CatalogImage
) -> None:
    seen = [*catalog.changes()][-1].seq
    scan.tag("new")
    scan.change(title="Other")
    after = [*catalog.changes(after=seen)]
    assert [(one.kind, one.op, one.changed) for one in after] == [
        ("annotation", "create", []),
        ("image", "update", ["title"]),
    ]


def test_a_saved_query_takes_parameters(catalog: Catalog, scan: CatalogImage) -> None:
    from theatrum.catalog import Parameter

    asked = catalog.images.filter(spacing__lte=Parameter("most"), modality="MR")
    row = catalog.keep_query(
        asked, "fine", project="mice", parameters={"most": {"default": 1.0}}
    )
    assert row.author == "erika"
    assert catalog.saved("fine").count() == 0
    assert catalog.saved("fine", most=3).one() == scan
    with pytest.raises(BadQuery, match="most"):
        asked.count()
    with pytest.raises(BadRecord, match="already"):
        catalog.keep_query(asked, "fine", project="mice")


def test_a_version_stays_what_it_was(catalog: Catalog, scan: CatalogImage) -> None:
    version = catalog.freeze(catalog.images, "mice", "1", project="mice")
    scan.derive("more", lambda array: array).save()
    assert (version.row_count, catalog.images.count()) == (1, 2)
    assert manifest(version)["id"].to_pylist() == [scan.id]
    with pytest.raises(BadRecord, match="already"):
        catalog.freeze(catalog.images, "mice", "1", project="mice")


def test_images_become_a_bag_and_a_dataset(
    catalog: Catalog, scan: CatalogImage
) -> None:
    scan.derive("double", lambda array: array * 2).save("double")
    images = catalog.images.order_by("name")
    bag = images.to_bag().map(lambda array: (array.name, int(array.max())))
    assert bag.compute(scheduler="synchronous") == [("double", 714), ("scan", 357)]
    dataset = images.to_xarray()
    assert {*dataset.data_vars} == {"mice/double", "mice/scan"}
    assert all(one.chunks is not None for one in dataset.data_vars.values())
    assert int(dataset["mice/double"].max()) == 714


def test_an_array_from_nowhere_can_be_kept(catalog: Catalog) -> None:
    array = xr.DataArray(np.ones((4, 5), np.uint8), dims=("y", "x"))
    saved = catalog.save(array, "phantom", project="mice", node="simulation")
    assert saved.run.node.name == "simulation"


def test_a_project_is_made_by_who_may_write_to_all_and_by_nobody_else(
    catalog: Catalog,
) -> None:
    array = xr.DataArray(np.ones((4, 5), np.uint8), dims=("y", "x"))
    saved = catalog.save(array, "phantom", project="fresh")
    assert catalog.projects.get(name="fresh").id == saved.project_id
    with pytest.raises(BadRecord, match="cannot name a project"):
        catalog.save(array, "phantom", project="No Name")
    backend = catalog.backend
    assert isinstance(backend, LocalBackend)
    narrow = Catalog(replace(backend, projects=frozenset({"mice"})))
    with pytest.raises(NotFound, match="name another, or make it first"):
        narrow.save(array, "phantom", project="newer")


@pytest.mark.parametrize(
    ("units", "spacing"), [(None, 0.5), ("mm", 0.5), ("um", 0.0005), ("px", None)]
)
def test_lengths_are_kept_in_millimetres(
    catalog: Catalog, units: str | None, spacing: float | None
) -> None:
    attrs = {} if units is None else {"units": units}
    along = {dim: (dim, np.arange(8) * 0.5, attrs) for dim in ("y", "x")}
    array = xr.DataArray(np.ones((8, 8), np.uint8), dims=("y", "x"), coords=along)
    saved = catalog.save(array, "ruler", project="mice", node="simulation")
    assert saved.spacing == spacing
    if spacing is None:
        assert "x" not in saved.array.coords
    else:
        np.testing.assert_allclose(saved.array.coords["x"], np.arange(8) * spacing)


def pixels(picture: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(picture)


def test_a_picture_is_the_plane_as_radiologists_look(scan: CatalogImage) -> None:
    shown = pixels(scan.viewer.show(plane="ax", at=1, window=(100, 157)))
    # Rows twice as high as columns are wide: 6 x 8 voxels are 12 x 8 pixels.
    assert shown.shape == (12, 8)
    # Upper left: the front of the patient's right, y and x at their largest... of RAS.
    assert shown[0, 0] == shown.max()
    assert shown[-1, -1] == shown.min()
    coronal = scan.viewer.show(plane="cor", at=0.0)
    assert coronal.size == (8, 12)
    top = pixels(scan.viewer.show(plane="ax", project="max", window=(300, 357)))
    assert top[0, 0] == 255
    with pytest.raises(BadArray, match="ax, cor or sag"):
        scan.viewer.show(plane="diagonal")
    with pytest.raises(BadArray, match="max"):
        scan.viewer.show(project="maxi")


@given(
    count=st.integers(1, 4000),
    halvings=st.integers(0, 9),
    place=st.floats(0, 1, exclude_max=True),
)
def test_an_index_counts_the_planes_of_level_0(
    count: int, halvings: int, place: float
) -> None:
    index = int(place * count)
    planes = np.arange(count)
    for _ in range(halvings):
        planes = planes[::2]  # the first plane of level 0 in each
    found = picture.plane_at(index, count, len(planes))
    assert planes[found] <= index
    assert found == len(planes) - 1 or index < planes[found + 1]
    assert picture.plane_at(index - count, count, len(planes)) == found
    with pytest.raises(BadArray, match=f"0 to {count - 1}"):
        picture.plane_at(count, count, len(planes))


def test_a_large_image_is_shown_at_the_plane_that_was_asked_for(
    catalog: Catalog,
) -> None:
    # Of 2100 columns a coarser level is drawn, that has half as many planes.
    planes = np.arange(9, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2100), "u1")
    along = {
        dim: (dim, np.arange(n) * 1.0)
        for dim, n in zip("zyx", planes.shape, strict=True)
    }
    array = xr.DataArray(planes, dims=("z", "y", "x"), coords=along)
    saved = catalog.save(array, "long", project="mice", node="simulation")
    assert saved.n_levels > 1
    for index in (0, 4, 7, 8):
        shown = saved.viewer.show(at=index, window=(0, 255))
        assert abs(int(pixels(shown).max()) - index) <= 1
    with pytest.raises(BadArray, match="0 to 8"):
        saved.viewer.show(at=9)


def test_a_viewer_leafs_through_the_planes(scan: CatalogImage) -> None:
    box = scan.viewer()
    controls, picture = box.children
    plane, at, _ = controls.children
    assert (at.max, at.value) == (3, 2)
    before = bytes(picture.value)
    plane.value = "sag"
    assert (at.max, at.value) == (7, 4)
    assert bytes(picture.value) != before


def test_a_notebook_shows_thumbnails(catalog: Catalog, scan: CatalogImage) -> None:
    assert "data:image/jpeg;base64" in catalog.images._repr_html_()
    assert "data:image/jpeg;base64" in scan._repr_html_()
    assert max(scan.thumbnail(6).size) == 6
    assert scan.viewer._repr_png_().startswith(b"\x89PNG")


def test_a_lineage_of_many_steps_tells_each_thing_once(scan: CatalogImage) -> None:
    steps = 18
    things = {("image", str(at)): {"name": f"step {at}"} for at in range(steps + 1)}
    runs = tuple(
        Made(
            id=str(at), node="add", version="", params={}, state="succeeded",
            requested_by="erika", on_behalf_of=None, started_at=None, ended_at=None,
            used=tuple(("image", ("image", str(one))) for one in (at - 1, 0, at // 2)),
            made=(("image", ("image", str(at))),),
        )
        for at in range(1, steps + 1)
    )  # fmt: skip
    found = Lineage(("image", str(steps)), things, runs)
    lines = found.tree().splitlines()
    assert len(lines) <= 4 * steps + 1
    told = [line.strip().removeprefix("by ") for line in lines]
    assert sorted(
        one for one in told if one.startswith("image") and ")" not in one
    ) == (sorted(f"image step {at}" for at in range(steps + 1)))
    assert "image step 0 (see above)" in told
    assert len(found._repr_html_()) < 1000 * steps * 4
