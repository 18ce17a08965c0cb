"""Body, lungs and bone: on a drawn chest, and on a phantom with a hand-made truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from theatrum.node import BadInputs, Cancelled, Context, Volume
from theatrum.nodes import ct_body_lungs_bone

SPACING_MM = (2.0, 2.0, 4.0)

Mask = npt.NDArray[np.bool_]


def _ellipse(
    shape: tuple[int, int, int],
    centre: tuple[float, float],
    radii: tuple[float, float],
    slices: slice = slice(None),
) -> Mask:
    """An elliptical column; centre (x, y) and radii in millimetres."""
    mask = np.zeros(shape, bool)
    y, x = np.ogrid[: shape[1], : shape[2]]
    away = ((x * SPACING_MM[0] - centre[0]) / radii[0]) ** 2
    away = away + ((y * SPACING_MM[1] - centre[1]) / radii[1]) ** 2
    mask[slices] = away <= 1
    return mask


class _Chest:
    """A chest of columns, in a room with a table; x runs to the patient's left."""

    def __init__(self, *, touching: bool = False) -> None:
        shape = (12, 160, 220)
        self.body = _ellipse(shape, (220, 150), (170, 110))
        gap = 30 if not touching else 0
        self.right = _ellipse(shape, (150 - gap / 2, 150), (68, 80))
        self.left = _ellipse(shape, (286 + gap / 2, 150), (68, 80))
        self.windpipe = _ellipse(shape, (218, 150), (9, 9))
        self.spine = _ellipse(shape, (218, 235), (18, 18))
        vessels = _ellipse(shape, (140, 160), (3, 3)) | _ellipse(
            shape, (300, 140), (3, 3)
        )
        hu = np.full(shape, -1000, np.int16)
        hu[_ellipse(shape, (220, 300), (200, 8))] = 150  # the table
        hu[self.body] = 40
        hu[self.left | self.right] = -750
        hu[vessels] = 60
        hu[self.spine] = 500
        if not touching:
            hu[self.windpipe] = -1000
        noise = np.random.default_rng(5).normal(0, 15, shape)
        affine = np.diag([*SPACING_MM, 1.0])
        affine[:3, 3] = -220, -150, 30
        self.volume = Volume((hu + noise).astype(np.int16), affine, "CT")


def _dice(found: Mask, true: Mask) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def test_body_lungs_and_bone_of_a_drawn_chest_are_found() -> None:
    chest = _Chest()
    found = ct_body_lungs_bone(chest.volume)
    assert _dice(found.body.mask("Body"), chest.body) > 0.99
    assert _dice(found.lungs.mask("Left lung"), chest.left) > 0.98
    assert _dice(found.lungs.mask("Right lung"), chest.right) > 0.98
    assert _dice(found.bone.mask("Bone"), chest.spine) > 0.95
    assert not (found.lungs.array.astype(bool) & chest.windpipe).any()
    voxel_ml = 2 * 2 * 4 / 1000
    assert found.left_lung_ml == pytest.approx(chest.left.sum() * voxel_ml, rel=0.03)
    assert found.body_ml == pytest.approx(chest.body.sum() * voxel_ml, rel=0.02)


def test_lungs_that_touch_are_parted() -> None:
    chest = _Chest(touching=True)
    assert (chest.left & np.roll(chest.right, 1, axis=2)).any()
    found = ct_body_lungs_bone(chest.volume)
    assert _dice(found.lungs.mask("Left lung"), chest.left) > 0.96
    assert _dice(found.lungs.mask("Right lung"), chest.right) > 0.96


def test_the_sides_are_the_patient_s_however_the_scan_lies() -> None:
    chest = _Chest()
    straight = ct_body_lungs_bone(chest.volume)
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = chest.volume.array.shape[2] - 1
    turned = Volume(
        chest.volume.array[:, :, ::-1], chest.volume.affine_lps @ mirror, "CT"
    )
    found = ct_body_lungs_bone(turned)
    again = found.lungs.array[:, :, ::-1]
    for side in (1, 2):
        assert _dice(again == side, straight.lungs.array == side) > 0.99


