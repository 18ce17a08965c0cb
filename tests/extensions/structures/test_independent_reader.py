"""Structure sets against a reader that shares no line with the one that made them.

It reads with plain pydicom, brings each contour into the pixels of the very image that
the contour names (PS3.3, equation C.7.6.2.1-1, solved by least squares), and fills it
with scikit-image. Contours of one image are combined by exclusive or.
"""

import numpy as np
import pytest
from skimage.draw import polygon2mask
from theatrum.structures import in_order

from tests.extensions.structures.series import AXIAL, ct_series
from tests.extensions.structures.test_structure_set import made, shapes

TURNED = tuple(
    np.round(np.array([[0.8, 0.36, 0.48], [-0.6, 0.48, 0.64]]).ravel(), 6).tolist()
)
"""Oblique in every axis, as MR is."""


def tilted(images):
    """A gantry tilted by some 20 degrees: every slice lies further back."""
    for at, image in enumerate(in_order(images)):
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y + 0.91 * at, z]
    return images


def feet_first(images):
    """Numbered and stored from the feet on, against the normal."""
    return images[::-1]


def uneven(images):
    """Positions as consoles round them: never quite the same step."""
    for at, image in enumerate(in_order(images)):
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, round(z + 0.1 * (at % 2), 2)]
    return images


SERIES = {
    "axial": lambda: ct_series(),
    "oblique": lambda: ct_series(cosines=TURNED),
    "gantry tilt": lambda: tilted(ct_series()),
    "feet first": lambda: feet_first(ct_series()),
    "upside down": lambda: ct_series(cosines=(1, 0, 0, 0, -1, 0)),
    "thin pixels": lambda: ct_series(spacing=(0.3, 2.0), step=7.5),
    "uneven steps": lambda: uneven(ct_series()),
}


def independent_masks(dataset, images, tolerance_mm):
    """Masks by the structure's name, [z, y, x], slices in the order of `images`."""
    order = {str(one.SOPInstanceUID): at for at, one in enumerate(images)}
    names = {one.ROINumber: one.ROIName for one in dataset.StructureSetROISequence}
    found = {}
    for item in dataset.ROIContourSequence:
        shape = (len(images), images[0].Rows, images[0].Columns)
        mask = np.zeros(shape, dtype=bool)
        for contour in item.get("ContourSequence", []):
            (named,) = contour.ContourImageSequence
            at = order[str(named.ReferencedSOPInstanceUID)]
            image = images[at]
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert contour.NumberOfContourPoints == len(points)
            cosines = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
            down, right = (float(one) for one in image.PixelSpacing)
            axes = np.column_stack([cosines[0] * right, cosines[1] * down])
            place = np.array(image.ImagePositionPatient, float)
            solved, *_ = np.linalg.lstsq(axes, (points - place).T, rcond=None)
            # On the image: what is left over points along its normal.
            left = np.abs(axes @ solved - (points - place).T).max()
            assert left < tolerance_mm
            rows_columns = solved[::-1].T
            mask[at] ^= polygon2mask(shape[1:], rows_columns)
        found[names[item.ReferencedROINumber]] = mask
    return found


@pytest.mark.parametrize("kind", list(SERIES))
def test_another_reader_finds_the_same_voxels_in_the_same_images(kind):
    images = SERIES[kind]()
    geometry, dataset = made(images)
    ordered = in_order(images)
    assert [str(one.SOPInstanceUID) for one in ordered] == list(
        geometry.sop_instance_uids
    )
    # Uneven steps of a tenth of a millimetre: the grid lies between them.
    found = independent_masks(dataset, ordered, 0.11 if "uneven" in kind else 0.002)
    for name, wanted in shapes().items():
        assert np.array_equal(found[name], wanted), name


def test_a_hole_is_one_contour_and_no_second_ring():
    """PS3.3 C.8.8.6.3: an inner boundary is joined to the outer one (keyhole)."""
    images = ct_series()
    _, dataset = made(images)
    number = next(
        one.ROINumber
        for one in dataset.StructureSetROISequence
        if one.ROIName == "Shell"
    )
    (item,) = [
        one for one in dataset.ROIContourSequence if one.ReferencedROINumber == number
    ]
    named = [
        str(one.ContourImageSequence[0].ReferencedSOPInstanceUID)
        for one in item.ContourSequence
    ]
    assert len(named) == len(set(named))  # one a slice, hole or not


def test_everything_that_is_referenced_is_of_the_series():
    images = ct_series(cosines=AXIAL)
    _, dataset = made(images)
    frame = str(images[0].FrameOfReferenceUID)
    instances = {str(one.SOPInstanceUID) for one in images}
    (reference,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = reference.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert str(reference.FrameOfReferenceUID) == frame
    assert str(study.ReferencedSOPInstanceUID) == str(images[0].StudyInstanceUID)
    assert str(series.SeriesInstanceUID) == str(images[0].SeriesInstanceUID)
    listed = [str(o.ReferencedSOPInstanceUID) for o in series.ContourImageSequence]
    assert set(listed) == instances
    assert len(listed) == len(instances)
    numbers = [one.ROINumber for one in dataset.StructureSetROISequence]
    assert numbers == list(range(1, len(numbers) + 1))
    for one in dataset.StructureSetROISequence:
        assert str(one.ReferencedFrameOfReferenceUID) == frame
    for sequence in ("ROIContourSequence", "RTROIObservationsSequence"):
        assert [one.ReferencedROINumber for one in dataset[sequence].value] == numbers
