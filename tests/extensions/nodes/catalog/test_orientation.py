"""Grids: what nibabel and SimpleITK say of the same volumes."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK
import xarray as xr
from theatrum.node import BadInputs, BadValue, affine_of
from theatrum.nodes.catalog import crop, orient, pad, pick_time, resample, slices

from tests.extensions.nodes.catalog.phantoms import head, plane

CODES = [
    "".join(pair[turn] for pair, turn in zip(order, turns, strict=True))
    for order in itertools.permutations(("RL", "AP", "SI"))
    for turns in itertools.product((0, 1), repeat=3)
]


def test_all_48_ways_to_lie_give_the_same_volume() -> None:
    assert len(set(CODES)) == 48
    want = head()
    for code in CODES:
        turned = orient(want, to=code)
        back = orient(turned)
        assert np.array_equal(back.values, want.values), code
        assert np.allclose(affine_of(back), affine_of(want)), code
        assert back.attrs["orientation_before"] == code


def test_orienting_agrees_with_nibabel() -> None:
    for code in ("LPS", "PIR", "SAL"):
        mine = orient(head(), to=code)
        volume = nibabel.Nifti1Image(
            head().values.transpose(2, 1, 0), affine_of(head())
        )
        now = nibabel.orientations.io_orientation(volume.affine)
        goal = nibabel.orientations.axcodes2ornt(code)
        theirs = volume.as_reoriented(nibabel.orientations.ornt_transform(now, goal))
        assert np.array_equal(
            mine.values, np.asarray(theirs.dataobj).transpose(2, 1, 0)
        )
        assert np.allclose(affine_of(mine), theirs.affine)


def test_a_voxel_keeps_its_place_in_an_oblique_volume() -> None:
    volume = head()
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume.attrs["affine"] = (turn @ affine_of(volume)).tolist()
    turned = orient(volume, to="PSL")
    rng = np.random.default_rng(3)
    inverse = np.linalg.inv(affine_of(turned))
    for _ in range(20):
        x, y, z = (int(rng.integers(volume.sizes[name])) for name in "xyz")
        place = affine_of(volume) @ (x, y, z, 1)
        i, j, k = np.rint((inverse @ place)[:3]).astype(int)
        assert turned.values[k, j, i] == volume.values[z, y, x]


def test_orienting_stays_lazy_and_keeps_time() -> None:
    series = xr.concat([head(), head() + 1], dim="t").chunk({"t": 1})
    series.attrs = head().attrs
    turned = orient(series, to="LPS")
    assert turned.dims == ("t", "z", "y", "x")
    assert turned.chunks is not None
    assert int(turned[1, 0, 0, 0]) - int(turned[0, 0, 0, 0]) == 1


def test_a_sheared_volume_is_refused_unless_allowed() -> None:
    volume = head()
    affine = affine_of(volume)
    affine[1, 2] = 1.0  # a gantry's tilt
    volume.attrs["affine"] = affine.tolist()
    with pytest.raises(BadValue, match="degrees from perpendicular"):
        orient(volume)
    assert orient(volume, largest_shear_degrees=20).dims == ("z", "y", "x")


def test_a_volume_without_a_place_is_refused() -> None:
    with pytest.raises(BadInputs, match="where it lies"):
        orient.run({"image": head().assign_attrs(affine=None)})


def test_an_affine_in_lps_is_read_as_such() -> None:
    volume = head()
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps = volume.assign_attrs(
        affine=(flip @ affine_of(volume)).tolist(), convention="LPS"
    )
    assert np.allclose(affine_of(lps), affine_of(volume))
    assert np.allclose(
        affine_of(orient(lps, to="LAS")), affine_of(orient(volume, to="LAS"))
    )


@pytest.mark.parametrize(
    ("method", "theirs"),
    [("linear", SimpleITK.sitkLinear), ("nearest", SimpleITK.sitkNearestNeighbor)],
)
def test_resampling_agrees_with_simpleitk(method: str, theirs: int) -> None:
    volume = head().astype(np.float32 if method == "linear" else np.int16)
    volume.attrs = head().attrs
    mine = resample(volume, spacing_mm=(1.5, 1.5, 1.5), method=method)
    image = SimpleITK.GetImageFromArray(volume.values)
    image.SetSpacing((2.0, 3.0, 4.0))
    grid = SimpleITK.Image(
        [mine.sizes["x"], mine.sizes["y"], mine.sizes["z"]], image.GetPixelID()
    )
    grid.SetSpacing((1.5, 1.5, 1.5))
    # The corner stays: the first centre moves by half the change of the spacing.
    grid.SetOrigin([(1.5 - step) / 2 for step in (2.0, 3.0, 4.0)])
    want = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(image, grid, SimpleITK.Transform(), theirs, 0.0)
    )
    # SimpleITK has nothing beyond the outermost centres.
    inner = (slice(2, -2),) * 3
    assert np.allclose(mine.values[inner], want[inner], rtol=1e-5, atol=0.01)
    moved = affine_of(mine) @ (0, 0, 0, 1)
    assert np.allclose(
        moved[:3], np.array([-11.0, -7, 5]) + (1.5 - np.array([2, 3, 4])) / 2
    )


def test_nearest_makes_no_new_labels() -> None:
    labels = (head() // 1000).assign_attrs(head().attrs)
    out = resample(labels, spacing_mm=(1.0,), method="nearest")
    assert out.dtype == labels.dtype
    assert set(np.unique(out)) == set(np.unique(labels))


def test_what_is_cut_out_stays_in_its_place() -> None:
    part = crop(head(), x=(3, 9), z=(2, 5))
    assert np.array_equal(part.values, head().values[2:5, :, 3:9])
    assert np.allclose(affine_of(part) @ (0, 0, 0, 1), affine_of(head()) @ (3, 0, 2, 1))
    back = pad(part, x=(3, head().sizes["x"] - 9), z=(2, head().sizes["z"] - 5))
    assert back.shape == head().shape
    assert np.allclose(affine_of(back), affine_of(head()))
    with pytest.raises(BadValue, match="pixels 0 to"):
        crop(head(), x=(0, 1000))


def test_a_time_is_picked_or_summed_up() -> None:
    frames = xr.concat([plane(0), plane(1), plane(2)], dim="t")
    assert np.array_equal(pick_time(frames, frame=-1), plane(2))
    for how in ("mean", "median", "max"):
        want = getattr(np, how)(frames.values, axis=0)
        assert np.allclose(pick_time(frames, how=how), want, atol=1e-5)
        assert np.allclose(pick_time(frames.chunk({"t": 1}), how=how), want, atol=1e-5)
    with pytest.raises(BadValue, match="frames 0 to 2"):
        pick_time(frames, frame=3)


@pytest.mark.parametrize("code", ["RAS", "LPI", "SRA", "ASL"])
def test_slices_are_the_same_however_the_scan_was_taken(code: str) -> None:
    for plane_name, shown in (("ax", "LPS"), ("cor", "LIA"), ("sag", "PIR")):
        cut = slices(orient(head(), to=code), plane=plane_name, choose="all")
        assert np.array_equal(cut.values, orient(head(), to=shown).values)


def test_radiological_slices_have_the_patients_right_at_the_left() -> None:
    right = head().copy(data=np.zeros(head().shape, np.int16))
    right.values[:, :, -1] = 1  # x rises to the right in RAS
    assert (slices(right, choose="all").values[:, :, 0] == 1).all()
    other = slices(right, choose="all", convention="neurological")
    assert (other.values[:, :, -1] == 1).all()


def test_slices_are_chosen_by_number_place_and_step() -> None:
    volume = head()  # z from 5 mm, 4 mm apart, 20 slices
    assert slices(volume, count=4).attrs["slice_indices"] == [8, 9, 10, 11]
    assert slices(volume, choose="all").attrs["slice_indices"][-1] == 19
    assert slices(volume, choose="every", step=7).attrs["slice_indices"] == [0, 7, 14]
    near = slices(volume, choose="mm", range_mm=(12, 21))
    assert near.attrs["slice_mm"] == [13.0, 17.0, 21.0]
    named = slices(volume, choose="indices", indices=(3, -1))
    assert named.attrs["slice_indices"] == [3, 19]
    stepped = slices(volume, choose="every", step=7)
    assert np.allclose((affine_of(stepped) @ (0, 0, 1, 1))[2], 5 + 28)
    with pytest.raises(BadValue, match="slices 0 to 19"):
        slices(volume, choose="indices", indices=(20,))
    with pytest.raises(BadValue, match="is chosen"):
        slices(volume, choose="mm", range_mm=(900, 901))