def test_one_lung_is_found_as_the_side_that_it_is() -> None:
    chest = _Chest()
    hu = chest.volume.array.copy()
    hu[chest.left] = 30
    one = ct_body_lungs_bone(Volume(hu, chest.volume.affine_lps, "CT"))
    assert one.left_lung_ml == 0
    assert _dice(one.lungs.mask("Right lung"), chest.right) > 0.98


@pytest.mark.parametrize("hu", [-1000, 40])
def test_a_scan_without_lungs_gives_none(hu: int) -> None:
    scan = Volume(np.full((3, 40, 40), hu, np.int16), np.eye(4), "CT")
    found = ct_body_lungs_bone(scan)
    assert found.left_lung_ml == found.right_lung_ml == found.bone_ml == 0
    assert found.body_ml == (0 if hu < 0 else pytest.approx(3 * 1.6, rel=0.05))


def test_a_scan_of_another_modality_is_refused() -> None:
    scan = Volume(np.zeros((3, 4, 4)), np.eye(4), "MR")
    with pytest.raises(BadInputs, match="CT is needed"):
        ct_body_lungs_bone.run({"volume": scan})


def test_progress_rises_and_a_cancel_stops() -> None:
    told: list[float] = []
    chest = _Chest()
    ct_body_lungs_bone(
        chest.volume, context=Context(lambda share, _: told.append(share))
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
    with pytest.raises(Cancelled):
        ct_body_lungs_bone(
            chest.volume, context=Context(is_cancelled=lambda: len(told) > 0)
        )


# ---- the phantom --------------------------------------------------------------------


def _scan(folder: Path) -> tuple[Volume, list[float]]:
    files = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    files.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    hu = np.stack(
        [
            one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
            for one in files
        ]
    ).astype(np.int16)
    heights = [float(one.ImagePositionPatient[2]) for one in files]
    row_mm, column_mm = (float(one) for one in files[0].PixelSpacing)
    affine = np.diag([column_mm, row_mm, heights[1] - heights[0], 1.0])
    affine[:3, 3] = [float(one) for one in files[0].ImagePositionPatient]
    return Volume(hu, affine, "CT"), heights


def _contoured(path: Path, name: str, volume: Volume, heights: list[float]) -> Mask:
    """The mask of a structure: pixels whose centres its contours enclose."""
    from skimage.draw import polygon2mask

    structures = pydicom.dcmread(path)
    (number,) = [
        one.ROINumber
        for one in structures.StructureSetROISequence
        if one.ROIName == name
    ]
    mask = np.zeros(volume.array.shape, bool)
    inverse = np.linalg.inv(volume.affine_lps)
    for roi in structures.ROIContourSequence:
        if roi.ReferencedROINumber != number:
            continue
        for contour in roi.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            at = np.c_[points, np.ones(len(points))] @ inverse.T
            z = int(np.argmin(np.abs(np.array(heights) - points[0, 2])))
            mask[z] ^= polygon2mask(mask[z].shape, at[:, [1, 0]])
    return mask


def test_the_lungs_of_the_phantom_are_those_that_were_contoured(
    shared_data: Path,
) -> None:
    folder = shared_data / "ct_rtstruct" / "alderson_lungs"
    volume, heights = _scan(folder / "CT")
    found = ct_body_lungs_bone(volume)
    left = _contoured(folder / "RS_matched.dcm", "Lung_L", volume, heights)
    right = _contoured(folder / "RS_matched.dcm", "Lung_R", volume, heights)
    assert _dice(found.lungs.mask("Left lung"), left) >= 0.95
    assert _dice(found.lungs.mask("Right lung"), right) >= 0.95
    assert _dice(found.lungs.array > 0, left | right) >= 0.95
    body, bone = found.body.mask("Body"), found.bone.mask("Bone")
    assert (body & (left | right)).sum() == (left | right).sum()
    assert 20 < found.bone_ml < 300
    # In its lungs there are plugs as dense as bone.
    assert (bone & (found.lungs.array > 0)).sum() < 0.05 * bone.sum()
