"""Scans in a notebook: opened, contoured, compared, shown."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
from theatrum.errors import FileMissing, Unreadable
from theatrum.hub_images import images as catalogue
from theatrum.node import Labels
from theatrum.series import Series, open_series
from theatrum.structures import Drawn, StructureError, series_geometry, structure_set

from tests.extensions import contract_catalog
from tests.extensions.structures.series import ct_series
from tests.tile_server.test_dicom_series import written

SHAPE = (8, 40, 50)


def box() -> np.ndarray:
    made = np.zeros(SHAPE, bool)
    made[2:6, 10:30, 12:40] = True
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series in `CT`, and structure sets beside it: mine and theirs."""
    images = ct_series(slices=8, pixels=np.where(box(), 40, -900))
    written(tmp_path / "CT", images)
    for name, area in (("mine", box()), ("theirs", np.roll(box(), 1, axis=2))):
        made = structure_set(
            [Drawn("Liver", area, (255, 0, 0)), Drawn("Empty", ~np.ones(SHAPE, bool))],
            images,
            series_geometry(images),
            label=name,
            series_description=name,
            made_at=datetime(2026, 3, 17, tzinfo=UTC),
        )
        made.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    return tmp_path


def test_a_folder_of_a_series_is_one_volume(folder: Path) -> None:
    scan = open_series(folder / "CT")
    assert scan.shape == SHAPE
    assert (scan.volume.array[box()] == 40).all()
    assert "50 x 40 x 8 voxels of 1.1 x 0.9 x 2.5 mm" in repr(scan)


def test_a_structure_set_gives_contours_and_masks(folder: Path) -> None:
    scan = open_series(folder / "CT")
    mine = scan.structures(folder / "mine.dcm")
    assert list(mine) == ["Liver", "Empty"]
    assert (mine["Liver"] == box()).all()
    assert len(mine.contours("Liver")) == 4
    assert mine.contours("Liver")[0].shape[1] == 3
    assert mine.volume_ml("Liver") == pytest.approx(box().sum() * 1.1 * 0.9 * 2.5e-3)
    with pytest.raises(KeyError, match="Liver"):
        mine["Spleen"]


def test_structure_sets_are_compared(folder: Path) -> None:
    scan = open_series(folder / "CT")
    mine, theirs = (scan.structures(folder / f"{n}.dcm") for n in ("mine", "theirs"))
    agreement = mine.compare(theirs)
    assert agreement["Liver"].dice == pytest.approx(27 / 28)
    assert agreement["Liver"].hausdorff_95_mm == pytest.approx(1.1)
    assert "0.964" in repr(agreement)
    assert "<td>Liver</td><td>0.964</td>" in agreement._repr_html_()
    with pytest.raises(StructureError, match="Say which belong together"):
        mine.compare(scan.labelled(Labels(box(), {1: "x"}, affine_lps=np.eye(4))))


def test_what_a_node_found_is_compared_with_what_a_person_drew(folder: Path) -> None:
    scan = open_series(folder / "CT")
    found = Labels(
        box().astype(np.uint8), {1: "Found"}, affine_lps=scan.volume.affine_lps
    )
    agreement = scan.labelled(found).compare(
        scan.structures(folder / "mine.dcm"), {"Found": "Liver"}
    )
    assert agreement["Found"].dice == 1.0


def test_a_structure_set_of_other_images_is_refused(folder: Path) -> None:
    other = written(folder / "other", ct_series(slices=8))
    with pytest.raises(StructureError, match="other images"):
        open_series(other).structures(folder / "mine.dcm")


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_viewer_shows_slices_with_outlines(folder: Path, plane: str) -> None:
    scan = open_series(folder / "CT")
    viewer = scan.show(scan.structures(folder / "mine.dcm"))
    viewer.plane.value = plane
    with PIL.Image.open(io.BytesIO(viewer.picture)) as shown:
        red = (np.asarray(shown) == (255, 0, 0)).all(axis=2)
    assert red.any()
    viewer.shown.value = ()
    with PIL.Image.open(io.BytesIO(viewer.picture)) as shown:
        assert not (np.asarray(shown) == (255, 0, 0)).all(axis=2).any()
    before = viewer.picture
    viewer.window.value = (-600.0, 1500.0)
    assert viewer.picture != before


def test_every_control_of_the_viewer_has_a_label(folder: Path) -> None:
    scan = open_series(folder / "CT")
    viewer = scan.show(*[scan.structures(folder / "mine.dcm")] * 2)
    for control in (viewer.plane, viewer.slice, viewer.window, viewer.shown):
        assert control.description
    # The same name in two sets is two structures.
    assert viewer.shown.options == ("Liver", "Empty", "Liver (2)", "Empty (2)")


def test_a_folder_of_two_series_says_so(folder: Path) -> None:
    other = ct_series(slices=2)
    for at, image in enumerate(other):
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(folder / "CT" / f"x{at}.dcm", enforce_file_format=True)
    with pytest.raises(Unreadable, match="2 series"):
        open_series(folder / "CT")
    with pytest.raises(FileMissing):
        open_series(folder / "nowhere")


def test_a_series_of_the_catalogue_opens_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contract_catalog.running_catalog() as catalog:
        catalog.add("teaching", folder / "CT")
        monkeypatch.setenv("THEATRUM_CATALOG_URL", catalog.url)
        monkeypatch.setenv("JUPYTERHUB_API_TOKEN", contract_catalog.TOKEN)
        image = catalogue["teaching/CT"]
        assert image.scan is not None
        scan = open_series("teaching/CT")
    local = open_series(folder / "CT")
    assert isinstance(scan, Series)
    assert (scan.volume.array == local.volume.array).all()
    assert np.allclose(scan.volume.affine_lps, local.volume.affine_lps)
    assert scan.volume.modality == "CT"
    mine = scan.structures(pydicom.dcmread(folder / "mine.dcm"))
    assert (mine["Liver"] == box()).all()
