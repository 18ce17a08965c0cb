"""T4: whatever way the axes are stored, the same voxels lie at the same places."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK
from theatrum.catalog.formats import Scene, open_scenes
from theatrum.catalog.formats.geometry import orientation

from tests.extensions.catalog.formats import scans

ALL = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def _on_the_grid(scene: Scene) -> np.ndarray:
    array = scene.array.transpose("x", "y", "z").values
    return scans.to_ras(array, scene.affine_ras)


@pytest.mark.parametrize(("order", "flips"), ALL)
def test_48_orders_and_flips_of_a_nifti_give_the_same_ras_voxels(
    tmp_path: Path, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    array, affine = scans.turned(order, flips)
    path = tmp_path / "turned.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    (scene,) = open_scenes([path])
    assert scene.orientation == "".join(nibabel.aff2axcodes(affine))
    assert np.array_equal(_on_the_grid(scene), scans.phantom())


@pytest.mark.parametrize(("order", "flips"), ALL)
def test_48_orders_and_flips_of_a_dicom_series_give_the_same_ras_voxels(
    tmp_path: Path, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    array, affine = scans.turned(order, flips)
    (scene,) = open_scenes(scans.write_series(tmp_path, array, affine), "dicom")
    assert scene.convention == "LPS"
    assert scene.warnings == ()
    # z goes along the normal: the third letter may be the other way round.
    assert scene.orientation[:2] == "".join(nibabel.aff2axcodes(affine))[:2]
    assert np.array_equal(_on_the_grid(scene), scans.phantom())


@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd", "nhdr", "nii", "hdr"])
def test_what_simpleitk_writes_lies_where_simpleitk_says(
    tmp_path: Path, ending: str
) -> None:
    array, affine = scans.turned((2, 0, 1), (True, False, True))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / steps).reshape(-1).tolist())
    path = tmp_path / f"image.{ending}"
    SimpleITK.WriteImage(image, str(path), ending in ("mha", "nrrd"))
    (scene,) = open_scenes([path])
    assert np.allclose(scene.affine_ras, affine, atol=1e-4)
    assert np.array_equal(_on_the_grid(scene), scans.phantom())


@pytest.mark.parametrize("ending", ["mgh", "mgz"])
def test_mgh_lies_where_nibabel_says(tmp_path: Path, ending: str) -> None:
    array, affine = scans.turned((1, 0, 2), (True, True, False))
    path = tmp_path / f"brain.{ending}"
    nibabel.save(nibabel.MGHImage(array.astype(np.int16), affine), path)
    (scene,) = open_scenes([path])
    assert scene.format == "MGH"
    assert np.allclose(scene.affine_ras, affine, atol=1e-4)
    assert np.array_equal(_on_the_grid(scene), scans.phantom())


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("space", ["right-anterior-superior", "LPS", "LAS"])
def test_nrrd_of_every_space_and_encoding_lies_right(
    tmp_path: Path, encoding: str, space: str
) -> None:
    affine = scans.ras_affine()
    signs = {"right-anterior-superior": [1, 1], "LPS": [-1, -1], "LAS": [-1, 1]}[space]
    own = np.diag([*signs, 1.0, 1.0]) @ affine
    path = tmp_path / "scan.nrrd"
    nrrd.write(
        str(path),
        scans.phantom(),
        {
            "space": space,
            "space directions": own[:3, :3].T,
            "space origin": own[:3, 3],
            "encoding": encoding,
            "kinds": ["domain"] * 3,
        },
    )
    (scene,) = open_scenes([path])
    assert scene.orientation == "RAS"
    assert np.array_equal(_on_the_grid(scene), scans.phantom())


def test_a_flat_affine_has_no_orientation() -> None:
    assert orientation(np.diag([1.0, 1.0, 0.0, 1.0]), "RAS") == ""
    assert orientation(np.full((4, 4), np.nan), "RAS") == ""
    assert orientation(None, "") == ""
