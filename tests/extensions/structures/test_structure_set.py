import io
from datetime import datetime

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from theatrum.structures import (
    BadStructures,
    Drawn,
    dice,
    mask,
    read,
    series_geometry,
    structure_set,
)

from tests.extensions.structures.series import AXIAL, ct_series

NOW = datetime(2026, 1, 2, 3, 4, 5)
OBLIQUE = (0.96, 0.28, 0.0, 0.0, 0.0, -1.0)


def shapes(slices=6, rows=40, columns=50):
    z, y, x = np.mgrid[:slices, :rows, :columns]
    ball = ((z - 3) / 3) ** 2 + ((y - 20) / 12) ** 2 + ((x - 25) / 15) ** 2 <= 1
    core = ((y - 20) / 4) ** 2 + ((x - 25) / 4) ** 2 <= 1
    return {"Shell": ball & ~core, "Core": core & ball, "Nothing": np.zeros_like(ball)}


def made(images, drawn=None, **more):
    geometry = series_geometry(images)
    return geometry, structure_set(
        [Drawn(name, one, (9, 8, 7)) for name, one in (drawn or shapes()).items()],
        images,
        geometry,
        label="Theatrum test label",
        series_description="Segmentation",
        made_at=NOW,
        **more,
    )


@pytest.mark.parametrize("cosines", [AXIAL, OBLIQUE])
def test_masks_come_back_from_a_structure_set_voxel_for_voxel(cosines):
    images = ct_series(cosines=cosines)
    geometry, dataset = made(images)
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    back = read(pydicom.dcmread(io.BytesIO(written.getvalue())))
    for name, wanted in shapes().items():
        assert np.array_equal(mask(back.roi(name), geometry), wanted), name
    assert back.roi("Shell").colour == (9, 8, 7)
    assert back.roi("Nothing").contours == ()
    assert back.label == "Theatrum test la"
    assert back.series_instance_uids == (images[0].SeriesInstanceUID,)
    assert back.frame_of_reference_uids == (geometry.frame_of_reference_uid,)


def test_every_contour_names_the_image_that_it_lies_on():
    images = ct_series()
    _, dataset = made(images)
    heights = {one.SOPInstanceUID: one.ImagePositionPatient[2] for one in images}
    for roi in read(dataset).rois:
        for contour in roi.contours:
            assert set(contour.points_mm[:, 2]) == {heights[contour.sop_instance_uid]}


def test_a_structure_set_is_unapproved_and_belongs_to_the_patient_of_its_images():
    images = ct_series()
    _, dataset = made(images)
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert dataset.PatientID == "P-1"
    assert dataset.StudyInstanceUID == images[0].StudyInstanceUID
    for present in ("StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        assert present in dataset


def test_a_step_that_runs_twice_makes_the_same_file():
    images = ct_series()
    uids = {"SOPInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}
    files = []
    for _ in range(2):
        written = io.BytesIO()
        made(images, uids=uids)[1].save_as(written, enforce_file_format=True)
        files.append(written.getvalue())
    assert files[0] == files[1]


def test_a_mask_of_other_images_is_refused():
    with pytest.raises(BadStructures, match="not of these images"):
        made(ct_series(), {"a": np.zeros((1, 2, 3), bool)})


def test_a_contour_beside_the_series_is_refused():
    images = ct_series()
    _, dataset = made(images)
    with pytest.raises(BadStructures, match="no image of this series"):
        mask(read(dataset).roi("Shell"), series_geometry(images[:3]))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: setattr(one, "SOPClassUID", "1.2.3"),
        lambda one: delattr(one.StructureSetROISequence[0], "ROINumber"),
        lambda one: setattr(
            one.ROIContourSequence[0].ContourSequence[0], "ContourData", [1, 2]
        ),
    ],
)
def test_a_damaged_structure_set_is_refused(change):
    _, dataset = made(ct_series())
    change(dataset)
    with pytest.raises(BadStructures):
        read(dataset)
    with pytest.raises(BadStructures):
        read(Dataset())


def test_a_name_that_is_not_there_is_answered_with_those_that_are():
    _, dataset = made(ct_series())
    with pytest.raises(BadStructures, match="Core, Nothing, Shell"):
        read(dataset).roi("Heart")


def test_the_lungs_of_the_phantom_agree_with_the_masks_of_another_program(shared_data):
    folder = shared_data / "ct_rtstruct" / "alderson_lungs"
    images = [pydicom.dcmread(file) for file in sorted((folder / "CT").iterdir())]
    geometry = series_geometry(images)
    back = read(pydicom.dcmread(folder / "RS_matched.dcm"))
    lungs = mask(back.roi("Lung_L"), geometry) | mask(back.roi("Lung_R"), geometry)
    reference = np.zeros_like(lungs)
    for side in ("Lung_L", "Lung_R"):
        picture = nibabel.load(folder / "masks" / f"{side}.nii.gz")
        places = np.argwhere(np.asarray(picture.dataobj) > 0)
        ras = nibabel.affines.apply_affine(picture.affine, places)
        x, y, z = np.rint(geometry.to_voxels(ras * (-1, -1, 1))).astype(int).T
        reference[z, y, x] = True
    assert dice(lungs, reference) > 0.97
    drawn = {"Lungs": lungs}
    _, again = made(images, drawn)
    assert dice(mask(read(again).roi("Lungs"), geometry), lungs) == 1.0
