"""One contract for all readers, and what only one of them does."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest

from tests import slides
from tests.tile_server.conftest import SPECS, decoded
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers import Reader, open_slide

REAL = (
    "hamamatsu_DAPI.ndpi",
    "TCGA-CR-7395-01A-01-TS1.svs",
    "camelyon_level.dcm",
    "dicom_cmu/volume_6000x4500.dcm",
)


@pytest.fixture(params=[*SPECS, *REAL], scope="module")
def path(request: pytest.FixtureRequest) -> Path:
    if request.param in SPECS:
        made: dict[str, Path] = request.getfixturevalue("made_slides")
        return made[request.param]
    real: Path = request.getfixturevalue("shared_data")
    return real / "wsi" / request.param


class TestEveryReader:
    def test_levels_are_those_of_openslide(self, path: Path) -> None:
        truth = openslide.OpenSlide(str(path))
        with open_slide(path) as reader:
            seen = tuple((level.width, level.height) for level in reader.levels)
        assert seen == truth.level_dimensions

    def test_read_gives_the_pixels_of_openslide_at_level_0(self, path: Path) -> None:
        truth = openslide.OpenSlide(str(path))
        with open_slide(path) as reader:
            full = reader.levels[0]
            for corner in [(0, 0), (full.width - 150, full.height - 90), (201, 133)]:
                wanted = truth.read_region(corner, 0, (150, 90))
                seen = reader.read(0, *corner, (150, 90))
                assert seen.shape == (90, 150, 3)
                opaque = np.asarray(wanted)[:, :, 3] == 255
                assert np.array_equal(
                    seen[opaque], np.asarray(wanted.convert("RGB"))[opaque]
                )

    def test_outside_of_the_level_is_background(self, path: Path) -> None:
        with open_slide(path) as reader:
            last = len(reader.levels) - 1
            level = reader.levels[last]
            seen = reader.read(last, level.width + 5, level.height + 5, (20, 10))
            assert np.all(seen == reader.facts.background)
            seen = reader.read(0, -30, -20, (20, 10))
            assert np.all(seen == reader.facts.background)

    def test_an_encoded_tile_is_a_jpeg_or_nothing(self, path: Path) -> None:
        with open_slide(path) as reader:
            for number, level in enumerate(reader.levels):
                stream = reader.encoded_tile(number, level.columns - 1, 0)
                if not level.encoded:
                    assert stream is None
                if stream is not None:
                    tile = decoded(stream)
                    assert tile.shape == (level.tile_height, level.tile_width, 3)

    def test_an_unknown_associated_image_is_a_key_error(self, path: Path) -> None:
        with open_slide(path) as reader, pytest.raises(KeyError):
            reader.associated_image("nobody")

    def test_eight_threads_read_the_same_pixels(self, path: Path) -> None:
        with open_slide(path) as reader, ThreadPoolExecutor(8) as pool:
            wanted = reader.read(0, 50, 40, (300, 200))
            seen = pool.map(lambda _: reader.read(0, 50, 40, (300, 200)), range(16))
            assert all(np.array_equal(one, wanted) for one in seen)


@pytest.mark.parametrize("name", ["ycbcr", "rgb_odd", "whole_streams"])
def test_passed_tiles_have_the_colours_that_were_written(
    made_slides: dict[str, Path], name: str
) -> None:
    spec = SPECS[name]
    truth = slides.picture(spec.width, spec.height).astype(int)
    with open_slide(made_slides[name]) as reader:
        stream = reader.encoded_tile(0, 5, 4)
        assert stream is not None
        edge = spec.tile
        wanted = truth[4 * edge : 5 * edge, 5 * edge : 6 * edge]
        assert np.abs(decoded(stream) - wanted).mean() < 6


def test_a_tile_left_out_is_background(made_slides: dict[str, Path]) -> None:
    with open_slide(made_slides["sparse"]) as reader:
        assert reader.encoded_tile(0, 3, 2) is None
        seen = reader.read(0, 3 * 64, 2 * 64, (128, 64))
        assert np.all(seen == reader.facts.background)


def test_the_label_of_an_aperio_slide_can_be_read(
    made_slides: dict[str, Path],
) -> None:
    with open_slide(made_slides["ycbcr"]) as reader:
        assert reader.facts.associated == ("label", "macro", "thumbnail")
        assert np.all(reader.associated_image("label") == slides.LABEL_COLOUR)


def test_metadata_is_in_micrometres_and_magnification(
    made_slides: dict[str, Path],
) -> None:
    with open_slide(made_slides["ycbcr"]) as reader:
        assert (reader.facts.mpp_x, reader.facts.mpp_y) == (0.5, 0.5)
        assert reader.facts.objective == 20
    with open_slide(made_slides["deflate"]) as reader:
        assert reader.facts.mpp_x is None


def test_the_choice_of_the_reader_is_in_the_log_without_the_name(
    made_slides: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tile_server"):
        open_slide(made_slides["ycbcr"]).close()
        open_slide(made_slides["deflate"]).close()
    assert "PassThroughReader" in caplog.text
    assert "TiledReader" in caplog.text
    assert "ycbcr" not in caplog.text


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["ycbcr", "single", "deflate"])
def test_a_slide_cut_off_is_refused_by_name(
    tmp_path: Path, name: str, share: float
) -> None:
    path = slides.write_truncated(tmp_path / "cut.tiff", SPECS[name], share)
    with pytest.raises(UnreadableSlide, match=r"^cut\.tiff ") as refusal:
        open_slide(path)
    assert str(tmp_path) not in str(refusal.value)


def test_a_slide_whose_tiles_lie_past_its_end_is_refused(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "cut.svs", slides.YCBCR)
    slides.lose_tile(path, page=0, number=70)
    with pytest.raises(UnreadableSlide, match=r"^cut\.svs is cut off: 1 of its 176"):
        open_slide(path)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"no slide at all" * 99])
def test_a_foreign_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.svs"
    path.write_bytes(content)
    with pytest.raises(UnreadableSlide, match=r"^odd\.svs ") as refusal:
        open_slide(path)
    assert str(tmp_path) not in str(refusal.value)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSlide, match="is a folder"):
        open_slide(tmp_path)
    with pytest.raises(UnreadableSlide, match="is not there"):
        open_slide(tmp_path / "gone.svs")


@pytest.mark.parametrize(
    "name",
    [
        "truncated.svs",
        "unreadable.svs",
        "not_a_tiff.svs",
        "text_named.dcm",
        "empty.dcm",
        "no_preamble.dcm",
        "truncated_pixels.dcm",
        "truncated.nii.gz",
        "rtstruct_missing_reference.dcm",
        "ct_missing_slice",
    ],
)
def test_a_malformed_file_is_refused_by_name(shared_data: Path, name: str) -> None:
    with pytest.raises(UnreadableSlide, match=f"^{name} ") as refusal:
        open_slide(shared_data / "malformed" / name)
    assert str(shared_data) not in str(refusal.value)


def test_a_damaged_tile_does_not_stop_the_others(shared_data: Path) -> None:
    whole = shared_data / "wsi" / "CMU-1-Small-Region.svs"
    damaged = shared_data / "malformed" / "damaged_tiles.svs"
    failed = 0
    with open_slide(whole) as good, open_slide(damaged) as reader:
        for t_y in range(reader.levels[0].rows):
            for t_x in range(reader.levels[0].columns):
                try:
                    seen = reader.encoded_tile(0, t_x, t_y)
                except DamagedTile:
                    failed += 1
                else:
                    assert seen == good.encoded_tile(0, t_x, t_y)
    assert failed == 12


def test_openslide_goes_on_after_a_damaged_part(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "hurt.tiff", slides.DEFLATE)
    slides.damage_tile(path, page=0, number=9)
    with open_slide(path) as reader:
        with pytest.raises(DamagedTile):
            reader.read(0, 128 * 1, 128 * 1, (128, 128))
        seen = reader.read(0, 0, 0, (128, 128))
        assert np.array_equal(seen, slides.picture(128, 128))


def test_a_closed_reader_leaves_no_descriptor(tmp_path: Path) -> None:
    links = Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("this system does not list descriptors")

    def descriptors(of: Path) -> int:
        return sum(link.resolve() == of for link in links.iterdir() if link.exists())

    path = slides.write_slide(tmp_path / "own.svs", slides.YCBCR)
    reader: Reader = open_slide(path)
    opened = descriptors(path)
    reader.close()
    assert opened >= 1
    assert descriptors(path) == 0
