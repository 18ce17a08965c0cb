"""Plain pictures: imported once, without loss, never beside the original."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tests import slides
from tile_server.errors import UnreadableSlide
from tile_server.readers import open_slide
from tile_server.readers.imports import Imports
from tile_server.readers.planes import Plane
from tile_server.readers.pyramid_file import write_pyramid
from tile_server.readers.rendering import planes_of

TRUTH = slides.picture(1301, 907)


def whole(path: Path) -> Any:
    with open_slide(path) as reader:
        level = reader.levels[0]
        return reader.read(0, 0, 0, (level.width, level.height))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_a_png_is_served_without_loss(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.png"
    image = Image.fromarray(TRUTH).convert(mode)
    image.save(path)
    assert np.array_equal(whole(path), np.asarray(image.convert("RGB")))


def test_what_is_clear_in_a_png_is_white(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[:30] = (200, 10, 20, 255)
    Image.fromarray(pixels).save(path)
    seen = whole(path)
    assert np.all(seen[:30] == (200, 10, 20))
    assert np.all(seen[30:] == 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_upright(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photo.jpg"
    image = Image.fromarray(slides.picture(160, 96))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, quality=95, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    seen = whole(path)
    assert seen.shape == wanted.shape
    assert np.abs(seen.astype(int) - wanted).max() <= 3


def test_a_jpeg_in_inks_has_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "inks.jpg"
    Image.fromarray(slides.picture(160, 96)).convert("CMYK").save(path, quality=95)
    wanted = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(whole(path) - wanted).mean() < 3


_STRIPS: dict[str, dict[str, Any]] = {
    "lzw": {"compression": "lzw", "photometric": "rgb"},
    "plain": {"photometric": "rgb", "byteorder": ">"},
    "deflate": {"compression": "zlib", "predictor": True, "photometric": "rgb"},
    "separate": {"planarconfig": "separate", "photometric": "rgb"},
}


@pytest.mark.parametrize("name", _STRIPS)
def test_a_tiff_in_strips_is_served_without_loss(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.tif"
    pixels = TRUTH.transpose(2, 0, 1) if name == "separate" else TRUTH
    tifffile.imwrite(path, pixels, rowsperstrip=32, metadata=None, **_STRIPS[name])
    assert np.array_equal(whole(path), TRUTH)


def test_a_grey_tiff_in_strips_whose_white_is_zero_is_inverted(tmp_path: Path) -> None:
    path = tmp_path / "fax.tif"
    grey = TRUTH[:, :, 0]
    tifffile.imwrite(path, grey, photometric="miniswhite", metadata=None)
    assert np.array_equal(whole(path)[:, :, 1], 255 - grey)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_of_16_bits_keeps_its_numbers(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "deep.png"
    deep = TRUTH.astype(np.uint16)[:, :, :channels] * 257 + 3
    path.write_bytes(imagecodecs.png_encode(deep.squeeze()))
    with open_slide(path) as reader:
        planes = planes_of(reader)
        assert planes.planes.dtype == "uint16"
        assert len(planes.planes.channels) == channels
        for channel in range(channels):
            seen = planes.read_plane(0, 600, 400, (300, 200), plane=Plane(channel))
            assert np.array_equal(seen, deep[400:600, 600:900, channel])


def test_a_smaller_level_is_the_mean_of_the_larger(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(TRUTH).save(path)
    with open_slide(path) as reader:
        sizes = [(level.width, level.height) for level in reader.levels]
        assert sizes == [(1301, 907), (651, 454), (326, 227)]
        half = reader.read(1, 0, 0, (650, 453)).astype(int)
    assert np.abs(half - slides.shrunken(TRUTH, 2)).max() <= 1


def test_nothing_is_written_beside_the_original(tmp_path: Path) -> None:
    folder = tmp_path / "originals"
    folder.mkdir()
    path = folder / "picture.png"
    Image.fromarray(TRUTH).save(path)
    imports = Imports(tmp_path / "imports")
    open_slide(path, imports=imports).close()
    assert [one.name for one in folder.iterdir()] == ["picture.png"]
    (copy,) = (tmp_path / "imports").iterdir()
    assert "picture" not in copy.name.split(".")[0]
    assert (tmp_path / "imports").stat().st_mode & 0o077 == 0


def test_an_image_is_imported_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(TRUTH).save(path)
    folder = tmp_path / "imports"
    with ThreadPoolExecutor(8) as pool:
        imports = Imports(folder)
        for reader in pool.map(lambda _: open_slide(path, imports=imports), range(8)):
            reader.close()
    assert len(list(folder.iterdir())) == 1
    Image.fromarray(255 - TRUTH).save(path)
    os.utime(path, ns=(1, 1))
    with open_slide(path, imports=imports) as reader:
        assert np.array_equal(reader.read(0, 0, 0, (50, 40)), 255 - TRUTH[:40, :50])
    assert len(list(folder.iterdir())) == 2


def test_the_copies_used_least_go_when_the_folder_is_full(tmp_path: Path) -> None:
    folder = tmp_path / "imports"
    imports = Imports(folder, most_bytes=250)
    originals = []
    for number in range(4):
        original = tmp_path / f"{number}.png"
        original.write_bytes(b"x" * (number + 1))
        originals.append(original)
        copy = imports.copy(
            original, ".x", lambda to: to.write_bytes(bytes(100)) and None
        )
        os.utime(copy, (number, number))
    assert len(list(folder.iterdir())) == 2
    made = threading.Event()
    imports.copy(originals[3], ".x", lambda _: made.set())
    assert not made.is_set()


def test_of_several_processes_one_makes_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"original")
    made = []

    def make(to: Path) -> None:
        made.append(to)
        gate.wait(10)
        to.write_bytes(b"copy")

    gate = threading.Event()
    # Each has locks of its own, as in a process of its own.
    both = [Imports(tmp_path / "imports") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        copies = [pool.submit(one.copy, path, ".tiff", make) for one in both]
        gate.set()
        seen = {one.result() for one in copies}
    assert len(made) == 1
    assert [one.read_bytes() for one in seen] == [b"copy"]
    assert set((tmp_path / "imports").iterdir()) == seen


def test_what_a_process_left_that_ended_half_way_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"original")
    imports = Imports(tmp_path / "imports", most_bytes=100)

    def end_half_way(to: Path) -> None:
        (tmp_path / "left").hardlink_to(to)
        to.write_bytes(b"x" * 90)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imports.copy(path, ".tiff", end_half_way)
    staging = tmp_path / "imports" / "a.tiff.making"
    (tmp_path / "left").rename(staging)
    copy = imports.copy(path, ".tiff", lambda to: to.write_bytes(b"c" * 20) and None)
    assert copy.read_bytes() == b"c" * 20
    assert list((tmp_path / "imports").iterdir()) == [copy]


def test_an_import_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    stream = io.BytesIO()
    Image.fromarray(TRUTH).save(stream, "PNG")
    path.write_bytes(stream.getvalue()[: stream.tell() // 2])
    folder = tmp_path / "imports"
    with pytest.raises(UnreadableSlide, match=r"^cut\.png is a PNG that cannot be"):
        open_slide(path, imports=Imports(folder))
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (0, 5)])
def test_a_png_that_announces_too_much_is_refused_before_it_is_read(
    tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "bomb.png"
    stream = io.BytesIO()
    Image.fromarray(TRUTH[:9, :9]).save(stream, "PNG")
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    path.write_bytes(stream.getvalue()[:16] + size + stream.getvalue()[24:])
    with pytest.raises(UnreadableSlide, match=r"^bomb\.png has "):
        open_slide(path)


def test_a_pyramid_ends_when_it_fits_one_tile(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "p.tiff", [np.zeros((513, 3), np.uint8)])
    with tifffile.TiffFile(tmp_path / "p.tiff") as tiff:
        assert len(tiff.pages.first.pages or ()) == 1


def test_a_png_is_told_by_its_content_and_not_by_its_name(shared_data: Path) -> None:
    path = shared_data / "malformed" / "png_named.dcm"
    assert np.array_equal(whole(path), np.asarray(Image.open(path).convert("RGB")))


def test_a_jpeg_without_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(TRUTH).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableSlide, match=r"^cut\.jpg is a JPEG that cannot be"):
        open_slide(path)
