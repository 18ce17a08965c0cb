"""T5: odd inputs give a defined result, or a refusal that says what is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from theatrum.catalog.formats import (
    Damaged,
    FormatError,
    NotAnImage,
    open_scenes,
    sniff,
)
from theatrum.catalog.ingest.describing import described

from tests.extensions.catalog.formats import scans


def _save(path: Path, array: np.ndarray, **options) -> Path:
    image = nibabel.Nifti1Image(array, scans.ras_affine(), **options)
    nibabel.save(image, path)
    return path


def test_a_constant_image_is_taken_and_told(tmp_path: Path) -> None:
    (scene,) = open_scenes([_save(tmp_path / "a.nii", np.full((4, 4, 4), 7, "i2"))])
    facts = described(scene, tmp_path)
    assert (facts["image"]["vmin"], facts["image"]["vmax"]) == (7, 7)
    assert facts["warnings"] == ["All numbers that were looked at are the same."]


def test_numbers_that_are_none_are_counted_and_left_out_of_the_range(
    tmp_path: Path,
) -> None:
    array = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    (scene,) = open_scenes([_save(tmp_path / "a.nii", array)])
    facts = described(scene, tmp_path)
    assert (facts["image"]["vmin"], facts["image"]["vmax"]) == (1, 26)
    assert facts["warnings"] == ["2 of the numbers that were looked at are not finite."]


def test_nothing_but_nan_has_no_range(tmp_path: Path) -> None:
    array = np.full((2, 2, 2), np.nan, np.float32)
    (scene,) = open_scenes([_save(tmp_path / "a.nii", array)])
    assert described(scene, tmp_path)["image"]["vmin"] is None


def test_one_slice_is_a_volume_of_one(tmp_path: Path) -> None:
    (scene,) = open_scenes([_save(tmp_path / "a.nii", np.ones((5, 4, 1), "u1"))])
    assert scene.dims == ("z", "y", "x")
    assert scene.shape == (1, 4, 5)
    (one,) = open_scenes(
        scans.write_series(tmp_path / "s", scans.phantom()[:, :, :1]), "dicom"
    )
    assert one.dims == ("y", "x")
    assert one.orientation == "RAS"


def test_four_dimensions_are_times(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 4 * 5, dtype="i2").reshape(2, 3, 4, 5)
    image = nibabel.Nifti1Image(array, scans.ras_affine())
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 2500
    nibabel.save(image, tmp_path / "a.nii.gz")
    (scene,) = open_scenes([tmp_path / "a.nii.gz"])
    assert scene.dims == ("t", "z", "y", "x")
    assert scene.spacing["t"] == 2.5
    assert np.array_equal(scene.array.transpose("x", "y", "z", "t").values, array)


def test_big_endian_numbers_come_out_native(tmp_path: Path) -> None:
    array = np.arange(24, dtype="i2").reshape(2, 3, 4)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nibabel.Nifti1Image(array, scans.ras_affine(), header)
    path = tmp_path / "a.nii"
    nibabel.save(image, path)
    assert path.read_bytes()[:4] == b"\0\0\x01\x5c"
    (scene,) = open_scenes([path])
    assert scene.array.dtype.isnative
    assert np.array_equal(scene.array.transpose("x", "y", "z").values, array)


def test_stored_integers_with_a_scale_become_what_they_mean(tmp_path: Path) -> None:
    array = np.linspace(0, 1, 24).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(array, scans.ras_affine())
    image.set_data_dtype(np.int16)
    path = tmp_path / "a.nii"
    nibabel.save(image, path)
    (scene,) = open_scenes([path])
    found = scene.array.transpose("x", "y", "z").values
    assert np.allclose(found, nibabel.load(path).get_fdata(), atol=1e-6)


def test_colours_are_channels(tmp_path: Path) -> None:
    rgb = np.zeros((3, 2, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 9
    (scene,) = open_scenes([_save(tmp_path / "a.nii", rgb)])
    assert list(scene.array.c.values) == ["red", "green", "blue"]
    assert int(scene.array.sel(c="green").max()) == 9


def test_a_volume_without_a_place_says_so(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((2, 2, 2), "u1"), None)
    nibabel.save(image, tmp_path / "a.nii")
    (scene,) = open_scenes([tmp_path / "a.nii"])
    assert scene.affine is None
    assert scene.orientation == ""
    assert "how the volume lies" in scene.warnings[0]


def test_a_header_larger_than_any_disk_is_refused(tmp_path: Path) -> None:
    header = nibabel.Nifti2Header()
    header.set_data_shape((2**20, 2**20, 2**20))
    header["magic"] = b"n+2"
    header["vox_offset"] = 544
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(Damaged, match="TiB"):
        open_scenes([path])


@pytest.mark.parametrize("keep", [10, 200, 400])
def test_a_file_cut_off_is_refused(tmp_path: Path, keep: int) -> None:
    noise = np.random.default_rng(0).integers(0, 9999, (9, 9, 9), np.int16)
    path = _save(tmp_path / "a.nii", noise)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(FormatError):
        open_scenes([path])
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(content)[:keep])
    with pytest.raises(FormatError):
        open_scenes([packed])


def test_a_header_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(1000))
    inside = tmp_path / "inside"
    inside.mkdir()
    lines = (
        "ObjectType = Image\nNDims = 3\nDimSize = 5 5 5\n"
        "ElementType = MET_UCHAR\nElementDataFile = ../secret.raw\n"
    )
    (inside / "a.mhd").write_text(lines)
    with pytest.raises(Damaged, match="another folder"):
        open_scenes([inside / "a.mhd"])
    (inside / "secret.raw").symlink_to(tmp_path / "secret.raw")
    (inside / "a.mhd").write_text(lines.replace("../", ""))
    with pytest.raises(Damaged, match="not beside"):
        open_scenes([inside / "a.mhd"])


@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000)])
def test_what_is_no_image_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(NotAnImage):
        open_scenes([path])


@pytest.mark.parametrize("kind", ["nii", "dcm", "mha", "nrrd"])
@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_damaged_bytes_give_a_format_error_or_an_image_and_nothing_else(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    content = bytearray(_whole(tmp_path, kind))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(content), 1200) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{kind}"
    path.write_bytes(content)
    try:
        for scene in open_scenes([path], sniff(path)):
            if scene.array.nbytes < 2**24:
                scene.array.compute()
    except FormatError:
        pass


def _whole(folder: Path, kind: str) -> bytes:
    import SimpleITK

    path = folder / f"whole.{kind}"
    if not path.exists():
        if kind == "nii":
            _save(path, scans.phantom())
        elif kind == "dcm":
            (made, *_) = scans.write_series(folder / "series")
            path.write_bytes(made.read_bytes())
        else:
            image = SimpleITK.GetImageFromArray(scans.phantom())
            SimpleITK.WriteImage(image, str(path))
    return path.read_bytes()
