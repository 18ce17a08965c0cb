"""A folder of one CT series is one scan: its slices in order, and where they lie."""

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tests.extensions.structures.series import ct_series
from tile_server.errors import UnreadableSlide
from tile_server.readers import open_slide
from tile_server.readers.planes import Plane
from tile_server.readers.rendering import planes_of
from tile_server.versions import file_version
from tile_server.view import describe

OBLIQUE = (0.8, 0.6, 0, -0.6, 0.8, 0)


def written(folder, images, order=None):
    folder.mkdir(exist_ok=True, parents=True)
    for at, image in enumerate(images):
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = at if order is None else order[at]
        image.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return folder


def pixels(slices=6):
    return np.arange(slices * 40 * 50).reshape(slices, 40, 50) % 3000 - 1000


def test_slices_lie_in_the_order_of_the_patient_not_of_the_files(tmp_path):
    images = ct_series(pixels=pixels())
    folder = written(tmp_path / "CT", images, order=[3, 5, 0, 2, 1, 4])
    with open_slide(folder) as reader:
        planes = planes_of(reader)
        assert planes.planes.depths == 6
        for z in range(6):
            read = planes.read_plane(0, 0, 0, (50, 40), plane=Plane(z=z))
            assert (read == pixels()[z]).all()
        box = planes.read_plane(0, 10, 20, (7, 5), plane=Plane(z=2))
        assert (box == pixels()[2, 20:25, 10:17]).all()


def test_it_says_where_every_voxel_lies_in_the_patient(tmp_path):
    from theatrum.structures import series_geometry

    images = ct_series(cosines=OBLIQUE)
    with open_slide(written(tmp_path / "CT", images)) as reader:
        view = describe(reader)
    assert np.allclose(view["affine_lps"], series_geometry(images).affine_lps)
    assert (view["z"], view["unit"], view["z_step_um"]) == (6, "HU", 2500.0)
    assert view["mpp_x"] == pytest.approx(1100)


def test_more_files_than_are_kept_open_are_read_as_well(tmp_path):
    images = ct_series(slices=40, pixels=pixels(40))
    with open_slide(written(tmp_path / "CT", images)) as reader:
        planes = planes_of(reader)
        for z in (*range(40), 0, 39):
            read = planes.read_plane(0, 0, 0, (50, 40), plane=Plane(z=z))
            assert (read == pixels(40)[z]).all()


def test_other_files_in_the_folder_are_passed_over(tmp_path):
    folder = written(tmp_path / "CT", ct_series())
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden").write_bytes(b"")
    with open_slide(folder) as reader:
        assert describe(reader)["z"] == 6


def test_slices_that_are_scaled_each_by_itself_are_floats(tmp_path):
    images = ct_series()
    for at, image in enumerate(images):
        image.Modality, image.RescaleSlope = "PT", 0.5 + at / 8
        image.RescaleIntercept = 0
    with open_slide(written(tmp_path / "PT", images)) as reader:
        planes = planes_of(reader)
        assert planes.planes.dtype == "float32"
        read = planes.read_plane(0, 0, 0, (2, 2), plane=Plane(z=5))
        assert (read == 5 * (0.5 + 5 / 8)).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda images: images.pop(2), "lacks an image"),
        (lambda images: setattr(images[1], "Rows", 20), "different sizes"),
        (lambda images: delattr(images[1], "ImagePositionPatient"), "where it lies"),
        (lambda images: setattr(images[1], "SeriesInstanceUID", "1.2"), "several"),
        (
            lambda images: setattr(
                images[1], "ImagePositionPatient", images[0].ImagePositionPatient
            ),
            "the same place",
        ),
        (
            lambda images: setattr(
                images[1], "ImageOrientationPatient", [0, 1, 0, 0, 0, 1]
            ),
            "not parallel",
        ),
    ],
)
def test_images_that_are_no_scan_are_refused_with_the_reason(tmp_path, change, word):
    images = ct_series()
    change(images)
    with pytest.raises(UnreadableSlide, match=word):
        open_slide(written(tmp_path / "CT", images))


def test_a_folder_without_images_is_refused_as_before(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableSlide, match="holds no DICOM"):
        open_slide(tmp_path / "empty")


def test_its_version_changes_with_any_of_its_files(tmp_path):
    folder = written(tmp_path / "CT", ct_series())
    before = file_version(folder)
    (folder / "3.dcm").write_bytes((folder / "3.dcm").read_bytes() + b"\0")
    assert file_version(folder) != before
