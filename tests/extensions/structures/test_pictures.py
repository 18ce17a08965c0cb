"""Slices as pictures: the right way up, with square pixels and the right outlines."""

import io

import numpy as np
import PIL.Image
import pytest
from theatrum.node import Volume
from theatrum.structures import (
    PLANES,
    Outlined,
    StructureError,
    centre_of,
    picture,
    png,
    slice_count,
    window_of,
)

SHAPE = (20, 40, 30)  # superior, posterior, left of an axial scan
SPACING = (2.0, 1.0, 3.0)  # x, y, z


def scan(turn=None):
    """A dim body with one bright spot at the patient's upper left front."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[2:18, 5:35, 3:27] = 0
    hu[15:17, 7:10, 22:25] = 1000
    affine = np.diag([*SPACING, 1.0])
    volume = Volume(hu, affine, "CT")
    return volume if turn is None else turn(volume)


def flipped(volume):
    """The same patient, stored from the other end along every axis."""
    mirror = np.diag([-1.0, -1.0, -1.0, 1.0])
    mirror[:3, 3] = np.array(volume.array.shape[::-1]) - 1
    return Volume(
        volume.array[::-1, ::-1, ::-1], volume.affine_lps @ mirror, volume.modality
    )


def coronal(volume):
    """The same patient, in slices from front to back."""
    affine = volume.affine_lps[:, [0, 2, 1, 3]]
    return Volume(volume.array.transpose(1, 0, 2), affine, volume.modality)


def bright(volume):
    return volume.array >= 1000


@pytest.mark.parametrize("turn", [None, flipped, coronal])
def test_left_is_on_the_right_head_is_up_and_the_face_to_the_left(turn):
    volume = scan(turn)
    at = centre_of(volume, [bright(volume)])
    places = {}
    for plane in PLANES:
        shown = picture(volume, plane, at[plane], window=(900, 100), longest_px=200)
        rows, columns = np.nonzero(shown[..., 0] == 255)
        places[plane] = (
            rows.mean() / shown.shape[0] < 0.5,
            columns.mean() / shown.shape[1] < 0.5,
        )
    # (upper half, left half)
    assert places == {
        "axial": (True, False),
        "coronal": (True, False),
        "sagittal": (True, True),
    }


@pytest.mark.parametrize("turn", [None, flipped, coronal])
def test_pixels_are_square_whatever_the_spacing(turn):
    volume = scan(turn)
    shapes = {
        plane: picture(volume, plane, 0, longest_px=120).shape[:2] for plane in PLANES
    }
    # 60 mm wide, 40 mm deep, 60 mm high.
    assert shapes == {"axial": (80, 120), "coronal": (120, 120), "sagittal": (120, 80)}


def test_outlines_are_one_pixel_wide_and_have_their_colour():
    volume = scan()
    body = Outlined("Body", volume.array >= 0, (0, 255, 0))
    shown = picture(volume, "axial", 10, [body], longest_px=60)
    green = (shown == (0, 255, 0)).all(axis=2)
    # 30 mm by 48 mm at one pixel a millimetre.
    assert green.sum() == 2 * 30 + 2 * 48 - 4
    assert (shown[20, 30] == shown[20, 30, 0]).all()


def test_the_middle_goes_through_what_is_in_two_parts():
    volume = scan()
    parts = np.zeros(SHAPE, bool)
    parts[3], parts[17] = True, True
    at = centre_of(volume, [parts])["axial"]
    assert at in (3, 17)
    assert centre_of(volume, [])["axial"] == 10


def test_a_window_is_taken_from_the_modality_or_from_the_numbers():
    assert window_of(scan()) == (40.0, 400.0)
    level, width = window_of(
        Volume(np.linspace(0, 1000, 24_000).reshape(SHAPE), np.eye(4), "MR")
    )
    assert 400 < level < 600
    assert 900 < width < 1000


def test_a_slice_that_is_not_there_is_told():
    volume = scan()
    assert slice_count(volume, "coronal") == 40
    with pytest.raises(StructureError, match="0 to 39"):
        picture(volume, "coronal", 40)


def test_a_picture_is_a_png():
    content = png(picture(scan(), "axial", 3))
    with PIL.Image.open(io.BytesIO(content)) as opened:
        assert opened.format == "PNG"
        assert max(opened.size) == 512
