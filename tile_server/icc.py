"""ICC profiles: what a slide's colours mean, told to the browser without decoding.

A scanner's RGB is its own; the profile in the slide's file says which colours it means.
A browser that manages colours converts by itself once the profile is in the picture:

* in a JPEG as APP2 segments before the scan (ICC.1, Annex B.4), so a tile that passes
  through stays undecoded; a long profile takes several, each with its number;
* in a PNG as an iCCP chunk.

It costs its length in every tile; whoever wants to convert finds the profile at its own
address too, and `colours` converts for those who cannot.
"""

from __future__ import annotations

import binascii
import struct
import zlib
from typing import Any

# One JPEG segment holds 65533 bytes, 14 of them say what it is.
SEGMENT_BYTES = 65_519
# Of 255 segments, whose numbers are bytes, it takes 129.
MOST_BYTES = 8 * 2**20
_HEADER_BYTES = 128
_PNG_HEADER_END = 8 + 25
_MOST_TAGS = 200


def profile_of(raw: bytes | None) -> bytes | None:
    """The profile at the start of `raw`, None where there is no sound one of RGB."""
    if raw is None or not _HEADER_BYTES + 4 <= len(raw) <= MOST_BYTES:
        return None
    (length,) = struct.unpack_from(">I", raw)
    sound = raw[36:40] == b"acsp" and raw[16:20] == b"RGB "
    if not sound or not _HEADER_BYTES + 4 <= length <= len(raw):
        return None
    # DICOM pads values to an even length.
    return raw[:length]


def describe(profile: bytes | None) -> dict[str, Any] | None:
    """What a viewer has to know of a profile, as plain JSON."""
    if profile is None:
        return None
    return {
        "bytes": len(profile),
        "description": _description(profile),
    }


def embedded(picture: bytes, profile: bytes | None) -> bytes:
    """A JPEG or PNG with the profile in it; as it was where that cannot be done."""
    if profile is None:
        return picture
    if picture[:2] == b"\xff\xd8":
        at = _after_jfif(picture)
        return picture[:at] + _segments(profile) + picture[at:]
    if picture[:8] == b"\x89PNG\r\n\x1a\n":
        head, rest = picture[:_PNG_HEADER_END], picture[_PNG_HEADER_END:]
        return head + _chunk(profile) + rest
    return picture


def _after_jfif(jpeg: bytes) -> int:
    """Where a segment may be put: JFIF's own has to stay the first."""
    if jpeg[2:4] == b"\xff\xe0" and len(jpeg) > 6:
        return 4 + int.from_bytes(jpeg[4:6])
    return 2


def _segments(profile: bytes) -> bytes:
    """The profile in as many APP2 segments as it takes, numbered from 1."""
    starts = range(0, len(profile), SEGMENT_BYTES)
    segments = []
    for number, start in enumerate(starts, 1):
        part = profile[start : start + SEGMENT_BYTES]
        body = b"ICC_PROFILE\0" + bytes((number, len(starts))) + part
        segments.append(b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body)
    return b"".join(segments)


def _chunk(profile: bytes) -> bytes:
    body = b"iCCPICC\0\0" + zlib.compress(profile)
    check = binascii.crc32(body)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", check)


def _description(profile: bytes) -> str:
    """The profile's name for people, "" where it has none that can be read."""
    (tags,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    for number in range(min(tags, _MOST_TAGS)):
        entry = profile[_HEADER_BYTES + 4 + 12 * number :][:12]
        if len(entry) == 12 and entry[:4] == b"desc":
            at, length = struct.unpack_from(">II", entry, 4)
            return _text(profile[at : at + min(length, 4096)])
    return ""


def _text(tag: bytes) -> str:
    """The text of a tag of type `desc` (version 2) or `mluc` (version 4)."""
    if tag[:4] == b"desc" and len(tag) >= 12:
        (length,) = struct.unpack_from(">I", tag, 8)
        return tag[12 : 12 + length].split(b"\0")[0].decode("ascii", "replace")
    if tag[:4] == b"mluc" and len(tag) >= 28:
        length, at = struct.unpack_from(">II", tag, 20)
        return tag[at : at + length].decode("utf-16-be", "replace").rstrip("\0")
    return ""
