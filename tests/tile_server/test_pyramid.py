"""Every tile lies where the map puts it, and holds nothing but the slide."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from tests import slides
from tests.tile_server.conftest import SPECS, decoded
from tile_server.derived import DerivedTiles, slide_key
from tile_server.errors import DamagedTile, Stopped
from tile_server.ladder import Rung
from tile_server.pyramid import JPEG, PNG, Pyramid, Tile
from tile_server.readers import open_slide

JPEG_SLIDES = (
    "CMU-1-Small-Region.svs",
    "cmu_pyramid.tiff",
    "synthetic_marked_6000x4500.svs",
)


def whole_rung(pyramid: Pyramid, rung: Rung) -> slides.Pixels:
    """A rung's tiles put together as a map does, cut to the slide."""
    rows = [
        np.hstack([decoded(pyramid.tile(rung, x, y).body) for x in range(rung.columns)])
        for y in range(rung.rows)
    ]
    return np.vstack(rows)[: rung.height, : rung.width]


@pytest.mark.parametrize("name", list(SPECS))
def test_no_rung_lies_more_than_a_pixel_away(
    made_slides: dict[str, Path], name: str
) -> None:
    spec = SPECS[name]
    full = slides.picture(spec.width, spec.height)
    with open_slide(made_slides[name]) as reader:
        pyramid = Pyramid(reader)
        for rung in pyramid.ladder.rungs:
            seen = whole_rung(pyramid, rung)
            wanted = slides.shrunken(full, rung.downsample)
            height, width = wanted.shape[:2]
            if min(height, width) < 36:
                continue
            # The four corners, where an error of scale is largest.
            side = min(height, width, 120)
            for top in (0, height - side):
                for left in (0, width - side):
                    part = np.s_[top : top + side, left : left + side]
                    shift = slides.displacement(seen[part], wanted[part])
                    assert max(map(abs, shift)) <= 1, (rung, top, left)


@pytest.mark.parametrize("name", list(SPECS))
def test_a_composed_rung_shows_what_the_slide_shows(
    made_slides: dict[str, Path], name: str
) -> None:
    spec = SPECS[name]
    full = slides.picture(spec.width, spec.height)
    with open_slide(made_slides[name]) as reader:
        pyramid = Pyramid(reader)
        for rung in pyramid.ladder.rungs:
            # Farther up the waves are a few pixels long, too fine for 4:2:0.
            if rung.stored or spec.empty or rung.k > 3:
                continue
            wanted = slides.shrunken(full, rung.downsample).astype(int)
            height, width = wanted.shape[:2]
            seen = whole_rung(pyramid, rung)[:height, :width]
            assert np.abs(seen - wanted).mean() < 8, rung


@pytest.mark.parametrize("name", list(SPECS))
def test_edge_tile_is_padded_not_stretched(
    made_slides: dict[str, Path], name: str
) -> None:
    with open_slide(made_slides[name]) as reader:
        pyramid = Pyramid(reader)
        edge = pyramid.ladder.tile
        for rung in pyramid.ladder.rungs:
            x, y = rung.columns - 1, rung.rows - 1
            seen = decoded(pyramid.tile(rung, x, y).body).astype(int)
            assert seen.shape == (edge, edge, 3)
            # 16 pixels on, no JPEG block has any of the picture left.
            beyond_x = rung.width - x * edge + 16
            beyond_y = rung.height - y * edge + 16
            for padding in (seen[:, beyond_x:], seen[beyond_y:, :]):
                assert np.all(np.abs(padding - reader.facts.background) <= 3)


@pytest.mark.parametrize("name", ["ycbcr", "rgb_odd", "whole_streams", "single"])
def test_an_edge_tile_leaves_without_loss(
    made_slides: dict[str, Path], name: str
) -> None:
    truth = openslide.OpenSlide(str(made_slides[name]))
    with open_slide(made_slides[name]) as reader:
        pyramid = Pyramid(reader)
        full, edge = pyramid.ladder.rungs[0], pyramid.ladder.tile
        x, y = full.columns - 1, full.rows - 1
        tile = pyramid.tile(full, x, y)
        assert tile.media_type == PNG
        width, height = full.width - x * edge, full.height - y * edge
        region = truth.read_region((x * edge, y * edge), 0, (width, height))
        wanted = np.asarray(region.convert("RGB"))
        assert np.array_equal(decoded(tile.body)[:height, :width], wanted)


def test_an_inner_tile_is_the_files_own_stream(made_slides: dict[str, Path]) -> None:
    path = made_slides["ycbcr"]
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        tile = pyramid.stored_tile(pyramid.ladder.rungs[0], 2, 3)
        assert tile is not None
        assert tile.media_type == JPEG
        # What follows the scan's header is the file's, byte for byte.
        scan = tile.body[tile.body.index(b"\xff\xda") :]
        assert scan in path.read_bytes()


def test_no_tile_shows_the_padding(made_slides: dict[str, Path]) -> None:
    for name in ("ycbcr", "rgb_odd", "whole_streams"):
        with open_slide(made_slides[name]) as reader:
            pyramid = Pyramid(reader)
            for rung in pyramid.ladder.rungs:
                seen = whole_rung(pyramid, rung)[:-1, :-1].astype(int)
                # 4:2:0 lets the padding's colour bleed by a pixel; the reader of the
                # file's own pixels sees the same.
                inner = seen[: -2 or None, : -2 or None]
                magenta = (inner[..., 0] > 235) & (inner[..., 1] < 20)
                assert not magenta.any(), (name, rung)


