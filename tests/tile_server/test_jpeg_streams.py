"""Streams completed without decoding."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg

from tests.tile_server.conftest import decoded
from tile_server import codecs, jpeg_streams
from tile_server.errors import DamagedTile


def plain_jpeg() -> bytes:
    pixels = np.full((16, 24, 3), (200, 30, 90), np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, 95, "RGB", "444"))


def test_the_header_tells_size_bits_and_marker() -> None:
    header = jpeg_streams.read_header(plain_jpeg())
    assert header is not None
    assert (header.width, header.height, header.bits) == (24, 16, 8)
    assert header.components == 3
    assert header.sequential
    assert header.jfif
    assert header.transform is None


@pytest.mark.parametrize("stream", [b"", b"\xff", b"\0\0\0\0", b"\x89PNG\r\n"])
def test_what_is_no_jpeg_has_no_header(stream: bytes) -> None:
    assert jpeg_streams.read_header(stream) is None
    assert not jpeg_streams.starts_like_jpeg(stream)


def test_every_cut_of_a_header_is_survived() -> None:
    stream = plain_jpeg()
    for end in range(len(stream)):
        jpeg_streams.read_header(stream[:end])


def test_the_added_marker_is_found_again() -> None:
    for transform in (0, 1):
        start = jpeg_streams.prefix(None, transform)
        header = jpeg_streams.read_header(jpeg_streams.complete(start, plain_jpeg()))
        assert header is not None
        assert header.transform == transform


def test_a_progressive_stream_is_not_sequential() -> None:
    stream = plain_jpeg().replace(b"\xff\xc0", b"\xff\xc2", 1)
    header = jpeg_streams.read_header(stream)
    assert header is not None
    assert not header.sequential


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_a_picture_is_made_smaller_while_it_is_decoded(reduce: int) -> None:
    pixels = np.full((240, 240, 3), (90, 130, 200), np.uint8)
    small = codecs.decode_jpeg(codecs.encode_jpeg(pixels), reduce)
    assert small.shape == (240 // reduce, 240 // reduce, 3)
    assert np.abs(small.astype(int) - (90, 130, 200)).max() <= 3


def test_a_broken_stream_is_a_damaged_tile() -> None:
    with pytest.raises(DamagedTile):
        codecs.decode_jpeg(b"\xff\xd8 and nothing more")
    with pytest.raises(DamagedTile):
        codecs.decode_jpeg(b"", 4)


def test_png_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (50, 40, 3)).astype(np.uint8)
    body = codecs.encode_png(pixels)
    assert np.array_equal(decoded(body), pixels)
    assert np.array_equal(codecs.decode_png(body), pixels)
