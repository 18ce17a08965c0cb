"""Tissue: known areas found again, wherever they lie and however they are read."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum import open_image
from theatrum.node import ArrayImage, Cancelled, Context
from theatrum.nodes import tissue_area
from theatrum.nodes.pieces import otsu
from theatrum.nodes.raster import raster_at
from theatrum.nodes.tissue import learned, read_all

from tests import slides
from tests.extensions.nodes.pictures import (
    GLASS,
    TISSUE,
    blank,
    draw_disk,
    large_tissue,
    noisy,
)

MM2 = 1e-6  # of a pixel of 1 µm


def _two_disks(shift: tuple[int, int] = (0, 0)) -> ArrayImage:
    """A ring with a hole of 300 µm radius, and a disk; a pixel is a micrometre."""
    x, y = shift
    array = blank(2400, 1800)
    draw_disk(array, (800 + x, 800 + y), 600, TISSUE)
    draw_disk(array, (800 + x, 800 + y), 300, GLASS)
    draw_disk(array, (1900 + x, 1300 + y), 250, TISSUE)
    return ArrayImage(noisy(array), mpp=1.0)


TRUE_MM2 = math.pi * (600**2 - 300**2 + 250**2) * MM2


def test_the_area_is_right_within_one_percent() -> None:
    found = tissue_area.run({"image": _two_disks()})
    assert found["area_mm2"] == pytest.approx(TRUE_MM2, rel=0.01)
    assert found["share"] == pytest.approx(
        100 * TRUE_MM2 / (2400 * 1800 * MM2), rel=0.01
    )
    assert str(found.numbers["area_mm2"]).endswith(" mm2")


def test_the_outline_has_the_pieces_and_the_hole_where_they_are() -> None:
    found = tissue_area(_two_disks())
    ring, disk = found.outline
    assert found.pieces == 2
    assert [len(ring.holes), len(disk.holes)] == [1, 0]
    assert ring.bounds == pytest.approx((200, 200, 1400, 1400), abs=16)
    assert disk.bounds == pytest.approx((1650, 1050, 2150, 1550), abs=16)
    outlined = sum(piece.area_px for piece in found.outline) * MM2
    assert outlined == pytest.approx(found.area_mm2, rel=0.02)


def test_a_move_by_whole_pixels_of_the_raster_changes_nothing() -> None:
    still = tissue_area(_two_disks())
    moved = tissue_area(_two_disks((64, -128)))
    assert moved.area_mm2 == pytest.approx(still.area_mm2, rel=1e-3)
    for before, after in zip(still.outline, moved.outline, strict=True):
        assert after.area_px == pytest.approx(before.area_px, rel=0.01)


@settings(max_examples=5, deadline=None)
@given(st.integers(-150, 150), st.integers(-150, 150))
def test_any_move_changes_the_area_by_less_than_one_percent(x: int, y: int) -> None:
    found = tissue_area(_two_disks((x, y)))
    assert found.area_mm2 == pytest.approx(TRUE_MM2, rel=0.01)
    assert found.pieces == 2


@pytest.mark.parametrize("edge", [17, 100, 1024])
def test_the_slide_is_read_the_same_by_any_tiles(edge: int) -> None:
    raster = raster_at(_two_disks(), 8.0)
    whole = read_all(raster, Context())
    assert np.array_equal(read_all(raster, Context(), edge), whole)


@pytest.mark.parametrize("mpp", [4.0, 8.0, 16.0])
def test_the_area_hardly_depends_on_the_scale(mpp: float) -> None:
    assert tissue_area(_two_disks(), mpp=mpp).area_mm2 == pytest.approx(
        TRUE_MM2, rel=0.02
    )


@pytest.mark.parametrize(("tint", "share"), [(GLASS, 0.0), (TISSUE, 100.0)])
def test_an_empty_slide_has_none_and_a_full_one_all(
    tint: tuple[int, int, int], share: float
) -> None:
    array = np.full((896, 1200, 3), tint, np.int16)
    found = tissue_area(ArrayImage(noisy(array), mpp=1.0))
    assert found.share == share
    assert found.pieces == (1 if share else 0)
    if share:
        assert found.outline[0].bounds == (0, 0, 1200, 896)


def test_specks_and_pinholes_are_left_out_and_grey_dirt_is_no_tissue() -> None:
    array = blank(2000, 1600)
    draw_disk(array, (800, 800), 500, TISSUE)
    draw_disk(array, (800, 800), 40, GLASS)
    draw_disk(array, (1700, 300), 50, TISSUE)
    draw_disk(array, (1600, 1200), 200, (120, 119, 118))
    image = ArrayImage(noisy(array), mpp=1.0)
    found = tissue_area(image)
    assert found.pieces == 1
    assert found.outline[0].holes == ()
    assert found.area_mm2 == pytest.approx(math.pi * 500**2 * MM2, rel=0.01)
    kept = tissue_area(image, smallest_mm2=0.001, smallest_hole_mm2=0.001)
    assert kept.pieces == 2
    assert len(kept.outline[0].holes) == 1


def test_a_slide_without_a_scale_has_a_share_but_no_area() -> None:
    found = tissue_area.run({"image": ArrayImage(_two_disks().array)})
    assert "area_mm2" not in found
    assert found["share"] > 0


def test_a_tinted_glass_is_glass() -> None:
    array = np.full((900, 1200, 3), (244, 236, 222), np.int16)
    draw_disk(array, (500, 400), 300, (200, 130, 170))
    rule = learned(noisy(array))
    assert rule.glass == pytest.approx((244, 236, 222), abs=6)
    found = tissue_area(ArrayImage(noisy(array), mpp=1.0))
    assert found.area_mm2 == pytest.approx(math.pi * 300**2 * MM2, rel=0.02)


def test_otsu_parts_two_heaps() -> None:
    values = np.r_[np.full(900, 20), np.full(30, 25), np.full(400, 90)]
    assert 25 <= otsu(np.bincount(values, minlength=256)) < 90
    assert otsu(np.zeros(256, np.int64)) == 0


def test_progress_rises_to_the_end_and_a_cancel_stops_between_two_tiles() -> None:
    told: list[float] = []
    image = large_tissue(40_000, 30_000)
    tissue_area(image, context=Context(lambda share, _: told.append(share)))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 8
    whole = image.pixels_read
    stopped = large_tissue(40_000, 30_000)
    context = Context(is_cancelled=lambda: stopped.pixels_read > 0)
    with pytest.raises(Cancelled):
        tissue_area(stopped, context=context)
    assert 0 < stopped.pixels_read < whole / 3


def test_the_slide_with_the_largest_raster_needs_no_more_than_is_declared() -> None:
    image = large_tissue(65_536, 65_536)  # 2**24 pixels at 8 µm; larger are coarser
    tracemalloc.start()
    found = tissue_area(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < tissue_area.resources.memory_bytes
    assert image.most_at_once <= 1024 * 1024
    true_mm2 = math.pi * 16_384**2 * 0.25e-6
    assert found.area_mm2 == pytest.approx(true_mm2, rel=0.01)
    larger = large_tissue(180_000, 120_000)
    true_mm2 = math.pi * 45_000 * 30_000 * 0.25e-6
    assert tissue_area(larger).area_mm2 == pytest.approx(true_mm2, rel=0.01)
    assert larger.pixels_read <= 2**24


def test_a_slide_in_a_file_gives_what_its_array_gives(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "slide.svs", slides.YCBCR)
    image = open_image(path)
    found = tissue_area(image, mpp=1.0)
    array = np.asarray(image.region(0, 0, image.width, image.height))
    again = tissue_area(ArrayImage(array, image.mpp_x), mpp=1.0)
    assert found.area_mm2 == pytest.approx(again.area_mm2, rel=0.02)


def test_the_tissue_of_a_real_slide_is_what_is_seen_on_it(shared_data: Path) -> None:
    found = tissue_area(open_image(shared_data / "wsi" / "CMU-1-Small-Region.svs"))
    # What it gave when the outline, drawn on the thumbnail, was found good by eye.
    assert found.share == pytest.approx(31, abs=3)
    assert found.area_mm2 == pytest.approx(0.52, abs=0.05)
    assert found.pieces <= 2
