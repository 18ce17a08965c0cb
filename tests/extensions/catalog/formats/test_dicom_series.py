"""Series of DICOM files: geometry decides what belongs together, and what is told."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from theatrum.catalog.formats import Damaged, NotAnImage, NoVolume, open_scenes

from tests.extensions.catalog.formats import scans


def _ras(scene) -> np.ndarray:
    array = scene.array.transpose("x", "y", "z").values
    return scans.to_ras(array, scene.affine_ras)


def test_slices_are_ordered_by_their_place_and_not_by_name_or_number(
    tmp_path: Path,
) -> None:
    (scene,) = open_scenes(scans.write_series(tmp_path), "dicom")
    assert scene.dims == ("z", "y", "x")
    assert np.array_equal(_ras(scene), scans.phantom())
    assert [scene.spacing[dim] for dim in "xyz"] == pytest.approx(scans.STEPS)
    assert float(scene.array.z[1]) == pytest.approx(3.0)
    assert scene.array.z.attrs["units"] == "mm"


def test_what_is_told_of_a_scan_names_nobody(tmp_path: Path) -> None:
    files = scans.write_series(tmp_path, SeriesDescription="t1 of Jane")
    (scene,) = open_scenes(files, "dicom")
    said = repr(scene.acquisition) + repr(scene.facts) + repr(dict(scene.planes))
    assert not {"Jane", "jane", "Doe", "4711"} & set(said.replace("'", " ").split())
    assert scene.acquisition.description == ""
    assert scene.acquisition.device["field_strength_t"] == 3
    assert scene.acquisition.protocol["echo_time_ms"] == 4.5
    assert scene.acquisition.raw_meta["00180087"] == 3
    assert {tag[:4] for tag in scene.acquisition.raw_meta} == {"0018", "0028"}


def test_a_key_makes_one_pseudonym_for_one_patient(tmp_path: Path) -> None:
    files = scans.write_series(tmp_path)
    key = b"sixteen bytes of it"
    (scene,) = open_scenes(files, "dicom", key=key)
    (again,) = open_scenes(files[:1], "dicom", key=key)
    assert len(scene.acquisition.patient) == 12
    assert scene.acquisition.patient == again.acquisition.patient


def test_a_missing_slice_stays_a_gap_of_its_width_and_is_told(tmp_path: Path) -> None:
    (scene,) = open_scenes(scans.write_series(tmp_path, leave_out=(2,)), "dicom")
    assert scene.size("z") == 4
    assert any("1 of 4 slices are missing (z 2)" in one for one in scene.warnings)
    found = _ras(scene)
    assert (found[:, :, 2] == 0).all()
    assert np.array_equal(found[:, :, 3], scans.phantom()[:, :, 3])


def test_a_tilted_gantry_is_told_and_stays_in_the_affine(tmp_path: Path) -> None:
    (scene,) = open_scenes(scans.write_series(tmp_path, shear=0.8), "dicom")
    assert any("tilted by 14.9 degrees" in one for one in scene.warnings)
    along = np.asarray(scene.affine)[:3, 2]
    assert abs(along[1]) == pytest.approx(0.8)


def test_uneven_slices_are_refused_clearly(tmp_path: Path) -> None:
    array, affine = scans.phantom(), scans.ras_affine()
    files = scans.write_series(tmp_path / "a", array, affine)
    affine[2, 3] += 4.3
    files += scans.write_series(tmp_path / "b", array, affine)
    with pytest.raises(NoVolume, match="uneven"):
        open_scenes(files, "dicom")


def test_the_same_file_twice_is_told_and_taken_once(tmp_path: Path) -> None:
    files = scans.write_series(tmp_path)
    twin = tmp_path / "twin.dcm"
    twin.write_bytes(files[0].read_bytes())
    (scene,) = open_scenes([*files, twin], "dicom")
    assert scene.size("z") == 4
    assert any("there twice" in one for one in scene.warnings)


def test_three_localisers_of_one_series_are_three_images(tmp_path: Path) -> None:
    files = []
    for number, order in enumerate([(0, 1, 2), (1, 2, 0), (0, 2, 1)]):
        array, affine = scans.turned(order, (False, False, False))
        files += scans.write_series(tmp_path / str(number), array, affine)
    scenes = open_scenes(files, "dicom")
    assert [one.index for one in scenes] == [0, 1, 2]
    assert {one.name.partition(",")[0] for one in scenes} == {"ax", "cor", "sag"}
    assert all("3 orientations" in one.warnings[0] for one in scenes)
    for one in scenes:
        assert np.array_equal(_ras(one), scans.phantom())


def test_echoes_of_one_series_are_images_of_their_own(tmp_path: Path) -> None:
    files = scans.write_series(tmp_path / "1", EchoTime=2.0)
    files += scans.write_series(tmp_path / "2", EchoTime=7.0)
    scenes = open_scenes(files, "dicom")
    assert sorted(one.name for one in scenes) == ["ax, echo 2", "ax, echo 7"]


def test_images_at_one_place_are_times(tmp_path: Path) -> None:
    files = []
    for t in range(3):
        files += scans.write_series(
            tmp_path / str(t),
            (scans.phantom() + 1000 * t).astype(np.int16),
            TemporalPositionIdentifier=t + 1,
            RepetitionTime=2500,
        )
    (scene,) = open_scenes(files, "dicom")
    assert scene.dims == ("t", "z", "y", "x")
    assert scene.spacing["t"] == 2.5
    means = scene.array.mean(("z", "y", "x")).values
    assert np.diff(means) == pytest.approx([1000, 1000])
    assert list(scene.planes["t"]) == [0] * 4 + [1] * 4 + [2] * 4


def test_an_incomplete_last_volume_is_left_out_and_told(tmp_path: Path) -> None:
    files = []
    for t in range(3):
        files += scans.write_series(
            tmp_path / str(t),
            leave_out=(1,) if t == 2 else (),
            TemporalPositionIdentifier=t + 1,
        )
    (scene,) = open_scenes(files, "dicom")
    assert scene.size("t") == 2
    assert any("not complete" in one for one in scene.warnings)


@pytest.mark.parametrize("private", [True, False])
def test_the_tiles_of_a_mosaic_lie_where_the_slices_were(
    tmp_path: Path, private: bool
) -> None:
    path = scans.write_mosaic(tmp_path / "mosaic.dcm", private=private)
    (scene,) = open_scenes([path], "dicom")
    assert scene.shape == (4, 5, 6)
    assert np.array_equal(_ras(scene), scans.phantom())


def test_frames_of_an_enhanced_file_are_ordered_and_scaled_each_by_itself(
    tmp_path: Path,
) -> None:
    (scene,) = open_scenes([scans.write_enhanced(tmp_path / "one.dcm")], "dicom")
    assert scene.dims == ("t", "z", "y", "x")
    assert scene.array.dtype == np.float32
    for t in range(2):
        array = scene.array.isel(t=t).transpose("x", "y", "z").values
        expected = scans.phantom() * (2.0 + t) - np.arange(4)
        # Its rows lead against RAS in x and y.
        found = scans.to_ras(array, scene.affine_ras)
        assert np.array_equal(found, expected.astype(np.int64))


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_every_native_syntax_gives_the_same_numbers(tmp_path: Path, syntax) -> None:
    files = scans.write_series(tmp_path)
    import pydicom

    for path in files:
        dataset = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            path,
            dataset,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
            enforce_file_format=True,
        )
    (scene,) = open_scenes(files, "dicom")
    assert np.array_equal(_ras(scene), scans.phantom())


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_every_lossless_compression_gives_the_same_numbers(
    tmp_path: Path, syntax
) -> None:
    import pydicom

    array = (scans.phantom() + 50).astype(np.uint16)
    files = scans.write_series(tmp_path, array, PixelRepresentation=0)
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    (scene,) = open_scenes(files, "dicom")
    assert np.array_equal(_ras(scene), scans.phantom() + 50)


def test_hounsfield_units_stay_whole(tmp_path: Path) -> None:
    files = scans.write_series(
        tmp_path, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024, BitsStored=12
    )
    (scene,) = open_scenes(files, "dicom")
    assert scene.value_unit == "HU"
    assert scene.array.dtype == np.int16
    assert int(scene.array.min()) == -1024


def test_a_bad_file_leaves_the_others_of_its_series(tmp_path: Path) -> None:
    files = scans.write_series(tmp_path)
    files[1].write_bytes(files[1].read_bytes()[:-20])
    (scene,) = open_scenes(files, "dicom")
    assert scene.size("z") == 4
    assert [name for name, _ in scene.facts["left_out"]] == [str(files[1])]
    with pytest.raises(Damaged, match="cut off"):
        open_scenes(files[1:2], "dicom")


def test_files_without_pixels_say_what_they_are(tmp_path: Path) -> None:
    dataset = scans.header(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    path = tmp_path / "structures.dcm"
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(NotAnImage, match="RT Structure Set"):
        open_scenes([path], "dicom")


@pytest.mark.parametrize(
    "name",
    [
        "siemens_anatomical", "philips_anatomical", "compressed_j2k", "compressed_rle",
        "siemens_epi_AP", "siemens_epi_PA", "siemens_epi_RL", "siemens_epi_LR",
        "philips_multiframe", "philips_epi",
    ],
)  # fmt: skip
def test_real_series_have_the_affine_and_voxels_of_their_reference(
    shared_data: Path, name: str
) -> None:
    folder = shared_data / "mri" / name
    (scene,) = open_scenes(sorted((folder / "dicom").iterdir()), "dicom")
    reference = nibabel.load(next((folder / "reference").glob("*.nii*")))
    dims = [dim for dim in ("x", "y", "z", "t") if dim in scene.dims]
    mine = nibabel.as_closest_canonical(
        nibabel.Nifti1Image(
            scene.array.transpose(*dims).values.astype(np.float64), scene.affine_ras
        )
    )
    its = nibabel.as_closest_canonical(reference)
    assert np.allclose(mine.affine, its.affine, atol=1e-4)
    # The reference of philips_epi was written in 32 bits of numbers up to 400 000.
    assert np.allclose(mine.get_fdata(), its.get_fdata(), rtol=1e-6, atol=1e-3)


def _philips(group: Dataset, slope: float, scale: float, kind: str) -> Dataset:
    """Put Philips' scaling into a data set: RS, RI and, in its own block, SI and SS."""
    group.RescaleSlope, group.RescaleIntercept = str(slope), "-7"
    group.RescaleType = kind
    block = group.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    block.add_new(0x0D, "FL", 0.0)
    block.add_new(0x0E, "FL", scale)
    return group


