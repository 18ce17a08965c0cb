"""Regions are exact at stored levels, in place at all others, and bounded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import slides
from tests.tile_server.conftest import SPECS
from tile_server.errors import BadRequest, DamagedTile, RegionTooLarge
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.regions import Box, downsample_of, read_region, thumbnail


def test_level_0_gives_openslides_pixels(made_slides: dict[str, Path]) -> None:
    for name in SPECS:
        truth = openslide.OpenSlide(str(made_slides[name]))
        with open_slide(made_slides[name]) as reader:
            seen = read_region(Pyramid(reader), Box(123, 77, 300, 200), (1, 1))
        region = truth.read_region((123, 77), 0, (300, 200))
        white = Image.new("RGBA", region.size, "white")
        wanted = Image.alpha_composite(white, region).convert("RGB")
        assert np.array_equal(seen, np.asarray(wanted)), name


def test_a_stored_level_gives_openslides_pixels(made_slides: dict[str, Path]) -> None:
    truth = openslide.OpenSlide(str(made_slides["ycbcr"]))
    with open_slide(made_slides["ycbcr"]) as reader:
        seen = read_region(Pyramid(reader), Box(160, 80, 400, 240), (4, 4))
    wanted = truth.read_region((160, 80), 1, (100, 60)).convert("RGB")
    assert np.array_equal(seen, np.asarray(wanted))


@pytest.mark.parametrize("downsample", [2, 3, 5, 6.5, 8])
def test_a_scale_between_levels_lies_in_place(
    made_slides: dict[str, Path], downsample: float
) -> None:
    with open_slide(made_slides["single"]) as reader:
        box = Box(96, 192, 780, 780)
        seen = read_region(Pyramid(reader), box, (downsample, downsample))
    full = slides.picture(1999, 1230)[192 : 192 + 780, 96 : 96 + 780]
    size = round(780 / downsample)
    wanted = np.asarray(
        Image.fromarray(full).resize((size, size), Image.Resampling.BOX)
    )
    assert seen.shape == wanted.shape
    assert slides.displacement(seen, wanted) == (0, 0)
    assert np.abs(seen.astype(int) - wanted).mean() < 8


@given(
    st.integers(-50, 1100),
    st.integers(-50, 800),
    st.integers(1, 300),
    st.integers(1, 300),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_region_is_the_same_part_of_the_picture_wherever_it_starts(
    made_slides: dict[str, Path], x: int, y: int, width: int, height: int
) -> None:
    full = slides.picture(1000, 700)
    with open_slide(made_slides["deflate"]) as reader:
        seen = read_region(Pyramid(reader), Box(x, y, width, height), (1, 1))
    wanted = np.full((height, width, 3), 255, np.uint8)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, 1000), min(y + height, 700)
    if right > left and bottom > top:
        part = full[top:bottom, left:right]
        wanted[top - y : bottom - y, left - x : right - x] = part
    assert np.array_equal(seen, wanted)


def test_blocks_join_without_a_seam(
    made_slides: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(made_slides["single"]) as reader:
        pyramid = Pyramid(reader)
        box = Box(10.3, 20.7, 1500, 1100)
        whole = read_region(pyramid, box, (3, 3))
        monkeypatch.setattr("tile_server.regions._BLOCK", 100)
        joined = read_region(pyramid, box, (3, 3)).astype(int)
    # The mean is taken along x, then y, rounded each time.
    assert np.abs(joined - whole).max() <= 1


def test_too_many_pixels_are_refused_before_any_is_read(
    made_slides: dict[str, Path],
) -> None:
    with open_slide(made_slides["ycbcr"]) as reader:
        pyramid = Pyramid(reader)
        with pytest.raises(RegionTooLarge, match="coarser"):
            read_region(pyramid, Box(0, 0, 10_000, 10_000), (1, 1))
        with pytest.raises(RegionTooLarge):
            read_region(pyramid, Box(0, 0, 10**7, 10**7), (16384, 16384))


def test_a_scale_is_a_level_or_micrometres(made_slides: dict[str, Path]) -> None:
    with open_slide(made_slides["ycbcr"]) as reader:
        facts = reader.facts
        assert downsample_of(facts, level=None, mpp=None) == (1, 1)
        assert downsample_of(facts, level=3, mpp=None) == (8, 8)
        assert downsample_of(facts, level=None, mpp=2.0) == (4, 4)
        with pytest.raises(BadRequest, match="not both"):
            downsample_of(facts, level=1, mpp=2.0)
    with open_slide(made_slides["deflate"]) as reader, pytest.raises(BadRequest):
        downsample_of(reader.facts, level=None, mpp=2.0)


def test_a_damaged_part_is_an_error_not_a_picture(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "hurt.svs", slides.YCBCR)
    slides.damage_tile(path, page=0, number=0)
    with open_slide(path) as reader:
        with pytest.raises(DamagedTile):
            read_region(Pyramid(reader), Box(0, 0, 100, 100), (1, 1))
        assert read_region(Pyramid(reader), Box(64, 64, 64, 64), (1, 1)).any()
        # A thumbnail is for finding the slide, so it only has a hole.
        body = thumbnail(Pyramid(reader), 1000)
    seen = np.asarray(Image.open(io.BytesIO(body))).astype(int)
    assert np.abs(seen[:56, :56] - 128).max() < 20
    assert np.abs(seen[72:] - slides.picture(1000, 700)[72:]).mean() < 8


@pytest.mark.parametrize("longest", [1, 64, 256, 2048])
def test_a_thumbnail_keeps_the_slides_shape(
    made_slides: dict[str, Path], longest: int
) -> None:
    for name in ("ycbcr", "single", "deflate"):
        spec = SPECS[name]
        with open_slide(made_slides[name]) as reader:
            image = Image.open(io.BytesIO(thumbnail(Pyramid(reader), longest)))
        scale = min(1, longest / max(spec.width, spec.height))
        wanted = max(1, round(spec.width * scale)), max(1, round(spec.height * scale))
        assert image.size == wanted


def test_a_thumbnail_shows_the_slide(made_slides: dict[str, Path]) -> None:
    with open_slide(made_slides["single"]) as reader:
        body = thumbnail(Pyramid(reader), 1000)
    seen = np.asarray(Image.open(io.BytesIO(body))).astype(int)
    full = Image.fromarray(slides.picture(1999, 1230))
    wanted = np.asarray(full.resize((1000, 615), Image.Resampling.BOX))
    assert np.abs(seen - wanted).mean() < 8
