import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from theatrum.structures import (
    BadGeometry,
    in_order,
    problems,
    series_geometry,
    volume,
)

from tests.extensions.structures.series import AXIAL, ct_series

SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)
OBLIQUE = (0.96, 0.28, 0.0, 0.0, 0.0, -1.0)


@pytest.mark.parametrize("cosines", [AXIAL, SAGITTAL, CORONAL, OBLIQUE])
def test_every_voxel_lies_where_its_image_says(cosines):
    images = ct_series(cosines=cosines)
    geometry = series_geometry(images[::-1])
    assert geometry.size == (50, 40, 6)
    assert geometry.spacing_mm == pytest.approx((1.1, 0.9, 2.5))
    for z, image in enumerate(in_order(images)):
        assert geometry.sop_instance_uids[z] == image.SOPInstanceUID
        corner = geometry.to_patient([[0, 0, z]])[0]
        assert corner == pytest.approx(image.ImagePositionPatient, abs=1e-5)
        right = geometry.to_patient([[1, 0, z]])[0] - corner
        assert right == pytest.approx(np.array(cosines[:3]) * 1.1)
        down = geometry.to_patient([[0, 1, z]])[0] - corner
        assert down == pytest.approx(np.array(cosines[3:]) * 0.9)


@given(
    st.lists(
        st.tuples(*[st.floats(-500, 500)] * 3),
        min_size=1,
        max_size=5,
    )
)
def test_points_come_back_from_the_patient_where_they_were(points):
    geometry = series_geometry(ct_series(cosines=OBLIQUE))
    back = geometry.to_voxels(geometry.to_patient(points))
    assert back == pytest.approx(np.array(points), abs=1e-6)


def test_a_volume_holds_hounsfield_units_slice_by_slice():
    pixels = np.arange(6 * 40 * 50).reshape(6, 40, 50) % 3000 - 1000
    images = ct_series(pixels=pixels)
    made = volume(images[::-1])
    assert made.modality == "CT"
    assert np.array_equal(made.array, pixels)
    assert made.array.dtype == np.int16


def spoiled(change, at=2):
    images = ct_series()
    change(images[at])
    return images


def moved(x=0.0, y=0.0, z=0.0):
    def change(image):
        where = np.array(image.ImagePositionPatient) + np.array((x, y, z))
        image.ImagePositionPatient = [float(part) for part in where]

    return change


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (lambda: spoiled(moved(z=-2.5)), "duplicate"),
        (lambda: spoiled(moved(z=-2.0)), "gap"),
        (lambda: [one for at, one in enumerate(ct_series()) if at != 3], "gap"),
        (lambda: spoiled(lambda one: setattr(one, "Rows", 41)), "mixed"),
        (lambda: spoiled(lambda one: setattr(one, "PixelSpacing", [1, 1])), "mixed"),
        (
            lambda: spoiled(lambda one: setattr(one, "FrameOfReferenceUID", "1.2")),
            "frames of reference",
        ),
        (
            lambda: spoiled(
                lambda one: setattr(one, "ImageOrientationPatient", list(OBLIQUE))
            ),
            "parallel",
        ),
        (lambda: spoiled(lambda one: delattr(one, "ImagePositionPatient")), "no Image"),
        (list, "no image"),
    ],
)
def test_a_series_that_is_no_volume_is_refused_with_the_reason(images, why):
    with pytest.raises(BadGeometry, match=why):
        series_geometry(images())


def test_a_tilted_gantry_is_told_and_its_volume_stands():
    images = ct_series()
    for z, image in enumerate(images):
        moved(y=0.7 * z)(image)
    assert [one.split(":")[0] for one in problems(images)] == ["tilt"]
    geometry = series_geometry(images)
    assert geometry.to_patient([[0, 0, 5]])[0] == pytest.approx(
        images[5].ImagePositionPatient
    )


def test_a_missing_slice_of_a_real_series_is_found(shared_data):
    import pydicom

    folder = shared_data / "malformed" / "ct_missing_slice"
    headers = [pydicom.dcmread(file, force=True) for file in folder.rglob("*.dcm")]
    if not headers:
        pytest.skip("the series with a gap is not here")
    assert any(one.startswith("gap") for one in problems(headers))


def lifted(millimetres):
    """A series whose slices lie so much above their places."""
    images = ct_series(slices=len(millimetres))
    for image, more in zip(images, millimetres, strict=True):
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, z + more]
    return images


def test_steps_that_differ_a_little_and_add_up_are_no_even_steps():
    # 2.5 mm for the first half and 2.7 mm for the second: none is 10 % off the usual.
    drift = [0.0] * 20 + [0.2 * at for at in range(1, 21)]
    images = lifted(drift)
    (problem,) = problems(images)
    assert problem.startswith("gap: slice 20")
    with pytest.raises(BadGeometry):
        series_geometry(images)


def test_positions_that_were_rounded_are_even_steps():
    assert problems(lifted([0.0, 0.05, -0.05, 0.05, 0.0, 0.04])) == []


def test_a_slice_beside_the_others_is_told():
    images = ct_series()
    x, y, z = images[3].ImagePositionPatient
    images[3].ImagePositionPatient = [x + 4, y, z]
    (problem,) = problems(images)
    assert problem.startswith("shift: slice 4 lies")
    with pytest.raises(BadGeometry):
        series_geometry(images)


def test_a_tilted_gantry_with_a_missing_slice_has_a_gap_and_no_shift():
    images = ct_series(slices=12)
    for at, image in enumerate(images):
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y + 0.9 * at, z]
    del images[5]
    assert [one.split(":")[0] for one in problems(images)] == ["gap", "tilt"]
