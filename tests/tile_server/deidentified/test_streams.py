"""What of an encoded tile is not needed to decode it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest

from tests.slides import picture
from tile_server.deidentified.colour_profile import bare_profile
from tile_server.deidentified.streams import (
    DamagedStream,
    bare_deflate,
    bare_jpeg,
    bare_jpeg2000,
)

PIXELS = picture(96, 64)
NAME = b"Quirrelmuster"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("marker", [*range(0xE1, 0xEE), 0xEF, 0xF0, 0xFD, 0xFE])
def test_no_segment_of_words_is_left_in_a_jpeg(marker: int) -> None:
    stream = bytes(imagecodecs.jpeg8_encode(PIXELS))
    marked = stream[:2] + _segment(marker, NAME) + stream[2:] + NAME
    bare = bare_jpeg(marked)
    assert NAME not in bare
    decoded = imagecodecs.jpeg8_decode(bare)
    assert np.array_equal(decoded, imagecodecs.jpeg8_decode(stream))


def test_the_thumbnail_of_a_jfif_segment_goes() -> None:
    body = b"JFIF\0\x01\x02\0\0\1\0\1\x04\x01" + NAME[:12]
    bare = bare_jpeg(b"\xff\xd8" + _segment(0xE0, body) + b"\xff\xd9")
    assert bare[2:4] == b"\xff\xe0"
    assert len(bare) == 2 + 18 + 2


def test_comments_of_a_jpeg_2000_are_blank() -> None:
    stream = bytes(imagecodecs.jpeg2k_encode(PIXELS, codecformat="j2k", level=0))
    at = 4 + struct.unpack_from(">H", stream, 4)[0]
    comment = b"\xff\x64" + struct.pack(">HH", len(NAME) + 4, 1) + NAME
    bare = bare_jpeg2000(stream[:at] + comment + stream[at:] + NAME)
    assert NAME not in bare
    assert np.array_equal(imagecodecs.jpeg2k_decode(bare), PIXELS)


def test_what_stands_behind_a_zlib_stream_goes() -> None:
    stream = zlib.compress(b"pixels")
    assert bare_deflate(stream + NAME) == stream


@pytest.mark.parametrize("bare", [bare_jpeg, bare_jpeg2000, bare_deflate])
def test_what_is_no_such_stream_is_refused(bare: Callable[[bytes], bytes]) -> None:
    for damaged in (b"", NAME, b"\xff\xd8\xff\xdb\xff\xff", b"\xff\x4f\xff\x51\0\1"):
        with pytest.raises(DamagedStream):
            bare(damaged)


def test_a_profile_that_is_none_is_left_out() -> None:
    assert bare_profile(None) is None
    assert bare_profile(NAME * 40) is None