@pytest.mark.parametrize("kind", ["normalized", ""])
def test_philips_numbers_are_what_the_scanner_measured_slice_by_slice(
    tmp_path: Path, kind: str
) -> None:
    paths = scans.write_series(tmp_path / "s")
    stored, scales = [], []
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset = _philips(dataset, 2.0 + number, 0.25 * (1 + number), kind)
        stored.append((float(dataset.ImagePositionPatient[2]), dataset.pixel_array))
        scales.append((2.0 + number, 0.25 * (1 + number)))
        dataset.save_as(path)
    (scene,) = open_scenes(paths, "dicom")
    wanted = {
        place: (pixels * slope - 7.0) / (slope * scale)
        for (place, pixels), (slope, scale) in zip(stored, scales, strict=True)
    }
    for z, place in enumerate(sorted(wanted)):
        found = scene.array.isel(z=z).values
        assert np.allclose(found, wanted[place], rtol=1e-5)
    said = scene.facts["scaling"]
    assert said["applied"] == "philips floating point"
    assert said["scale_slope"] == [0.25, 0.25 * len(paths)]
    assert said["rescale_intercept"] == -7
    assert scene.value_unit == ""


def test_a_rescaling_of_philips_to_a_quantity_stays_that_of_the_standard(
    tmp_path: Path,
) -> None:
    (path, *_) = scans.write_series(tmp_path / "s")
    dataset = _philips(pydicom.dcmread(path), 2.0, 0.25, "milliradials")
    dataset.save_as(path)
    (scene,) = open_scenes([path], "dicom")
    assert np.array_equal(scene.array.values, dataset.pixel_array * 2.0 - 7)
    assert scene.facts["scaling"]["applied"] == "dicom rescale"
    assert scene.facts["scaling"]["scale_slope"] == 0.25
    assert scene.value_unit == "milliradials"