def test_a_tile_left_out_is_background_at_every_rung(
    made_slides: dict[str, Path],
) -> None:
    with open_slide(made_slides["sparse"]) as reader:
        pyramid = Pyramid(reader)
        full, half = pyramid.ladder.rungs[:2]
        assert np.all(decoded(pyramid.tile(full, 3, 2).body) == 255)
        composed = decoded(pyramid.tile(half, 0, 0).body)
        assert np.all(composed[4:28, 4:28] > 250)
        assert np.all(composed[36:60, 36:60].mean() < 250)


def test_a_damaged_tile_leaves_a_hole_and_no_more(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "hurt.svs", slides.YCBCR)
    slides.damage_tile(path, page=0, number=16 * 2 + 2)
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        full, half = pyramid.ladder.rungs[:2]
        with pytest.raises(DamagedTile):
            pyramid.tile(full, 2, 2)
        assert pyramid.tile(full, 3, 2).media_type == JPEG
        composed = decoded(pyramid.tile(half, 1, 1).body).astype(int)
        assert np.abs(composed[8:24, 8:24] - 128).max() < 20
        wanted = slides.shrunken(slides.picture(256, 256), 2)[64:, 64:].astype(int)
        assert np.abs(composed[40:, 40:] - wanted[40:, 40:]).mean() < 10


def test_stopping_ends_work_in_progress(made_slides: dict[str, Path]) -> None:
    stopping = threading.Event()
    with open_slide(made_slides["single"]) as reader:
        pyramid = Pyramid(reader, stopping=stopping)
        stopping.set()
        with pytest.raises(Stopped):
            pyramid.tile(pyramid.ladder.rungs[-1], 0, 0)


def test_a_composed_tile_is_made_once_and_then_found(
    made_slides: dict[str, Path], tmp_path: Path
) -> None:
    kept = DerivedTiles(tmp_path, disk_bytes=2**24, memory_bytes=2**20)
    with open_slide(made_slides["single"]) as reader:
        key = slide_key(str(reader.path), "v")
        pyramid = Pyramid(reader, keep=kept.keeper(key))
        top = pyramid.ladder.rungs[-1]
        first = pyramid.tile(top, 0, 0)
        assert pyramid.tile(top, 0, 0) == first
    kept.close()
    again = DerivedTiles(tmp_path, disk_bytes=2**24, memory_bytes=0)
    with open_slide(made_slides["single"]) as reader:
        stopping = threading.Event()
        stopping.set()
        pyramid = Pyramid(reader, keep=again.keeper(key), stopping=stopping)
        assert pyramid.tile(top, 0, 0) == Tile(first.body, JPEG)
    again.close()


@pytest.mark.parametrize("name", JPEG_SLIDES)
def test_corner_tiles_of_a_real_slide_have_openslides_pixels(
    shared_data: Path, name: str
) -> None:
    path = shared_data / "wsi" / name
    truth = openslide.OpenSlide(str(path))
    checked = 0
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        edge = pyramid.ladder.tile
        for rung in pyramid.ladder.rungs:
            if not rung.stored:
                continue
            assert rung.level is not None
            level = reader.levels[rung.level]
            # From the origin, where openslide need not interpolate at any level.
            whole = truth.read_region(
                (0, 0), rung.level, (level.width, level.height)
            ).convert("RGB")
            for x in {0, level.columns - 1}:
                for y in {0, level.rows - 1}:
                    seen = decoded(pyramid.tile(rung, x, y).body)
                    left, top = x * edge, y * edge
                    right = min(left + edge, level.width)
                    bottom = min(top + edge, level.height)
                    wanted = np.asarray(whole.crop((left, top, right, bottom)))
                    valid = seen[: bottom - top, : right - left].astype(int)
                    assert np.abs(valid - wanted).max() == 0
                    checked += 1
    assert checked >= 4


@pytest.mark.parametrize(
    "name", [*JPEG_SLIDES, "TCGA-CR-7395-01A-01-TS1.svs", "hamamatsu_DAPI.ndpi"]
)
def test_no_rung_of_a_real_slide_lies_more_than_a_pixel_away(
    shared_data: Path, name: str
) -> None:
    path = shared_data / "wsi" / name
    truth = openslide.OpenSlide(str(path))
    whole = truth.read_region((0, 0), 0, truth.dimensions).convert("RGB")
    checked = 0
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        for rung in pyramid.ladder.rungs:
            # Made of level 0 with the rung's own, exact scale.
            size = whole.width // rung.downsample, whole.height // rung.downsample
            exact = (0, 0, size[0] * rung.downsample, size[1] * rung.downsample)
            wanted = np.asarray(whole.resize(size, Image.Resampling.BOX, exact))
            seen = whole_rung(pyramid, rung)
            side = min(*size, 160)
            for top in (0, size[1] - side):
                for left in (0, size[0] - side):
                    part = np.s_[top : top + side, left : left + side]
                    if wanted[part].std(axis=(0, 1)).max() < 4:
                        continue  # bare glass looks the same wherever it lies
                    checked += 1
                    shift = slides.displacement(seen[part], wanted[part])
                    assert max(map(abs, shift)) <= 1, (rung, top, left)
    assert checked >= 10
