"""Multi-frame images are the volume that their frames form."""

from datetime import UTC, datetime

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from theatrum.structures import (
    BadGeometry,
    Drawn,
    frames,
    mask,
    problems,
    read,
    series_geometry,
    structure_set,
    volume,
)

from tests.extensions.structures.series import ct_series, enhanced

TILTED = (0.8, 0.6, 0, -0.6, 0.8, 0)


def pixels(slices=6, rows=20, columns=30):
    z, y, x = np.mgrid[:slices, :rows, :columns]
    return z * 100 + y * 3 + x


@pytest.mark.parametrize("backwards", [False, True])
def test_frames_form_the_same_volume_as_single_images(backwards):
    plain = ct_series(rows=20, columns=30, cosines=TILTED, pixels=pixels())
    whole = enhanced(plain, backwards=backwards)
    expected, found = series_geometry(plain), series_geometry([whole])
    assert found.size == expected.size
    assert np.allclose(found.affine_lps, expected.affine_lps)
    assert np.array_equal(volume([whole]).array, volume(plain).array)
    assert volume([whole]).modality == "CT"
    numbers = range(6, 0, -1) if backwards else range(1, 7)
    assert found.frame_numbers == tuple(numbers)
    assert set(found.sop_instance_uids) == {whole.SOPInstanceUID}
    assert expected.frame_numbers == ()


def test_contours_name_the_instance_and_its_frame():
    plain = ct_series(rows=20, columns=30, pixels=pixels())
    whole = enhanced(plain, backwards=True)
    geometry = series_geometry([whole])
    drawn = np.zeros((6, 20, 30), bool)
    drawn[2, 5:10, 5:12] = True
    made = structure_set(
        [Drawn("Box", drawn)],
        frames([whole]),
        geometry,
        label="Box",
        series_description="",
        made_at=datetime(2026, 3, 17, tzinfo=UTC),
    )
    (contour,) = made.ROIContourSequence[0].ContourSequence
    image = contour.ContourImageSequence[0]
    assert image.ReferencedSOPInstanceUID == whole.SOPInstanceUID
    assert image.ReferencedSOPClassUID == whole.SOPClassUID
    number = image.ReferencedFrameNumber
    position = whole.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence
    assert position[0].ImagePositionPatient == plain[2].ImagePositionPatient
    study = made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert len(series.ContourImageSequence) == 1, "one instance is named once"
    assert np.array_equal(mask(read(made).roi("Box"), geometry), drawn)


def test_frames_of_several_passes_are_no_volume_and_say_so():
    plain = ct_series(rows=8, columns=8)
    twice = enhanced(plain + plain)
    assert problems([twice]) == ["duplicate: two images lie at the same place"]
    with pytest.raises(BadGeometry, match="same place"):
        series_geometry([twice])


def test_an_image_with_other_groups_than_frames_is_no_volume():
    whole = enhanced(ct_series(rows=8, columns=8))
    whole.NumberOfFrames = 4
    assert problems([whole]) == ["mixed: an image has other frames than it says"]


def test_a_frame_without_its_place_is_told():
    whole = enhanced(ct_series(rows=8, columns=8))
    del whole.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    assert problems([whole]) == ["mixed: an image has no ImagePositionPatient"]


def test_a_malformed_private_element_harms_no_frame():
    plain = ct_series(rows=8, columns=8)
    whole = enhanced(plain)
    tag = Tag(0x01F1, 0x1026)
    whole[tag] = RawDataElement(tag, "FD", 6, b"0.688 ", 0, False, True)
    assert series_geometry([whole]).size == (8, 8, 6)
