"""Tables of tiles: read by blocks, the same as tifffile's, and cheap to keep."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from tests import philips_slides, slides
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.pass_through import PassThroughReader
from tile_server.readers.tiff_tables import TileTable
from tile_server.reading import KnowsPlaces

_IO = Path("/proc/self/io")
linux = pytest.mark.skipif(not _IO.exists(), reason="Linux counts what is read")


def write_huge(
    path: Path, width: int = 100_000, height: int = 80_000, *, apart: bool = False
) -> Path:
    """A slide of that size whose tiles are all the same few bytes; or lie `apart`."""
    edge = 240
    tile = slides._encode(slides.picture(edge, edge), slides.SlideSpec())
    count = -(-width // edge) * -(-height // edge)
    at = 8 + 2 + 12 * 12 + 4
    bits, offsets, lengths = at, at + 8, at + 8 + 4 * count
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 7),
        (262, 3, 1, 6), (277, 3, 1, 3), (284, 3, 1, 1), (322, 3, 1, edge),
        (323, 3, 1, edge), (324, 4, count, offsets), (325, 4, count, lengths),
        (530, 3, 2, 2 | 2 << 16),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    first = lengths + 4 * count
    path.write_bytes(
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
        + struct.pack("<4H", 8, 8, 8, 0)
        + (first + np.arange(count) * len(tile) * apart).astype("<u4").tobytes()
        + np.full(count, len(tile), "<u4").tobytes()
        + tile * (count if apart else 1)
    )  # fmt: skip
    return path


def bytes_read() -> int:
    return int(_IO.read_text().split("rchar: ")[1].split()[0])


@linux
def test_the_first_tile_of_a_huge_slide_reads_little_more_than_its_table(
    tmp_path: Path,
) -> None:
    path = write_huge(tmp_path / "huge.tiff")
    table = path.stat().st_size
    assert table > 1_000_000
    before = bytes_read()
    with open_slide(path) as reader:
        assert isinstance(reader, PassThroughReader)
        pyramid = Pyramid(reader)
        full = pyramid.ladder.rungs[0]
        assert pyramid.stored_tile(full, 200, 100) is not None
        # By openslide, by tifffile (twice), and by us.
        assert bytes_read() - before < 6 * table
        before = bytes_read()
        tile = pyramid.stored_tile(full, 201, 100)
        assert tile is not None
        # The tile, and this file of counts.
        assert bytes_read() - before < len(tile.body) + 1000


@pytest.mark.parametrize("bigtiff", [False, True])
def test_every_tile_is_where_tifffile_says(tmp_path: Path, *, bigtiff: bool) -> None:
    path = tmp_path / "one.tiff"
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=">") as tiff:
        picture = slides.picture(3000, 2000)
        tiff.write(picture, tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as tiff, path.open("rb") as file:
        page = tiff.pages.first
        table = TileTable.of(page, file.fileno())
        assert table is not None
        assert table.count > 1024, "more than two blocks"
        wanted = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        places = [divmod(number, table.columns) for number in range(table.count)]
        assert [table.find(x, y) for y, x in places] == wanted
        assert [table.find_now(x, y) for y, x in places] in (
            wanted,
            [None] * len(places),
        )


def test_more_blocks_than_are_kept_are_read_again(tmp_path: Path) -> None:
    path = write_huge(tmp_path / "huge.tiff")
    with tifffile.TiffFile(path) as tiff, path.open("rb") as file:
        table = TileTable.of(tiff.pages.first, file.fileno())
        assert table is not None
        wanted = table.find(0, 0)
        for y in range(334):
            assert table.find(5, y) == wanted
        assert len(table._blocks) <= 32
        assert table.find(0, 0) == wanted


@linux
def test_two_hundred_open_slides_cost_about_ten_megabytes(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "slide.svs", slides.SlideSpec(2000, 1500))
    for number in range(201):
        os.link(path, tmp_path / f"{number}.svs")
    # In a process of its own, whose memory nobody else has taken or freed.
    code = """if True:
        import gc, sys, psutil
        from pathlib import Path
        from tile_server.readers import open_slide
        def own(): gc.collect(); return psutil.Process().memory_full_info().uss
        folder = Path(sys.argv[1])
        kept = [open_slide(folder / "200.svs")]
        before = own()
        kept += [open_slide(folder / f"{n}.svs") for n in range(200)]
        print(own() - before)
    """
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert int(ran.stdout) < 10_000_000


@pytest.fixture
def philips(tmp_path: Path) -> Path:
    return philips_slides.write_philips(tmp_path / "philips.tiff")


def test_a_philips_slide_passes_through_on_its_own_grid(philips: Path) -> None:
    with open_slide(philips) as reader, openslide.OpenSlide(str(philips)) as truth:
        assert isinstance(reader, PassThroughReader)
        assert reader.facts.format == "philips, JPEG"
        assert reader.facts.mpp_x == pytest.approx(philips_slides.MPP)
        sizes = [(level.width, level.height) for level in reader.levels]
        assert sizes == list(truth.level_dimensions)
        # Pages of the coarser levels are larger: 256 x 256 for 256 x 192.
        assert sizes[2] == (256, 192)
        assert all(level.encoded for level in reader.levels)
        for number, (width, height) in enumerate(sizes):
            corner = (0, 0)
            wanted = truth.read_region(corner, number, (width, height))
            background = np.full((height, width, 3), 255, np.uint8)
            rgba = np.asarray(wanted).astype(int)
            there = rgba[:, :, 3:] > 0
            aim = np.where(there, rgba[:, :, :3], background)
            assert np.array_equal(reader.read(number, 0, 0, (width, height)), aim)


def test_no_tile_of_a_philips_slide_shows_its_padding(philips: Path) -> None:
    with open_slide(philips) as reader:
        pyramid = Pyramid(reader)
        for rung in pyramid.ladder.rungs:
            assert rung.level is not None or rung.k >= philips_slides.LEVELS
            for x in range(rung.columns):
                for y in range(rung.rows):
                    seen = pyramid.tile(rung, x, y).decode().astype(int)
                    magenta = np.abs(seen - slides.PADDING).max(axis=2) < 30
                    assert not magenta.any(), (rung.k, x, y)


def test_glass_that_philips_leaves_out_is_glass_and_made_of_nothing(
    philips: Path,
) -> None:
    with open_slide(philips) as reader:
        assert isinstance(reader, KnowsPlaces)
        pyramid = Pyramid(reader)
        for level, x, y in philips_slides.GLASS:
            rung = pyramid.ladder.rungs[level]
            assert reader.encoded_tile(level, x, y) is None
            assert pyramid.place(rung, x, y) is None
            assert (pyramid.tile(rung, x, y).decode() == 255).all()