def test_philips_numbers_of_an_enhanced_file_are_scaled_frame_by_frame(
    tmp_path: Path,
) -> None:
    path = scans.write_enhanced(tmp_path / "e.dcm", times=1)
    (plain,) = open_scenes([path], "dicom")
    displayed = plain.array.values
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PixelValueTransformationSequence[0].RescaleType = "normalized"
        own = Dataset()
        block = own.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.25)
        fifth = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        fifth.add_new(0x0F, "SQ", [own])
    dataset.save_as(path)
    (scene,) = open_scenes([path], "dicom")
    # The frames' own rescaling has the slope 2.
    assert np.allclose(scene.array.values, displayed / (2 * 0.25))
    assert plain.facts["scaling"]["applied"] == "dicom rescale"
    assert scene.facts["scaling"]["applied"] == "philips floating point"


def test_a_real_series_with_a_gap_and_a_tilt_says_both(shared_data: Path) -> None:
    folder = shared_data / "malformed" / "ct_missing_slice"
    (scene,) = open_scenes(sorted(folder.iterdir()), "dicom")
    assert [one.split()[0] for one in scene.warnings] == ["1", "The"]
    assert scene.facts["missing_slices"] == [3]


def _encode(name: str, plane: np.ndarray) -> bytes:
    import imagecodecs as codecs

    if name == "baseline":
        return bytes(codecs.jpeg8_encode(plane.astype(np.uint8), level=100))
    if name == "extended":
        return bytes(codecs.jpeg_encode(plane, level=100, bitspersample=12))
    if name == "lossless":
        return bytes(codecs.ljpeg_encode(plane, bitspersample=12))
    if name == "2000":
        return bytes(codecs.jpeg2k_encode(plane, level=0, codecformat="j2k"))
    return bytes(codecs.htj2k_encode(plane))


