"""What only OME-Zarr, NIfTI or single DICOM images do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tests import stacks
from tests.tile_server.test_planes import planes_in
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers import open_slide
from tile_server.readers.planes import Plane

FRAMES = stacks.numbers(stacks.StackSpec(width=70, height=50, depths=3))[0, 0]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_ome_zarr_tells_names_colours_windows_and_steps(
    tmp_path: Path, zarr_format: int
) -> None:
    path = tmp_path / "told.ome.zarr"
    stacks.write_zarr(path, stacks.CONFOCAL, zarr_format=zarr_format)
    with open_slide(path) as reader:
        facts, planes = reader.facts, planes_in(path).planes
    assert facts.format == f"OME-Zarr 0.{zarr_format + 2}"
    assert (facts.mpp_x, facts.mpp_y) == (0.25, 0.25)
    assert (planes.z_step_um, planes.t_step_s) == (2.0, 5.0)
    channel = planes.channels[1]
    assert channel.name == "dye 1"
    assert channel.colour == (10, 200, 30)
    assert channel.window == (10.0, 900.0)


def _change(path: Path, change: Any) -> None:
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        (
            "s0/.zarray",
            lambda it: it.update(filters=[{"id": "pickle"}]),
            "codec pickle, not read here",
        ),
        (
            ".zattrs",
            lambda it: it["multiscales"][0]["datasets"][0].update(path="../other"),
            "a level outside of its group",
        ),
        (
            ".zattrs",
            lambda it: it["multiscales"][0]["datasets"][0].update(path="absent"),
            "lacks the level absent",
        ),
        (".zattrs", lambda it: it["multiscales"][0].update(axes=["q"]), "has axes 'q'"),
        (".zattrs", lambda it: it.pop("multiscales"), "without an OME image"),
        (".zattrs", lambda it: it.update(multiscales=[{"datasets": 7}]), "axes"),
        (
            "s0/.zarray",
            lambda it: it.update(chunks=[1, 1, 1, 2**16, 2**16]),
            "chunks of",
        ),
        ("s0/.zarray", lambda it: it.update(dtype="|O"), "damaged|cannot be shown"),
    ],
)
def test_a_hostile_or_damaged_zarr_is_refused_with_the_reason(
    tmp_path: Path, file: str, change: Any, reason: str
) -> None:
    path = stacks.write_zarr(tmp_path / "odd.ome.zarr", stacks.CONFOCAL)
    _change(path / file, change)
    with pytest.raises(UnreadableSlide, match=rf"^odd\.ome\.zarr .*({reason})"):
        open_slide(path)


def test_a_damaged_chunk_does_not_stop_the_others(tmp_path: Path) -> None:
    path = stacks.write_zarr(tmp_path / "hurt.ome.zarr", stacks.CONFOCAL)
    (path / "s0" / "0.0.0.1.1").write_bytes(b"rubbish")
    truth = stacks.numbers(stacks.CONFOCAL)[0, 0, 0]
    with planes_in(path) as reader:
        with pytest.raises(DamagedTile):
            reader.read_plane(0, 150, 120, (20, 20), plane=Plane())
        seen = reader.read_plane(0, 0, 0, (100, 90), plane=Plane())
    assert np.array_equal(seen, truth[:90, :100])


def test_a_chunk_left_out_is_zero(tmp_path: Path) -> None:
    path = stacks.write_zarr(tmp_path / "sparse.ome.zarr", stacks.CONFOCAL)
    (path / "s0" / "0.0.0.0.0").unlink()
    with planes_in(path) as reader:
        assert not reader.read_plane(0, 0, 0, (50, 50), plane=Plane()).any()


def test_a_zip_without_a_zarr_group_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.zip"
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(UnreadableSlide, match=r"^empty\.zip "):
        open_slide(path)
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(UnreadableSlide, match=r"^empty\.zip is a damaged zip"):
        open_slide(path)


def test_a_nifti_tells_steps_and_axes(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "v.nii", stacks.VOLUME)
    with planes_in(path) as reader:
        assert (reader.facts.mpp_x, reader.facts.mpp_y) == (500.0, 250.0)
        assert reader.planes.z_step_um == 2000.0
        assert reader.planes.t_step_s == pytest.approx(0.04)
        assert reader.properties["nifti.Axes"] == "RAS"


def test_a_packed_nifti_is_unpacked_once_and_not_beside_itself(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "v.nii.gz", stacks.VOLUME)
    open_slide(path).close()
    assert [one.name for one in tmp_path.iterdir()] == ["v.nii.gz"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"magic": b"ni1"}, "one of two files"),
        ({"dim": [3, 30000, 30000, 1, 1, 1, 1, 1]}, "too large|is cut off"),
        ({"dim": [3, 61, 47, 9999, 1, 1, 1, 1]}, "is cut off"),
        ({"dim": [3, -61, 47, 5, 1, 1, 1, 1]}, "shape|damaged"),
        ({"datatype": 32, "bitpix": 64}, "holds complex64"),
        ({"datatype": 9999}, "damaged NIfTI header"),
    ],
)
def test_an_odd_nifti_is_refused_with_the_reason(
    tmp_path: Path, header: dict[str, Any], reason: str
) -> None:
    path = stacks.write_nifti(tmp_path / "odd.nii", stacks.VOLUME)
    whole = bytearray(path.read_bytes())
    names = {"dim": (40, "<i2"), "datatype": (70, "<i2"), "bitpix": (72, "<i2")}
    for name, value in header.items():
        at, kind = names.get(name, (344, ""))
        written = value if isinstance(value, bytes) else np.array(value, kind).tobytes()
        whole[at : at + len(written)] = written
    path.write_bytes(whole)
    with pytest.raises(UnreadableSlide, match=rf"^odd\.nii .*({reason})"):
        open_slide(path)


def test_a_packed_nifti_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "bomb.nii.gz", stacks.VOLUME)
    whole = bytearray(gzip.decompress(path.read_bytes()))
    whole[40:56] = np.array([3, 30000, 2000, 30000, 30, 1, 1, 1], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(whole)))
    with pytest.raises(UnreadableSlide, match=r"more than can be imported"):
        open_slide(path)


def test_frames_are_depths(tmp_path: Path) -> None:
    path = stacks.write_dicom(tmp_path / "scan.dcm", FRAMES)
    with planes_in(path) as reader:
        assert (reader.planes.depths, reader.planes.times) == (3, 1)
        seen = reader.read_plane(0, 10, 5, (40, 30), plane=Plane(z=2))
        assert (reader.facts.mpp_x, reader.facts.mpp_y) == (250.0, 500.0)
    assert np.array_equal(seen, FRAMES[2, 5:35, 10:50])


def test_frames_that_are_numbered_are_depths_and_times(shared_data: Path) -> None:
    folder = shared_data / "mri" / "philips_multiframe" / "dicom"
    (path,) = folder.iterdir()
    dataset = pydicom.dcmread(path)
    frames, groups = dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence
    with planes_in(path) as reader:
        assert (reader.planes.depths, reader.planes.times) == (8, 4)
        for frame, group in zip(frames, groups, strict=True):
            content = group.FrameContentSequence[0]
            place = Plane(
                0, content.InStackPositionNumber - 1, content.TemporalPositionIndex - 1
            )
            slope = group.PixelValueTransformationSequence[0].RescaleSlope
            seen = reader.read_plane(0, 0, 0, (64, 64), plane=place)
            assert np.allclose(seen, frame * float(slope))


def test_numbers_are_those_of_the_modality_and_the_window_is_the_files(
    tmp_path: Path,
) -> None:
    path = stacks.write_dicom(
        tmp_path / "ct.dcm",
        FRAMES,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=[40, 400],
        WindowWidth=[400, 2000],
    )
    with planes_in(path) as reader:
        assert reader.planes.dtype == "int32"
        assert reader.planes.unit == "HU"
        assert reader.planes.channels[0].window == (-160.0, 239.0)
        seen = reader.read_plane(0, 0, 0, (70, 50), plane=Plane())
    assert np.array_equal(seen, FRAMES[0].astype(int) - 1024)


def test_monochrome1_is_shown_upside_down_and_keeps_its_numbers(tmp_path: Path) -> None:
    path = stacks.write_dicom(
        tmp_path / "film.dcm",
        FRAMES.astype(np.uint8),
        PhotometricInterpretation="MONOCHROME1",
    )
    stored = FRAMES[1].astype(np.uint8)
    with open_slide(path) as shown, planes_in(path) as reader:
        seen = reader.read_plane(0, 0, 0, (70, 50), plane=Plane(z=1))
        assert np.array_equal(seen, stored)
        assert np.array_equal(shown.read(0, 0, 0, (70, 50))[:, :, 0], 255 - stored)


def test_signed_numbers_of_12_bits_keep_their_sign(tmp_path: Path) -> None:
    numbers = (FRAMES.astype(np.int16) % 4096) - 2048
    path = stacks.write_dicom(
        tmp_path / "signed.dcm", numbers & 0x0FFF, BitsStored=12, HighBit=11
    )
    with planes_in(path) as reader:
        assert reader.planes.dtype == "int16"
        seen = reader.read_plane(0, 0, 0, (70, 50), plane=Plane(z=2))
    assert np.array_equal(seen, numbers[2])


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode),
        ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        ("1.2.840.10008.1.2.4.90", lambda it: imagecodecs.jpeg2k_encode(it, level=0)),
    ],
)
def test_compressed_frames_keep_their_numbers(
    tmp_path: Path, syntax: str, encode: Any
) -> None:
    path = stacks.write_dicom(tmp_path / "packed.dcm", FRAMES)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([bytes(encode(frame)) for frame in FRAMES])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path)
    with planes_in(path) as reader:
        for z in range(3):
            seen = reader.read_plane(0, 0, 0, (70, 50), plane=Plane(z=z))
            assert np.array_equal(seen, FRAMES[z])


def test_nothing_of_a_patient_is_told(tmp_path: Path) -> None:
    path = stacks.write_dicom(tmp_path / "scan.dcm", FRAMES)
    with open_slide(path) as reader:
        assert "Nobody" not in str((reader.facts, reader.properties))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette colours"),
        ({"BitsAllocated": 64}, "samples of 64 bits"),
        ({"Rows": 60000, "Columns": 60000}, "image is 60000 x 60000"),
        ({"NumberOfFrames": 99999}, "shorter than its frames"),
    ],
)
def test_a_scan_that_cannot_be_shown_says_why(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = stacks.write_dicom(tmp_path / "odd.dcm", FRAMES, **changes)
    with pytest.raises(UnreadableSlide, match=rf"^odd\.dcm .*({reason})"):
        open_slide(path)


def test_every_real_scan_is_served_or_refused_by_name(shared_data: Path) -> None:
    served = 0
    for path in sorted((shared_data / "mri").rglob("*")):
        if path.suffix in (".dcm", ".nii", ".gz"):
            with open_slide(path) as reader:
                assert reader.read(0, 0, 0, (8, 8)).shape == (8, 8, 3)
            served += 1
    assert served > 50


def test_a_nifti_in_unknown_units_is_shown_without_steps(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "odd.nii", stacks.VOLUME)
    whole = bytearray(path.read_bytes())
    whole[123] = 7
    path.write_bytes(whole)
    with open_slide(path) as reader:
        assert reader.facts.mpp_x is None
