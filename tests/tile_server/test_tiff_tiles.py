"""Tiled TIFF in every codec but JPEG: on its own grid, and never unpacked blindly."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from tests import slides
from tile_server.errors import DamagedTile
from tile_server.pyramid import Pyramid, shrink
from tile_server.readers import open_slide
from tile_server.readers.protocol import Reduces
from tile_server.readers.tiff_codecs import (
    APERIO_RGB,
    APERIO_YCBCR,
    DEFLATE,
    LZW,
    NAMES,
    PACKBITS,
    WEBP,
    ZSTD,
    TileCoding,
    decode,
    decode_smaller,
)
from tile_server.readers.tiff_tiles import TiledReader

CODECS = {
    "uncompressed": {"compression": None},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate"},
    "deflate with predictor": {"compression": "deflate", "predictor": True},
    "zstd": {"compression": "zstd", "predictor": True},
    "packbits": {"compression": "packbits"},
    "webp": {"compression": "webp", "compressionargs": {"lossless": True}},
    "big tiff": {"compression": "zstd"},
    "jpeg 2000": {"compression": "jpeg2000"},
    "aperio rgb": {"compression": "aperio_jp2000_rgb"},
}


def write(path: Path, name: str, *, grey: bool = False) -> Path:
    options = dict(CODECS[name])
    if "jpeg 2000" in name or "aperio" in name:
        options["compressionargs"] = {"reversible": True, "codecformat": "j2k"}
    with tifffile.TiffWriter(path, bigtiff=name == "big tiff") as tiff:
        for number in (0, 2):
            level = slides.shrunken(slides.picture(700, 500), 1 << number)
            tiff.write(
                level[:, :, 0] if grey else level,
                tile=(128, 128),
                photometric="minisblack" if grey else "rgb",
                subfiletype=1 if number else 0,
                metadata=None,
                **options,
            )
    return path


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_gives_the_pixels_that_were_written(
    tmp_path: Path, name: str
) -> None:
    with open_slide(write(tmp_path / "one.tiff", name)) as reader:
        assert isinstance(reader, TiledReader)
        for number, factor in enumerate((1, 4)):
            wanted = slides.shrunken(slides.picture(700, 500), factor)
            level = reader.levels[number]
            assert (level.tile_width, level.tile_height) == (128, 128)
            seen = reader.read(number, 0, 0, (level.width, level.height))
            assert np.array_equal(seen, wanted)


@pytest.mark.parametrize("name", ["deflate", "jpeg 2000"])
def test_grey_is_grey_in_all_three_colours(tmp_path: Path, name: str) -> None:
    with open_slide(write(tmp_path / "grey.tiff", name, grey=True)) as reader:
        assert isinstance(reader, TiledReader)
        seen = reader.read(0, 5, 7, (300, 200))
        wanted = slides.picture(700, 500)[7:207, 5:305, :1]
        assert np.array_equal(seen, np.repeat(wanted, 3, axis=2))


def test_aperios_ycbcr_has_the_right_colours() -> None:
    picture = slides.picture(64, 64)
    red, green, blue = (picture[..., i].astype(float) for i in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    mixed = np.stack([y, 128 + (blue - y) / 1.772, 128 + (red - y) / 1.402], axis=2)
    stream = imagecodecs.jpeg2k_encode(
        np.rint(mixed).astype(np.uint8), codecformat="j2k", reversible=True, mct=False
    )
    seen = decode(bytes(stream), TileCoding(APERIO_YCBCR, 64, 3, differences=False))
    assert np.abs(seen.astype(int) - picture).max() <= 3
    small = decode_smaller(
        bytes(stream), TileCoding(APERIO_YCBCR, 64, 3, differences=False), 1
    )
    assert np.abs(small.astype(int) - shrink(picture, 2)).mean() < 4


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_jpeg_2000_lies_in_its_place(tmp_path: Path, factor: int) -> None:
    picture = slides.picture(700, 500)
    with open_slide(write(tmp_path / "one.tiff", "aperio rgb")) as reader:
        assert isinstance(reader, Reduces)
        seen = reader.read_smaller(0, 0, 0, (700, 500), factor)
        assert seen is not None
        assert seen.shape == (-(-500 // factor), -(-700 // factor), 3)
        wanted = shrink(picture, factor)
        inner = seen[: 480 // factor, : 640 // factor]
        aim = wanted[: 480 // factor, : 640 // factor]
        assert slides.displacement(inner, aim) == (0, 0)
        part = reader.read_smaller(0, 128, 256, (256, 128), factor)
        box = slice(256 // factor, 384 // factor), slice(128 // factor, 384 // factor)
        assert np.array_equal(part, seen[box])


def test_only_jpeg_2000_is_reduced(tmp_path: Path) -> None:
    with open_slide(write(tmp_path / "one.tiff", "deflate")) as reader:
        assert isinstance(reader, Reduces)
        assert reader.read_smaller(0, 0, 0, (128, 128), 2) is None


@pytest.mark.parametrize("name", ["deflate", "aperio rgb"])
def test_composed_levels_lie_in_their_place(tmp_path: Path, name: str) -> None:
    with open_slide(write(tmp_path / "one.tiff", name)) as reader:
        pyramid = Pyramid(reader)
        rung = pyramid.ladder.rungs[1]
        assert rung.level is None
        wanted = slides.shrunken(slides.picture(700, 500), 2)
        seen = pyramid.tile(rung, 0, 0).decode()
        assert slides.displacement(seen, wanted[:128, :128]) == (0, 0)
        assert np.abs(seen.astype(int) - wanted[:128, :128]).mean() < 6


def test_a_real_jpeg_2000_slide_has_the_pixels_of_openslide(shared_data: Path) -> None:
    path = shared_data / "wsi" / "TCGA-CR-7395-01A-01-TS1.svs"
    truth = openslide.OpenSlide(str(path))
    with open_slide(path) as reader:
        assert isinstance(reader, TiledReader)
        assert reader.facts.format == "aperio, JPEG 2000"
        for corner in [(0, 0), (1001, 503), (4343, 3467)]:
            wanted = truth.read_region(corner, 0, (100, 100)).convert("RGB")
            assert np.array_equal(
                reader.read(0, *corner, (100, 100)), np.asarray(wanted)
            )


BOMBS = {
    DEFLATE: imagecodecs.zlib_encode(bytes(50_000_000)),
    ZSTD: imagecodecs.zstd_encode(bytes(50_000_000)),
    LZW: imagecodecs.lzw_encode(bytes(5_000_000)),
    PACKBITS: imagecodecs.packbits_encode(bytes(5_000_000)),
    WEBP: imagecodecs.webp_encode(np.zeros((3000, 3000, 3), np.uint8)),
    APERIO_RGB: imagecodecs.jpeg2k_encode(
        np.zeros((512, 512, 3), np.uint8), codecformat="j2k"
    ),
}


@pytest.mark.parametrize("codec", BOMBS)
def test_a_tile_that_unpacks_to_more_than_a_tile_is_damaged(codec: int) -> None:
    coding = TileCoding(codec, 64, 3, differences=False)
    if codec == LZW:  # its decoder stops where the room ends
        assert decode(bytes(BOMBS[codec]), coding).shape == (64, 64, 3)
        return
    with pytest.raises(DamagedTile):
        decode(bytes(BOMBS[codec]), coding)


def test_a_jpeg_2000_that_announces_a_huge_picture_is_damaged() -> None:
    stream = bytearray(
        imagecodecs.jpeg2k_encode(np.zeros((64, 64, 3), np.uint8), codecformat="j2k")
    )
    stream[8:16] = struct.pack(">II", 60_000, 60_000)
    coding = TileCoding(APERIO_RGB, 64, 3, differences=False)
    for attempt in (decode, lambda *given: decode_smaller(*given, 1)):
        with pytest.raises(DamagedTile):
            attempt(bytes(stream), coding)


@pytest.mark.parametrize("codec", NAMES)
def test_noise_is_damaged_in_every_codec(codec: int) -> None:
    coding = TileCoding(codec, 64, 3, differences=False)
    with pytest.raises(DamagedTile):
        decode(b"\x80 no tile at all", coding)
