"""Encoded tiles without what is not needed to decode them, their pixels untouched.

JPEG (ITU-T T.81, Annex B): comments and application segments go, but for the two that
say what the components are (JFIF's without its thumbnail, Adobe's), and so does what
stands behind the end. JPEG 2000 (ITU-T T.800, Annex A): comments are blanked where
they stand, because lengths elsewhere count them.
"""

from __future__ import annotations

import re
import struct
import zlib

import imagecodecs

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _APP0, _APP14 = 0xDA, 0xE0, 0xEE
# Application segments, the reserved extensions, comments (T.81, table B.1).
_DROPPED = {*range(0xE0, 0xF0), *range(0xF0, 0xFE), 0xFE}
# Within a scan: neither a stuffed zero nor a restart marker.
_NEXT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START = b"\xff\x4f\xff\x51"
_SOT, _SOD, _EOC, _COM = 0xFF90, 0xFF93, 0xFFD9, 0xFF64


class DamagedStream(Exception):
    """The stream is not of its format, so that nothing in it can be told apart."""


def bare_jpeg(stream: bytes) -> bytes:
    """A JPEG, or a JPEGTables tag, with its decoding segments only."""
    if stream[:2] != _SOI:
        raise DamagedStream("no JPEG")
    kept, at = [_SOI], 2
    while at + 2 <= len(stream):
        if stream[at] != 0xFF:
            raise DamagedStream("no marker where one has to be")
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte may stand before any marker
            at += 1
            continue
        if marker == _EOI[1]:
            break
        end = at + 2 + _length(stream, at + 2)
        segment = _needed(marker, stream[at:end])
        if segment:
            kept.append(segment)
        at = end
        if marker == _SOS:
            following = _NEXT.search(stream, at)
            end = following.start() if following else len(stream)
            kept.append(stream[at:end])
            at = end
    return b"".join([*kept, _EOI])


def _needed(marker: int, segment: bytes) -> bytes:
    """The segment, or what decoding needs of it: b"" for nothing."""
    if marker not in _DROPPED:
        return segment
    body = segment[4:]
    if marker == _APP0 and body[:5] == b"JFIF\0" and len(body) >= 14:
        # The density is the scanner's word on the scale; the thumbnail is none of ours.
        return segment[:2] + b"\x00\x10" + body[:12] + b"\0\0"
    if marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
        return segment[:2] + b"\x00\x0e" + body[:12]
    return b""


def bare_jpeg2000(stream: bytes) -> bytes:
    """A JPEG 2000 codestream whose comments are blank."""
    if stream[:4] != _START:
        raise DamagedStream("no JPEG 2000 codestream")
    bare, at = bytearray(stream), 2
    while at + 4 <= len(bare):
        (marker,) = struct.unpack_from(">H", bare, at)
        if marker == _EOC:
            break
        if marker == _SOT:
            if at + 12 > len(bare):
                raise DamagedStream("cut off within a tile-part")
            (part,) = struct.unpack_from(">I", bare, at + 6)
            _blank_comments(bare, at + 12)
            # 0: it goes on to the end of the codestream (A.4.2).
            at = at + part if part else len(bare) - 2
            if part and part < 14:
                raise DamagedStream("an impossible tile-part")
            continue
        at = _passed(bare, at)
    if bytes(bare[at : at + 2]) != _EOI:
        raise DamagedStream("no end of the codestream")
    return bytes(bare[: at + 2])


def _blank_comments(bare: bytearray, at: int) -> None:
    """Those of a tile-part's own header."""
    while at + 2 <= len(bare):
        (marker,) = struct.unpack_from(">H", bare, at)
        if marker == _SOD:
            return
        at = _passed(bare, at)


def _passed(bare: bytearray, at: int) -> int:
    """Where the segment ends that begins at `at`; blank if it is a comment."""
    (marker,) = struct.unpack_from(">H", bare, at)
    end = at + 2 + _length(bare, at + 2)
    if marker == _COM:
        bare[at + 6 : end] = b" " * (end - at - 6)
    return end


def bare_deflate(stream: bytes) -> bytes:
    """A zlib stream without what stands behind its end."""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(stream)
    except zlib.error as err:
        raise DamagedStream("no zlib stream") from err
    if not inflater.eof:
        raise DamagedStream("a cut zlib stream")
    return stream[: len(stream) - len(inflater.unused_data)]


def lzw_as_deflate(stream: bytes) -> bytes:
    """The bytes of an LZW stream in zlib's form: what hides behind its end is lost."""
    try:
        return zlib.compress(bytes(imagecodecs.lzw_decode(stream)), 6)
    except (imagecodecs.LzwError, ValueError, RuntimeError) as err:
        raise DamagedStream("no LZW stream") from err


def _length(stream: bytes | bytearray, at: int) -> int:
    """A segment's length, which counts its own two bytes."""
    if at + 2 > len(stream):
        raise DamagedStream("cut off within a segment")
    (length,) = struct.unpack_from(">H", stream, at)
    if length < 2 or at + length > len(stream):
        raise DamagedStream("a segment longer than the stream")
    return int(length)
