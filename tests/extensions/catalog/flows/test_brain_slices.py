"""The recipe "brain-slices": same affine, same voxels as the reference; true slices."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import (
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)
from theatrum.catalog import connect
from theatrum.catalog.arrays import open_array
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine import Batch
from theatrum.catalog.flows.recipes import brain_slices
from theatrum.catalog.record import recording
from theatrum.node import Context, affine_of
from theatrum.nodes.catalog import orient, to_nifti

MRI = {
    "siemens_anatomical": "001_ground_truth.nii.gz",
    "philips_anatomical": "001_ground_truth.nii.gz",
    "compressed_j2k": "001_ground_truth.nii.gz",
    "compressed_rle": "001_ground_truth.nii.gz",
    "siemens_epi_AP": "EPI_PE=AP_3.nii",
    "siemens_epi_PA": "EPI_PE=PA_4.nii",
    "siemens_epi_RL": "EPI_PE=RL_5.nii",
    "siemens_epi_LR": "EPI_PE=LR_6.nii",
    "philips_epi": "EPI_asc_CLEAR_201.nii",
    "philips_multiframe": "001_ground_truth.nii.gz",
}


def ras(path: Path) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Return voxels (x, y, z[, t]) and affine of a NIfTI file, in RAS by nibabel."""
    image = nibabel.load(path)
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt("RAS"))
    turned = image.as_reoriented(change)
    return np.asarray(turned.dataobj), turned.affine


def study(folder: Path, paths: dict[str, Path]) -> Catalog:
    catalog = connect(folder / "home", user="erika")
    with recording(catalog.backend.database, "erika") as book:
        brains = book.project("brains")
        for name, path in paths.items():
            book.image(
                brains, path=str(path), name=name, kind="original", modality="MR"
            )
    return catalog


def generated(folder: Path) -> dict[str, Path]:
    """Write volumes that lie in four ways, with an oblique one and one of shorts."""
    folder.mkdir()
    z, y, x = np.mgrid[:14, :18, :16]
    values = 50 + 300 * ((x - 8) ** 2 + (y - 9) ** 2 + (z - 7) ** 2 < 36) + x + 3 * z
    turn = np.eye(4)
    turn[:3, :3] = [[0.98, -0.17, 0], [0.17, 0.98, 0], [0, 0, 1]]
    found = {}
    for name, affine in {
        "ras": np.diag([1.0, 1.2, 2.0, 1]),
        "las": np.diag([-1.0, 1.2, 2.0, 1]),
        "oblique": turn @ np.diag([1.0, 1.0, 1.5, 1]),
        "pil": np.array(
            [[0, 0, -1.0, 9], [-1.0, 0, 0, 8], [0, -1.5, 0, 7], [0, 0, 0, 1]]
        ),
    }.items():
        found[name] = folder / f"{name}.nii.gz"
        image = nibabel.Nifti1Image(values.transpose(2, 1, 0).astype(np.int16), affine)
        nibabel.save(image, found[name])
    return found


def same_place_and_voxels(array: object, reference: Path, folder: Path) -> None:
    """Compare what we turned and wrote with what nibabel made of the reference."""
    file = to_nifti(orient(array), context=Context(folder=folder))
    mine = nibabel.load(file.path)
    voxels, affine = ras(reference)
    assert np.allclose(mine.affine, affine, atol=2e-3)
    assert np.allclose(np.asarray(mine.dataobj).squeeze(), voxels.squeeze(), rtol=1e-4)


def test_generated_volumes_have_the_affine_and_voxels_of_nibabel(
    tmp_path: Path,
) -> None:
    for name, path in generated(tmp_path / "in").items():
        same_place_and_voxels(open_array(path), path, tmp_path / name)


@pytest.mark.parametrize("series", sorted(MRI))
def test_dicom_series_have_the_affine_and_voxels_of_their_reference(
    shared_data: Path, series: str, tmp_path: Path
) -> None:
    folder = shared_data / "mri" / series
    reference = folder / "reference" / MRI[series]
    array = open_array(folder / "dicom")
    same_place_and_voxels(array, reference, tmp_path)


