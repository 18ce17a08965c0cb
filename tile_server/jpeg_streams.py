"""JPEG streams as TIFF stores them, made complete without decoding.

TIFF keeps the tables that all tiles of a level share in one tag (`JPEGTables`) and
leaves them out of the tiles. A browser needs them back:

    SOI  [APP14]  body of JPEGTables  body of the tile

The APP14 ("Adobe") segment says whether the three components are RGB or YCbCr, which
TIFF says in its own tag; without it a browser takes RGB for YCbCr and shows purple.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_APP0, _APP14, _SOS = 0xE0, 0xEE, 0xDA
_ARITHMETIC_OR_LOSSLESS_OR_PROGRESSIVE = {
    0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF,
}  # fmt: skip
_BASELINE, _EXTENDED = 0xC0, 0xC1


@dataclass(frozen=True)
class JpegHeader:
    """What the segments before the scan say.

    Attributes
    ----------
    sequential
        True for baseline and extended sequential Huffman coding.
    bits, width, height, components
        Of the frame; all 0 where there is no frame header.
    jfif
        True where a JFIF marker is there, which means YCbCr.
    transform
        What an Adobe marker says (0 is RGB, 1 YCbCr), or None without one.
    """

    sequential: bool
    bits: int
    width: int
    height: int
    components: int
    jfif: bool
    transform: int | None


def read_header(stream: bytes) -> JpegHeader | None:
    """Read the segments up to the first scan, or None where this is no JPEG."""
    if stream[:2] != _SOI:
        return None
    sequential, frame = False, (0, 0, 0, 0)
    jfif, transform = False, None
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte may stand before any marker
            at += 1
            continue
        (length,) = struct.unpack_from(">H", stream, at + 2)
        body = stream[at + 4 : at + 2 + length]
        if marker in (_BASELINE, _EXTENDED) and len(body) >= 6:
            bits, height, width, components = struct.unpack_from(">BHHB", body)
            sequential, frame = True, (bits, width, height, components)
        elif marker in _ARITHMETIC_OR_LOSSLESS_OR_PROGRESSIVE:
            return JpegHeader(False, *frame, jfif=jfif, transform=transform)
        elif marker == _APP0 and body[:5] == b"JFIF\0":
            jfif = True
        elif marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            transform = body[11]
        elif marker == _SOS:
            break
        at += 2 + length
    return JpegHeader(sequential, *frame, jfif=jfif, transform=transform)


def starts_like_jpeg(tile: bytes | bytearray) -> bool:
    """True where the bytes start as a JPEG does; the cheap test for every tile."""
    return tile[:2] == _SOI and len(tile) > 4


def prefix(tables: bytes | None, adobe_transform: int | None) -> bytes:
    """What replaces the SOI of every tile of a level.

    `tables` is the JPEGTables tag, or None; `adobe_transform` is what an added APP14
    segment says, or None to add none.
    """
    parts = [_SOI]
    if adobe_transform is not None:
        body = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, adobe_transform)
        parts.append(b"\xff\xee" + struct.pack(">H", len(body) + 2) + body)
    if tables:
        inner = tables[2:] if tables[:2] == _SOI else tables
        parts.append(inner[:-2] if inner[-2:] == _EOI else inner)
    return b"".join(parts)


def complete(prefix_bytes: bytes, tile: bytes | bytearray) -> bytes:
    """A tile of a TIFF as a JPEG that stands alone."""
    return b"".join((prefix_bytes, memoryview(tile)[2:]))


@dataclass(frozen=True)
class Declared:
    """What a container says of its JPEG tiles, in tags of its own.

    Attributes
    ----------
    width, height
        Of every tile.
    components
        Samples per pixel.
    rgb
        True where three components are RGB, False where they are YCbCr.
    """

    width: int
    height: int
    components: int
    rgb: bool


def passing_prefix(
    tables: bytes | None, tile: bytes, declared: Declared
) -> bytes | None:
    """The prefix that a tile asks for; None where a browser must not get it as it is.

    The container's tags decide what the components are. A browser looks at the JFIF and
    Adobe markers instead, so a tile whose own markers contradict the tags does not pass
    through, and one without markers gets an Adobe marker.
    """
    header = read_header(complete(prefix(tables, None), tile))
    if header is None or not header.sequential or header.bits != 8:
        return None
    if (header.width, header.height) != (declared.width, declared.height):
        return None
    if header.components != declared.components:
        return None
    if header.components == 1:
        return prefix(tables, None)
    transform = 0 if declared.rgb else 1
    if header.transform is not None:
        agrees = header.transform == transform and not (declared.rgb and header.jfif)
        return prefix(tables, None) if agrees else None
    if header.jfif:
        return None if declared.rgb else prefix(tables, None)
    return prefix(tables, transform)
