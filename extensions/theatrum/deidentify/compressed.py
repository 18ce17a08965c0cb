"""What compressed pixel data hold besides the picture: comments, EXIF, and rests.

A JPEG carries comments and application segments, a JPEG 2000 codestream comments, and
behind the end of either anything may stand; scanners write names and times there. What
is not needed for decoding is overwritten by zeros where it lies, so that no length and
no table of offsets changes. Which segments are known to be harmless is a list; all
others are cleared.

A stream of one frame may be cut into several fragments, and so streams are put together
first (PS3.5 A.4). Video and JPEG XL are not looked into: the canary searches them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from theatrum.deidentify.elements import PIXEL_DATA, Element
from theatrum.deidentify.errors import Refused

_JPEG: Final = re.compile(
    r"1\.2\.840\.10008\.1\.2\.4\.(5[0-9]|6[0-6]|70|80|81)"
)  # with JPEG-LS, which has the same segments
_JPEG_2000: Final = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.(9[0-3]|20[1-3])")
_START_OF: Final = {_JPEG: (b"\xff\xd8",), _JPEG_2000: (b"\xff\x4f", b"\0\0\0\x0cjP  ")}

Span = tuple[int, int]
"""First byte and the one after the last."""

# Encoders that sign what they write say nothing of a person.
_ENCODER: Final = re.compile(
    rb"(Creator: |Created by )?(JasPer|(GDCM/)?OpenJPEG|Kakadu|libjpeg(-turbo)?)"
    rb"([ -](version |v)?[0-9]{1,4}(\.[0-9]{1,4}){0,3})?\0*",
    re.IGNORECASE,
)

# In coded data 0xFF is followed by less than 0x80 (JPEG-LS), 0 or a restart marker.
_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_SOI, _EOI, _COM, _APP0, _APP15 = 0xD8, 0xD9, 0xFE, 0xE0, 0xEF
# By number and beginning: how much of an application segment decoding needs.
_NEEDED: Final = {
    (0xE0, b"JFIF\0"): 12,  # the thumbnail's size, and it, follow
    (0xE8, b"mrfx"): 5,  # the colour transform of JPEG-LS
    (0xEE, b"Adobe"): 12,
}


def clear(elements: Sequence[Element], syntax: str, frames: int) -> list[Element]:
    """The elements, with nothing but pictures in the compressed pixel data.

    Raises
    ------
    Refused
        Where the pixel data are no streams of the transfer syntax, or more than
        `frames` of them.
    """
    return [
        _cleared(element, syntax, frames)
        if element.tag == PIXEL_DATA and element.fragments
        else element
        for element in elements
    ]


def _cleared(element: Element, syntax: str, frames: int) -> Element:
    value = element.value
    table, *fragments = _fragments(value)
    spans = _no_table(value, table, fragments)
    for family, spans_of in ((_JPEG, _jpeg), (_JPEG_2000, _jpeg_2000)):
        if not family.fullmatch(syntax):
            continue
        streams = _streams(value, fragments, _START_OF[family], frames)
        for stream in streams:
            joined = b"".join(value[start:stop] for start, stop in stream)
            for span in spans_of(joined):
                spans += _where(span, stream)
    return _zeroed(element, spans)


def _fragments(value: bytes) -> list[Span]:
    """The contents of the items: first the offset table, then the fragments."""
    at, found = 0, []
    while True:
        tag, length = struct.unpack_from("<LL", value, at)
        if tag != 0xE000FFFE:
            break
        found.append((at + 8, at + 8 + length))
        at += 8 + length
    if len(found) < 2:
        raise Refused("damaged", "The compressed pixel data hold no fragment.")
    return found


def _no_table(value: bytes, table: Span, fragments: list[Span]) -> list[Span]:
    """The offset table, where it is none: it must name beginnings of fragments."""
    start, stop = table
    if (stop - start) % 4:
        raise Refused("damaged", "The table of compressed frames is none.")
    first = fragments[0][0]
    begins = {begin - first for begin, _ in fragments}
    if begins.issuperset(struct.unpack(f"<{(stop - start) // 4}L", value[start:stop])):
        return []
    raise Refused("damaged", "The table of compressed frames names places of none.")


def _streams(
    value: bytes, fragments: list[Span], beginnings: tuple[bytes, ...], frames: int
) -> list[list[Span]]:
    """The fragments of each stream."""
    streams: list[list[Span]] = []
    for start, stop in fragments:
        if bytes(value[start : start + 8]).startswith(beginnings):
            streams.append([])
        elif not streams:
            raise Refused(
                "damaged", "The compressed pixels are not of their transfer syntax."
            )
        streams[-1].append((start, stop))
    if len(streams) > frames:
        raise Refused("damaged", "The file holds more frames than it says.")
    return streams


def _where(span: Span, stream: list[Span]) -> Iterator[Span]:
    """Where a part of a stream lies in the fragments."""
    begin, end = span
    for start, stop in stream:
        length = stop - start
        low, high = max(begin, 0), min(end, length)
        if low < high:
            yield start + low, start + high
        begin, end = begin - length, end - length


def _zeroed(element: Element, spans: list[Span]) -> Element:
    spans = [(start, stop) for start, stop in spans if any(element.value[start:stop])]
    if not spans:
        return element
    value = bytearray(element.value)
    for start, stop in spans:
        value[start:stop] = bytes(stop - start)
    return Element(element.tag, element.vr, bytes(value), fragments=True)


def _jpeg(stream: bytes) -> Iterator[Span]:
    """What is no picture in a JPEG or JPEG-LS stream."""
    at, coded = 2, False
    while (found := _MARKER.search(stream, at)) is not None:
        marker, start = stream[found.start() + 1], found.end()
        if not coded:
            yield at, found.start()
        if marker == _EOI:
            yield start, len(stream)
            return
        if marker == _SOI:
            at = start
            continue
        if start + 2 > len(stream):
            break
        (length,) = struct.unpack_from(">H", stream, start)
        stop = min(start + max(length, 2), len(stream))
        if marker == _COM:
            yield from _comment(stream, start + 2, stop)
        elif _APP0 <= marker <= _APP15:
            yield start + 2 + _needed(marker, stream[start + 2 : stop]), stop
        at, coded = stop, marker == 0xDA or (coded and marker == 0xDC)


def _comment(stream: bytes, start: int, stop: int) -> Iterator[Span]:
    if _ENCODER.fullmatch(stream[start:stop]) is None:
        yield start, stop


def _needed(marker: int, body: bytes) -> int:
    for (number, beginning), length in _NEEDED.items():
        if number == marker and body.startswith(beginning):
            return min(length, len(body))
    return 0


def _jpeg_2000(stream: bytes) -> Iterator[Span]:
    """What is no picture in a JPEG 2000 codestream, or in a JP2 file around one."""
    if stream[:2] == b"\xff\x4f":
        yield from _codestream(stream, 0, len(stream))
        return
    at = 0
    while at + 8 <= len(stream):
        length, kind = struct.unpack_from(">L4s", stream, at)
        body = at + 8
        if length == 1 and body + 8 <= len(stream):
            (length,) = struct.unpack_from(">Q", stream, body)
            body += 8
        stop = at + length if length >= body - at else len(stream)
        stop = min(stop, len(stream))
        if kind == b"jp2c":
            yield from _codestream(stream, body, stop)
        elif kind not in (b"jP  ", b"ftyp", b"jp2h"):
            yield body, stop
        at = stop
    yield at, len(stream)


def _codestream(stream: bytes, start: int, stop: int) -> Iterator[Span]:
    """Comments of the main and tile-part headers, and what follows the end."""
    at, tile_part, tile_end = start + 2, start, stop
    while at + 4 <= stop:
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == 0xFFD9:
            yield at + 2, stop
            return
        if marker == 0xFF93:  # the tile-part's data follow, up to its end
            at = tile_end
            continue
        if marker >> 8 != 0xFF:
            raise Refused("damaged", "The compressed pixels are damaged.")
        if marker == 0xFF90 and at + 12 <= stop:
            tile_part = at
            (size,) = struct.unpack_from(">L", stream, at + 6)
            tile_end = min(tile_part + size, stop) if size >= 14 else stop
        elif marker == 0xFF64:
            yield from _comment(stream, at + 6, min(at + 2 + length, stop))
        at += 2 + max(length, 2)