@pytest.mark.parametrize(
    ("syntax", "name", "off"),
    [
        ("1.2.840.10008.1.2.4.50", "baseline", 3),
        ("1.2.840.10008.1.2.4.51", "extended", 12),
        ("1.2.840.10008.1.2.4.70", "lossless", 0),
        ("1.2.840.10008.1.2.4.90", "2000", 0),
        ("1.2.840.10008.1.2.4.201", "high throughput", 0),
    ],
)
def test_every_family_of_jpeg_is_decoded(
    tmp_path: Path, syntax: str, name: str, off: int
) -> None:
    from pydicom.encaps import encapsulate

    y, x = np.indices((32, 40))
    bits = 8 if name == "baseline" else 12
    plane = (3 * y + 2 * x).astype(np.uint8 if bits == 8 else np.uint16)
    dataset = scans.header(
        BitsAllocated=8 if bits == 8 else 16,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=0,
        PixelSpacing=[1.0, 1.0],
    )
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows, dataset.Columns = plane.shape
    dataset.PixelData = encapsulate([_encode(name, plane)])
    dataset["PixelData"].VR = "OB"
    path = tmp_path / "one.dcm"
    dataset.save_as(path, enforce_file_format=True)
    (scene,) = open_scenes([path], "dicom")
    difference = np.abs(scene.array.values.astype(int) - plane.astype(int))
    assert difference.max() <= off
