"""DICOM whole slides: every way of writing one gives the pixels that were written."""

from __future__ import annotations

import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import openslide
import pydicom
import pytest

from tests import dicom_slides
from tests.dicom_slides import (
    COLOUR,
    MONOCHROME,
    DicomSpec,
    stored_depth,
    truth,
    write_dicom_slide,
)
from tests.tile_server.conftest import Server, decoded
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.dicom_wsi import DicomPlanes, DicomReader, open_dicom
from tile_server.readers.planes import Plane
from tile_server.readers.rendering import planes_of
from tile_server.versions import file_version

LOSSY = ("jpeg",)


@pytest.mark.parametrize("name", COLOUR)
def test_every_level_has_the_pixels_that_were_written(
    tmp_path: Path, name: str
) -> None:
    spec = COLOUR[name]
    path = write_dicom_slide(tmp_path, spec)
    with open_slide(path) as reader:
        assert isinstance(reader, DicomReader)
        for number in range(len(spec.downsamples)):
            depth = stored_depth(spec, number, spec.depths // 2)
            wanted = truth(spec, number, depth=depth).astype(int)
            for x, y in spec.left_out if number == 0 else ():
                wanted[y * 64 : y * 64 + 64, x * 64 : x * 64 + 64] = 255
            level = reader.levels[number]
            assert (level.width, level.height) == wanted.shape[1::-1]
            seen = reader.read(number, 0, 0, (level.width, level.height))
            error = np.abs(seen - wanted)
            assert error.mean() < 4 if spec.codec in LOSSY else error.max() == 0
            assert reader.facts.mpp_x == pytest.approx(0.5)
            assert reader.facts.objective == 20


@pytest.mark.parametrize("name", [one for one in COLOUR if COLOUR[one].codec == "jpeg"])
def test_jpeg_frames_pass_through_with_the_right_colours(
    tmp_path: Path, name: str
) -> None:
    spec = COLOUR[name]
    path = write_dicom_slide(tmp_path, spec)
    wanted = truth(spec, 0, depth=spec.depths // 2)[128:192, 320:384].astype(int)
    with open_slide(path) as reader:
        assert all(level.encoded for level in reader.levels)
        stream = reader.encoded_tile(0, 5, 2)
        assert stream is not None
        assert stream.endswith(b"\xff\xd9")
        assert np.abs(decoded(stream) - wanted).mean() < 4
        assert np.abs(decoded(stream) - reader.read(0, 320, 128, (64, 64))).max() <= 1


def test_a_passed_frame_is_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = write_dicom_slide(tmp_path, DicomSpec())
    frames = list(
        pydicom.encaps.generate_frames(
            pydicom.dcmread(path).PixelData, number_of_frames=88
        )
    )
    with open_slide(path) as reader:
        assert reader.encoded_tile(0, 3, 1) == frames[14].removesuffix(b"\0")


@pytest.mark.parametrize("name", MONOCHROME)
def test_optical_paths_are_channels_and_focal_planes_are_z(
    tmp_path: Path, name: str
) -> None:
    spec = MONOCHROME[name]
    with_planes = open_dicom(write_dicom_slide(tmp_path, spec))
    assert isinstance(with_planes, DicomPlanes)
    with with_planes as reader:
        facts = reader.planes
        assert [one.name for one in facts.channels] == [
            f"dye {number}" for number in range(spec.channels)
        ]
        assert facts.channels[0].colour == (255, 0, 0)
        assert (facts.depths, facts.times) == (spec.depths, 1)
        assert facts.dtype == f"uint{spec.bits}"
        assert facts.z_step_um == (1.5 if spec.sparse else spec.step_um or None)
        for number in range(len(spec.downsamples)):
            for channel in range(spec.channels):
                for depth in range(spec.depths):
                    wanted = truth(spec, number, channel, depth)
                    seen = reader.read_plane(
                        number, -3, -2, (90, 60), plane=Plane(channel, depth)
                    )
                    assert not seen[:2].any()
                    assert not seen[:, :3].any()
                    error = np.abs(seen[2:, 3:].astype(int) - wanted[:58, :87])
                    assert error.mean() < 4 if spec.codec in LOSSY else not error.any()


SEVERAL = [name for name, spec in COLOUR.items() if max(spec.paths, spec.depths) > 1]


@pytest.mark.parametrize("name", SEVERAL)
def test_all_optical_paths_and_focal_planes_of_a_colour_slide_can_be_read(
    tmp_path: Path, name: str
) -> None:
    spec = COLOUR[name]
    with open_slide(write_dicom_slide(tmp_path, spec)) as reader:
        planes = planes_of(reader)
        facts = planes.planes
        assert (len(facts.channels), facts.depths) == (3 * spec.paths, spec.depths)
        assert facts.z_step_um == (
            1.5 if spec.sparse and spec.depths > 1 else spec.step_um or None
        )
        if spec.paths > 1:
            assert facts.channels[4].name == "dye 1 green"
        everything = itertools.product(
            range(len(spec.downsamples)), range(spec.paths), range(spec.depths)
        )
        for level, path, depth in everything:
            stored = stored_depth(spec, level, depth)
            wanted = truth(spec, level, path, stored)[9:69, 40:130].astype(int)
            for sample in range(3):
                plane = Plane(3 * path + sample, depth)
                seen = planes.read_plane(level, 40, 9, (90, 60), plane=plane)
                error = np.abs(seen - wanted[:, :, sample])
                assert error.mean() < 4 if spec.codec in LOSSY else not error.any()


def test_a_style_shows_another_path_and_focal_plane_of_a_colour_slide(
    server: Server, tmp_path: Path
) -> None:
    spec = COLOUR["sparse paths"]
    token = server.seal(write_dicom_slide(tmp_path, spec))
    view = server.get(token, "view.json").json()
    assert view["z"] == 2
    assert [one["name"] for one in view["channels"][:4]] == [
        *("dye 0 red", "dye 0 green", "dye 0 blue", "dye 1 red"),
    ]
    n = view["levels"][0]["z"]
    for path, depth in itertools.product(range(2), range(2)):
        channels = [{"index": 3 * path + sample} for sample in range(3)]
        style = quote(json.dumps({"channels": channels, "z": depth}))
        tile = server.get(token, f"{n}/3/2?style={style}")
        assert tile.status_code == 200, tile.text
        wanted = truth(spec, 0, path, depth)[128:192, 192:256].astype(int)
        assert np.abs(decoded(tile.content) - wanted).mean() < 5
    # Without a style it is the stored frame of the first path's middle plane.
    stored = server.get(token, f"{n}/3/2")
    assert stored.headers["server-timing"].startswith("stored")


def test_a_fluorescence_slide_is_shown_in_the_colours_of_its_paths(
    tmp_path: Path,
) -> None:
    spec = MONOCHROME["channels"]
    with open_slide(write_dicom_slide(tmp_path, spec)) as reader:
        seen = reader.read(0, 0, 0, (128, 64)).astype(int)
        for channel in range(3):
            wanted = truth(spec, 0, channel)[:64, :128]
            assert np.abs(seen[:, :, channel] - wanted).mean() < 4


def test_a_folder_and_each_of_its_files_are_the_same_slide(tmp_path: Path) -> None:
    folder = tmp_path / "slide"
    path = write_dicom_slide(folder, DicomSpec(parts=2))
    with open_slide(folder) as whole:
        for file in folder.iterdir():
            with open_slide(file) as reader:
                assert reader.levels == whole.levels
                assert reader.facts == whole.facts
        wanted = whole.read(0, 100, 100, (200, 100))
    with open_slide(path) as reader:
        assert np.array_equal(reader.read(0, 100, 100, (200, 100)), wanted)


def test_the_files_of_another_slide_in_the_folder_are_left_alone(
    tmp_path: Path,
) -> None:
    first = write_dicom_slide(tmp_path, DicomSpec(downsamples=(1,)), label=False)
    first = first.rename(tmp_path / "first.dcm")
    second = write_dicom_slide(tmp_path, DicomSpec(width=300, downsamples=(1,)))
    with open_slide(first) as reader:
        assert [level.width for level in reader.levels] == [700]
        assert reader.facts.associated == ()
    with open_slide(second) as reader:
        assert [level.width for level in reader.levels] == [300]
    with pytest.raises(UnreadableSlide, match="is a folder of 2 DICOM slides"):
        open_slide(tmp_path)


def test_the_version_changes_with_any_file_of_the_series(tmp_path: Path) -> None:
    path = write_dicom_slide(tmp_path, DicomSpec())
    before = file_version(path), file_version(tmp_path)
    assert file_version(tmp_path / "level1_0.dcm") == before[0]
    (tmp_path / "notes.txt").write_text("not a part of the slide")
    assert file_version(path) == before[0]
    os.utime(tmp_path / "level1_0.dcm", ns=(1, 1))
    assert file_version(path) != before[0]
    assert file_version(tmp_path) != before[1]


def test_the_label_is_an_associated_image(tmp_path: Path) -> None:
    with open_slide(write_dicom_slide(tmp_path, DicomSpec())) as reader:
        assert reader.facts.associated == ("label",)
        assert np.all(reader.associated_image("label") == (10, 200, 60))
        with pytest.raises(KeyError):
            reader.associated_image("macro")


def test_nothing_of_a_patient_is_in_the_metadata(tmp_path: Path) -> None:
    with open_slide(write_dicom_slide(tmp_path, DicomSpec())) as reader:
        assert "Nobody" not in repr((reader.facts, reader.properties))


def test_eight_threads_read_the_same_pixels(tmp_path: Path) -> None:
    path = write_dicom_slide(tmp_path, COLOUR["jpeg2000"])
    with open_slide(path) as reader, ThreadPoolExecutor(8) as pool:
        wanted = reader.read(0, 50, 40, (300, 200))
        seen = pool.map(lambda _: reader.read(0, 50, 40, (300, 200)), range(16))
        assert all(np.array_equal(one, wanted) for one in seen)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("name", ["full", "rgb", "empty table", "plain"])
def test_a_file_cut_off_is_refused_by_name(
    tmp_path: Path, name: str, share: float
) -> None:
    path = write_dicom_slide(tmp_path, COLOUR[name], label=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableSlide, match=r"^level0_0\.dcm ") as refusal:
        open_slide(path)
    assert str(tmp_path) not in str(refusal.value)


def test_a_damaged_frame_does_not_stop_the_others(tmp_path: Path) -> None:
    path = write_dicom_slide(tmp_path, DicomSpec())
    with open_slide(path) as reader:
        stream = reader.encoded_tile(0, 3, 1)
        assert stream is not None
        good = reader.encoded_tile(0, 4, 1)
    whole = path.read_bytes()
    assert whole.count(stream) == 1
    path.write_bytes(whole.replace(stream, bytes(len(stream))))
    with open_slide(path) as reader:
        with pytest.raises(DamagedTile):
            reader.encoded_tile(0, 3, 1)
        assert reader.encoded_tile(0, 4, 1) == good


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "jpeg-ls", "rle"])
def test_a_frame_of_another_size_than_announced_is_damaged_not_decoded(
    tmp_path: Path, codec: str
) -> None:
    path = write_dicom_slide(tmp_path, DicomSpec(codec=codec, downsamples=(1,)))
    dataset = pydicom.dcmread(path)
    dataset.Rows = 128
    dataset.NumberOfFrames = 44
    dataset.save_as(path)
    # Without a frame that can be decoded there is no picture.
    with pytest.raises(UnreadableSlide, match=r"^level0_0\.dcm "):
        open_slide(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("TotalPixelMatrixColumns", 4_000_000_000),
        ("TotalPixelMatrixRows", 10),
        ("NumberOfFrames", 999_999_999),
        ("NumberOfFrames", 5000),
        ("SamplesPerPixel", 4),
        ("TotalPixelMatrixFocalPlanes", 4_000_000_000),
        ("BitsAllocated", 32),
        ("Columns", 0),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(
    tmp_path: Path, field: str, value: int
) -> None:
    path = write_dicom_slide(tmp_path, DicomSpec(downsamples=(1,)))
    dataset = pydicom.dcmread(path)
    setattr(dataset, field, value)
    dataset.save_as(path)
    with pytest.raises(UnreadableSlide, match=r"^level0_0\.dcm "):
        open_slide(path)


def test_the_levels_of_a_map_are_composed_from_dicom_frames(tmp_path: Path) -> None:
    path = write_dicom_slide(tmp_path, DicomSpec())
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        rung = pyramid.ladder.rungs[1]
        assert rung.level is None
        seen = pyramid.tile(rung, 1, 1).decode()
        wanted = dicom_slides.shrunken(dicom_slides.picture(700, 500), 2)
        assert np.abs(seen.astype(int) - wanted[64:128, 64:128]).mean() < 4


@pytest.mark.parametrize(
    "name", ["dicom_cmu/volume_1500x1125.dcm", "camelyon_level.dcm"]
)
def test_real_slides_have_the_pixels_of_openslide(shared_data: Path, name: str) -> None:
    path = shared_data / "wsi" / name
    truth_slide = openslide.OpenSlide(str(path))
    with open_slide(path) as reader:
        assert isinstance(reader, DicomReader)
        sizes = tuple((level.width, level.height) for level in reader.levels)
        assert sizes == truth_slide.level_dimensions
        for corner in [(0, 0), (301, 203), (sizes[0][0] - 90, sizes[0][1] - 70)]:
            wanted = truth_slide.read_region(corner, 0, (90, 70)).convert("RGB")
            seen = reader.read(0, *corner, (90, 70))
            assert np.array_equal(seen, np.asarray(wanted))


def test_a_real_fluorescence_slide_has_the_pixels_of_pydicom(shared_data: Path) -> None:
    folder = shared_data / "wsi" / "dicom_BPAEC"
    wanted = pydicom.dcmread(folder / "6_0").pixel_array
    slide = open_dicom(folder)
    assert isinstance(slide, DicomPlanes)
    with slide as reader:
        assert [one.name for one in reader.planes.channels] == ["Green", "Blue", "Red"]
        assert reader.planes.channels[2].colour == (255, 0, 0)
        assert reader.facts.associated == ("label",)
        for channel in range(3):
            seen = reader.read_plane(1, 1024, 0, (512, 1024), plane=Plane(channel))
            assert np.array_equal(seen, wanted[4 * channel + 1][:, :512])
