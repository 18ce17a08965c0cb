"""Figures that no true slide has are refused before they become memory or time."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from tests import slides
from tile_server.codecs import decode_jpeg
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.pyramid import DAMAGED, Pyramid
from tile_server.readers import open_slide
from tile_server.readers.limits import MOST_SIDE, refuse_absurd
from tile_server.readers.protocol import Level


@dataclass(frozen=True)
class Announced:
    """As much of a reader as is looked at before anything is read."""

    levels: tuple[Level, ...]
    path: Path = Path("folder", "huge.tiff")


@pytest.mark.parametrize(
    "levels",
    [
        (),
        (Level(0, 10, 64, 64, encoded=False),),
        (Level(MOST_SIDE + 1, 10, 64, 64, encoded=False),),
        (Level(2**22, 2**22, 64, 64, encoded=False),),
        (Level(100_000, 80_000, 8192, 8192, encoded=False),),
        (Level(100_000, 80_000, 0, 64, encoded=False),),
        (Level(1000, 800, 64, 64, encoded=False),) * 65,
    ],
)
def test_an_absurd_size_is_refused_by_name(levels: tuple[Level, ...]) -> None:
    with pytest.raises(UnreadableSlide, match=r"^huge\.tiff ") as refusal:
        refuse_absurd(Announced(levels))  # type: ignore[arg-type]
    assert "folder" not in str(refusal.value)


def test_the_largest_slides_of_scanners_are_allowed() -> None:
    refuse_absurd(Announced((Level(400_000, 300_000, 1024, 1024, encoded=True),)))  # type: ignore[arg-type]


def jpeg_that_says(width: int, height: int) -> bytes:
    stream = bytearray(imagecodecs.jpeg8_encode(np.zeros((64, 64, 3), np.uint8)))
    at = stream.index(b"\xff\xc0")
    stream[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(stream)


@pytest.mark.parametrize("reduce", [1, 2, 8])
def test_a_jpeg_that_announces_gigabytes_is_not_decoded(reduce: int) -> None:
    with pytest.raises(DamagedTile, match="65000 x 65000"):
        decode_jpeg(jpeg_that_says(65_000, 65_000), reduce)


@pytest.mark.parametrize(("width", "height"), [(32, 64), (64, 128), (65_000, 65_000)])
def test_a_tile_of_a_wrong_size_is_a_hole_not_a_failure(
    tmp_path: Path, width: int, height: int
) -> None:
    spec = slides.SlideSpec(width=640, height=640, downsamples=(1,), tables=False)
    path = slides.write_slide(tmp_path / "odd.svs", spec)
    whole = bytearray(path.read_bytes())
    with open_slide(path) as reader:
        stream = reader.encoded_tile(0, 2, 3)
    assert stream is not None
    # Past the Adobe marker that was added, up to and with the frame's size.
    frame = stream[stream.index(b"\xff\xc0") :]
    at = whole.index(frame)
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    path.write_bytes(whole)
    with open_slide(path) as reader:
        with pytest.raises(DamagedTile):
            reader.read(0, 128, 192, (64, 64))
        pyramid = Pyramid(reader)
        seen = pyramid.tile(pyramid.ladder.rungs[1], 1, 1).decode()
        assert np.abs(seen[40:56, 8:24].astype(int) - DAMAGED).max() < 12
