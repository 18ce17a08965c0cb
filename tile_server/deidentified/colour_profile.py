"""A colour profile without its words: what the colours mean, and nothing of the device.

A profile (ICC.1:2010) names the maker, the model, often the scanner's serial number,
and when it was made. Kept are the tags that convert colours, of the types that hold
numbers only; name and copyright, which the format demands, are our own.
"""

from __future__ import annotations

import struct

from tile_server import icc

_HEADER_BYTES = 128
_MOST_TAGS = 100
# Clause 9.2: the tags that convert colours.
_TAGS = frozenset(
    {b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC", b"wtpt", b"bkpt"}
    | {b"chad", b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2", b"gamt", b"lumi"}
)
# Clause 10: the types that hold numbers only.
_TYPES = frozenset(
    {b"XYZ ", b"curv", b"para", b"sf32", b"mft1", b"mft2", b"mAB ", b"mBA "}
)
_NAME = "Slide colours"


def bare_profile(profile: bytes | None) -> bytes | None:
    """The profile's numbers as a profile; None where it has none that can be read."""
    raw = icc.profile_of(profile)
    if raw is None:
        return None
    entries = [*_colour_tags(raw)]
    if not entries:
        return None
    is_new = raw[8] >= 4
    entries += [(b"desc", _text(b"desc", is_new)), (b"cprt", _text(b"text", is_new))]
    at = _HEADER_BYTES + 4 + 12 * len(entries)
    table, values = [struct.pack(">I", len(entries))], []
    for name, value in sorted(entries):
        padded = value + bytes(-len(value) % 4)
        table.append(struct.pack(">4sII", name, at, len(value)))
        values.append(padded)
        at += len(padded)
    return b"".join([_header(raw, at), *table, *values])


def _header(raw: bytes, length: int) -> bytes:
    """Version, class, colour spaces, intent and illuminant (clause 7.2); zeros else."""
    header = bytearray(_HEADER_BYTES)
    struct.pack_into(">I", header, 0, length)
    header[8:24] = raw[8:24]
    header[36:40] = b"acsp"
    header[64:80] = raw[64:80]
    return bytes(header)


def _colour_tags(raw: bytes) -> list[tuple[bytes, bytes]]:
    (count,) = struct.unpack_from(">I", raw, _HEADER_BYTES)
    found: dict[bytes, bytes] = {}
    for number in range(min(count, _MOST_TAGS)):
        entry = raw[_HEADER_BYTES + 4 + 12 * number :][:12]
        if len(entry) < 12:
            break
        name, at, length = struct.unpack(">4sII", entry)
        value = raw[at : at + length]
        if name in _TAGS and value[:4] in _TYPES and len(value) == length:
            found[name] = _numbers(value)
    return list(found.items())


def _numbers(value: bytes) -> bytes:
    """The value as long as its type says; what a maker put behind is left out."""
    if value[:4] == b"XYZ ":
        value = value[:20]
    elif value[:4] == b"curv" and len(value) >= 12:
        (count,) = struct.unpack_from(">I", value, 8)
        value = value[: 12 + 2 * count]
    # Reserved bytes of every type (clause 10.1).
    return value[:4] + bytes(4) + value[8:]


def _text(kind: bytes, is_new: bool) -> bytes:
    """Our own words, in the form of version 4 or of version 2."""
    if is_new:
        words = _NAME.encode("utf-16-be")
        head = (b"mluc", 1, 12, b"en", b"US", len(words), 28)
        return struct.pack(">4s4xII2s2sII", *head) + words
    words = _NAME.encode() + b"\0"
    if kind == b"text":
        return b"text" + bytes(4) + words
    return b"desc" + bytes(4) + struct.pack(">I", len(words)) + words + bytes(78)