def run(catalog: Catalog, **how: object) -> Batch:
    originals = catalog.images.filter(kind="original")
    flow = brain_slices(**how)  # type: ignore[arg-type]
    batch = originals.apply(flow, engine="sync").wait(250)
    assert not batch.failures, batch.failures
    return batch


def test_slices_are_those_of_the_reference_in_each_plane(tmp_path: Path) -> None:
    paths = generated(tmp_path / "in")
    catalog = study(tmp_path, paths)
    batch = run(catalog, central=0, pictures=False, store="float16", low=0, high=100)
    for name, path in paths.items():
        voxels, _ = ras(path)
        item = catalog.images.get(name=name).id
        for plane, shown in {
            # RAS voxels as (slice, row, column): rows down, the patient's right left.
            "ax": voxels[::-1, ::-1, :].transpose(2, 1, 0),
            "cor": voxels[::-1, :, ::-1].transpose(1, 2, 0),
            "sag": voxels[:, ::-1, ::-1].transpose(0, 2, 1),
        }.items():
            key = batch.runs.get(item_key=item, node_key=f"store-{plane}").id
            stack = catalog.images.get(run_id=key)
            values = stack.array.values.astype(float)
            assert values.shape == shown.shape
            body = values > 0.01
            pair = np.corrcoef(values[body], shown[body])
            assert pair[0, 1] > 0.999
            assert stack.plane == plane


def test_quality_and_pictures_are_kept_beside_the_slices(tmp_path: Path) -> None:
    paths = generated(tmp_path / "in")
    catalog = study(tmp_path, {"ras": paths["ras"]})
    batch = run(catalog, central=8)
    told = {one["node"]: one for one in batch.numbers()}
    assert told["quality-ax"]["slices"] == 8
    assert told["quality-ax"]["blank_percent"] == 0
    assert told["quality-sag"]["left_right"] == "by the affine, not proven"
    assert 0 <= told["quality-cor"]["clipped_percent"] < 10
    stack = catalog.images.get(run_id=batch.runs.get(node_key="store-cor").id)
    assert stack.dtype == "uint16"
    assert stack.attrs["slice_indices"] == list(range(5, 13))
    image = catalog.images.get(name="ras")
    kinds = {one.role for one in catalog.assets.filter(owner_kind="image")}
    assert kinds == {"render", "thumbnail"}
    start = batch.runs.get(node_key="rescale")
    assert start.inputs.first().object_id == image.id


def test_another_quality_of_pictures_finds_all_else_in_the_cache(
    tmp_path: Path,
) -> None:
    paths = generated(tmp_path / "in")
    catalog = study(tmp_path, {"ras": paths["ras"]})
    run(catalog, planes=("ax",))
    again = run(catalog, planes=("ax",), quality=50)
    assert {one.node_key for one in again.runs.filter(state="succeeded")} == {"jpg-ax"}


def test_options_of_the_recipe_do_what_they_say(tmp_path: Path) -> None:
    paths = generated(tmp_path / "in")
    catalog = study(tmp_path, {"las": paths["las"]})
    batch = run(catalog, resample_mm=1.0, planes=("ax",), to="LPS", central=0)
    volume = catalog.images.get(run_id=batch.runs.get(node_key="resample").id)
    assert volume.spacing == pytest.approx(1.0)
    oriented = catalog.images.get(run_id=batch.runs.get(node_key="orient").id)
    assert oriented.orientation == "LPS"
    assert oriented.attrs["orientation_before"] == "LAS"
    assert np.allclose(
        np.abs(affine_of(volume.array)[:3, :3]).sum(axis=0), 1.0, atol=1e-6
    )
    looked = brain_slices(review=True, planes=("ax",))
    assert looked.step("review-ax").kind == "review"


def test_series_in_time_become_one_volume_first(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 900, (10, 11, 12, 3)).astype(np.int16)
    path = tmp_path / "bold.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    catalog = study(tmp_path, {"bold": path})
    batch = run(catalog, frame="mean", planes=("ax",), pictures=False, central=0)
    frame = catalog.images.get(run_id=batch.runs.get(node_key="frame").id)
    assert np.allclose(frame.array, values.mean(axis=3).transpose(2, 1, 0))
