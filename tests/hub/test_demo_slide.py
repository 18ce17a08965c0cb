"""The demo slide is what it says: Aperio's file, with structures where it says."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import Point, Polygon

from hub.demo_slide import STRUCTURES, DemoSlide, build, structures
from hub.demo_tissue import Tissue

SMALL = DemoSlide(width=2560, height=1920)
ODD = DemoSlide(width=1040, height=784)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "small.svs"
    build(path, slide=SMALL)
    return path


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def level(path: Path, number: int) -> NDArray[np.uint8]:
    with openslide.OpenSlide(path) as slide:
        size = slide.level_dimensions[number]
        return np.asarray(slide.read_region((0, 0), number, size).convert("RGB"))


def darkness(rgb: NDArray[np.uint8]) -> float:
    """Mean optical density against the glass."""
    return float(-np.log(np.clip(rgb, 4, 243).astype(float) / 243).mean())


def test_openslide_takes_it_for_an_aperio_slide(small: Path) -> None:
    with openslide.OpenSlide(small) as slide:
        assert slide.properties[openslide.PROPERTY_NAME_VENDOR] == "aperio"
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == 0.5
        assert float(slide.properties[openslide.PROPERTY_NAME_OBJECTIVE_POWER]) == 20
        assert slide.dimensions == (2560, 1920)
        assert slide.level_dimensions == ((2560, 1920), (640, 480), (160, 120))
        assert set(slide.associated_images) == {"label", "macro", "thumbnail"}


def test_images_stand_in_aperios_order_with_its_tiles(small: Path) -> None:
    with tifffile.TiffFile(small) as tiff:
        pages = list(tiff.pages)
        assert [page.is_tiled for page in pages] == [True, False, True, True] + [
            False
        ] * 2
        for page in pages:
            if page.is_tiled:
                assert (page.tilewidth, page.tilelength) == (240, 240)
                assert page.tags["YCbCrSubSampling"].value == (2, 2)
        assert all("Aperio" in page.description for page in pages)
        assert [page.subfiletype for page in pages[-2:]] == [1, 9]


def test_associated_images_have_the_slides_colours(small: Path) -> None:
    with openslide.OpenSlide(small) as slide:
        for name in ("macro", "thumbnail"):
            picture = np.asarray(slide.associated_images[name].convert("RGB"))
            corner = picture[-8:, -8:].reshape(-1, 3).mean(axis=0)
            assert np.ptp(corner) < 4, f"{name}: glass is grey, not {corner}"


def test_each_level_is_the_box_mean_of_the_one_above(small: Path) -> None:
    for finer, coarser in pairwise(range(3)):
        wanted = np.asarray(Image.fromarray(level(small, finer)).reduce(4), float)
        found = level(small, coarser).astype(float)
        # What JPEG itself changes, twice.
        assert np.abs(wanted - found).mean() < 4
        assert abs((wanted - found).mean()) < 0.5


def test_same_slide_gives_the_same_bytes_and_another_seed_others(
    small: Path, tmp_path: Path
) -> None:
    build(tmp_path / "again.svs", slide=SMALL)
    assert checksum(tmp_path / "again.svs") == checksum(small)
    build(tmp_path / "other.svs", slide=DemoSlide(2560, 1920, seed=7))
    assert checksum(tmp_path / "other.svs") != checksum(small)


def test_regions_join_whatever_they_are_cut_from() -> None:
    tissue = Tissue(2560, 1920, 2023)
    whole = tissue.region(480, 240, 480, 480)
    part = tissue.region(720, 480, 240, 240)
    assert whole is not None
    assert part is not None
    # Fields are the same; only a seam's order of mixing may differ by rounding.
    gap = np.abs(whole[240:, 240:].astype(int) - part)
    assert np.percentile(gap, 99) <= 2


def test_sizes_that_no_tile_divides_are_complete(tmp_path: Path) -> None:
    build(tmp_path / "odd.svs", slide=ODD)
    with openslide.OpenSlide(tmp_path / "odd.svs") as slide:
        assert slide.level_dimensions == ((1040, 784), (260, 196), (65, 49))
        slide.read_region((800, 600), 0, (240, 184))


def test_progress_rises_from_nothing_to_all(tmp_path: Path) -> None:
    heard: list[float] = []
    build(tmp_path / "slide.svs", heard.append, slide=ODD)
    assert heard[0] == 0
    assert heard[-1] == 1
    assert heard == sorted(heard)


def test_broken_off_build_leaves_no_file(tmp_path: Path) -> None:
    def stop(share: float) -> None:
        if share > 0.1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "slide.svs", stop, slide=ODD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(1000, 768), (64, 64)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        DemoSlide(*size)


def test_folder_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "hub.demo_slide", str(tmp_path / "no" / "slide.svs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert "cannot write slide.svs" in told.stderr
    assert "Traceback" not in told.stderr


def test_structures_scale_with_the_slide_and_lie_within_it() -> None:
    for placed, full in zip(structures(SMALL), STRUCTURES, strict=True):
        assert placed.centre == (full.centre[0] / 8, full.centre[1] / 8)
        assert Polygon(placed.outline).within(
            Polygon([(0, 0), (2560, 0), (2560, 1920), (0, 1920)])
        )
    for one, other in combinations(STRUCTURES, 2):
        assert Polygon(one.outline).disjoint(Polygon(other.outline))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "full.svs"
    build(path)
    return path


def inside_and_around(path: Path, kind: str) -> tuple[float, float]:
    """Mean optical density within a structure, and in a ring outside of it."""
    quarter = level(path, 1)
    structure = next(one for one in STRUCTURES if one.kind == kind)
    outline = Polygon(structure.outline)
    core = outline.buffer(-0.08 * outline.area**0.5)
    ring = outline.buffer(0.25 * outline.area**0.5 + 80).difference(outline.buffer(80))
    left, top, right, bottom = (int(edge) // 4 * 4 for edge in ring.bounds)
    within, around = [], []
    for y in range(top, bottom, 12):
        for x in range(left, right, 12):
            pixel = quarter[y // 4, x // 4]
            if core.contains(Point(x, y)):
                within.append(pixel)
            elif ring.contains(Point(x, y)):
                around.append(pixel)
    return darkness(np.array(within)), darkness(np.array(around))


@pytest.mark.long
def test_full_slide_is_as_large_as_promised(full: Path) -> None:
    with openslide.OpenSlide(full) as slide:
        assert slide.properties[openslide.PROPERTY_NAME_VENDOR] == "aperio"
        assert slide.level_dimensions == ((20480, 15360), (5120, 3840), (1280, 960))
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]) == 0.5
    assert 30e6 < full.stat().st_size < 120e6


@pytest.mark.long
def test_structures_lie_where_they_are_said_to(full: Path) -> None:
    follicle, around = inside_and_around(full, "follicle")
    assert follicle > 2.5 * around
    lumen, around = inside_and_around(full, "vessel")
    assert lumen < 0.03
    assert around > 4 * lumen
    ink, around = inside_and_around(full, "ink")
    assert ink > 1.2
    assert around < 0.01
    fold, around = inside_and_around(full, "fold")
    assert fold > 1.25 * around


@pytest.mark.long
def test_lumen_ends_at_its_outline(full: Path) -> None:
    outline = next(one.outline for one in STRUCTURES if one.kind == "vessel")
    centre = next(one.centre for one in STRUCTURES if one.kind == "vessel")
    with openslide.OpenSlide(full) as slide:
        for x, y in outline[::6]:
            for share, bare in ((0.94, True), (1.08, False)):
                px = round(centre[0] + share * (x - centre[0])) - 8
                py = round(centre[1] + share * (y - centre[1])) - 8
                seen = slide.read_region((px, py), 0, (16, 16)).convert("RGB")
                assert (darkness(np.asarray(seen)) < 0.05) == bare


@pytest.mark.long
def test_no_two_fields_look_alike(full: Path) -> None:
    quarter = level(full, 1).astype(np.float32).mean(axis=2)
    side = 64  # 256 level-0 pixels: half of the photograph
    fields = []
    for y in range(0, quarter.shape[0] - side, side * 2):
        for x in range(0, quarter.shape[1] - side, side * 2):
            field = quarter[y : y + side, x : x + side]
            if field.mean() < 200:
                fields.append((field - field.mean()) / field.std())
    assert len(fields) > 200
    flat = np.stack([field.ravel() for field in fields])
    for turns in range(4):
        for mirror in (False, True):
            turned = [np.rot90(field, turns) for field in fields]
            if mirror:
                turned = [field[:, ::-1] for field in turned]
            other = np.stack([field.ravel() for field in turned])
            alike = flat @ other.T / flat.shape[1]
            np.fill_diagonal(alike, 0)
            assert alike.max() < 0.85


@pytest.mark.long
def test_full_slide_shows_no_hole_in_its_tissue(full: Path) -> None:
    quarter = level(full, 1)
    black = quarter.max(axis=2) < 25
    for structure in STRUCTURES:
        if structure.kind in ("ink", "fold"):  # which are meant to be dark
            left, top, right, bottom = (
                round(edge / 4) for edge in Polygon(structure.outline).buffer(40).bounds
            )
            black[top:bottom, left:right] = False
    assert not black.any()


@pytest.mark.long
def test_full_slide_gives_the_same_bytes_again(full: Path, tmp_path: Path) -> None:
    build(tmp_path / "again.svs")
    assert checksum(tmp_path / "again.svs") == checksum(full)
