"""Slides with a patient's name at every place of the file that can hold one.

Each place has its own word, so that a test can say which of them came through.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ImageCms
import tifffile

from tests import slides

SPEC = replace(slides.YCBCR, downsamples=(1, 4))
PLANTED = {
    place: f"Zz{place}Quirrelmuster"
    for place in (
        "Description",
        "Level",
        "Artist",
        "Software",
        "Host",
        "Xmp",
        "Iptc",
        "Comment",
        "TablesComment",
        "Exif",
        "Behind",
        "Profile",
        "Thumbnail",
        "LabelText",
        "MacroText",
    )
}
SCANNED = "2019:07:06 05:04:03"
SERIAL = "SS78123"


@dataclass(frozen=True)
class Planted:
    """A slide, and everything in it that must not come out."""

    path: Path
    secrets: tuple[bytes, ...]

    def found_in(self, content: bytes) -> list[str]:
        """The planted words that stand in some bytes, whatever their case and width."""
        lower = content.lower()
        return [
            secret.decode()
            for secret in self.secrets
            if secret.lower() in lower
            or secret.decode().encode("utf-16-le").lower() in lower
            or secret.decode().encode("utf-16-be").lower() in lower
        ]


def write_identified_svs(path: Path) -> Planted:
    """An Aperio slide of two levels with label, macro, thumbnail and every text."""
    full = slides.picture(SPEC.width, SPEC.height)
    with tifffile.TiffWriter(path) as tiff:
        for number, downsample in enumerate(SPEC.downsamples):
            _write_level(tiff, slides.shrunken(full, downsample), number)
            if number == 0:
                _write_strips(tiff, slides.shrunken(full, 8), "Thumbnail", 0)
        label = np.full((40, 60, 3), slides.LABEL_COLOUR, np.uint8)
        _write_strips(tiff, label, "LabelText", 1)
        _write_strips(tiff, np.full((50, 120, 3), 180, np.uint8), "MacroText", 9)
    secrets = [word.encode() for word in PLANTED.values()]
    return Planted(path, (*secrets, SCANNED.encode(), SERIAL.encode()))


def _write_level(tiff: tifffile.TiffWriter, level: slides.Pixels, number: int) -> None:
    tiles = slides._tiles(level, SPEC.tile)
    tables, _ = slides._split(slides._encode(tiles[0, 0], SPEC), SPEC)
    xmp = f"<x:xmpmeta><name>{PLANTED['Xmp']}</name></x:xmpmeta>".encode()
    iptc = PLANTED["Iptc"].encode()
    extra: list[tuple[Any, ...]] = [
        (700, 1, len(xmp), xmp, False),
        (33723, 7, len(iptc), iptc, False),
        (316, 2, 0, PLANTED["Host"], False),
        (315, 2, 0, PLANTED["Artist"], False),
    ]
    tiff.write(
        (_marked(tile) for tile in slides._streams(level, SPEC, frozenset())),
        shape=level.shape,
        dtype=np.uint8,
        tile=(SPEC.tile, SPEC.tile),
        photometric="ycbcr",
        subsampling=(2, 2),
        compression="jpeg",
        jpegtables=tables[:2] + _comment("TablesComment") + tables[2:],
        description=_description("Level" if number else "Description"),
        software=PLANTED["Software"],
        datetime=SCANNED,
        iccprofile=_profile(),
        extratags=extra,
        metadata=None,
    )


def _write_strips(
    tiff: tifffile.TiffWriter, pixels: slides.Pixels, place: str, kind: int
) -> None:
    name = {"LabelText": "label", "MacroText": "macro"}.get(place, "")
    tiff.write(
        pixels,
        photometric="rgb",
        compression="lzw",
        predictor=True,
        rowsperstrip=16,
        subfiletype=kind,
        description=f"Aperio Image Library \r\n{name} |Title = {PLANTED[place]}",
        metadata=None,
        software=False,
    )


def _description(place: str) -> str:
    return (
        "Aperio Image Library \r\n"
        f"{SPEC.width}x{SPEC.height} ({SPEC.tile}x{SPEC.tile}) JPEG/RGB Q=90"
        f"|AppMag = 20|MPP = {SPEC.mpp}|Title = {PLANTED[place]}"
        f"|ScanScope ID = {SERIAL}|Filename = {PLANTED[place]}|Date = {SCANNED}"
    )


def _marked(tile: bytes) -> bytes:
    """A tile with a comment, an Exif segment, and words behind its end."""
    exif = b"Exif\0\0" + PLANTED["Exif"].encode()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return b"".join(
        (tile[:2], segment, _comment("Comment"), tile[2:], PLANTED["Behind"].encode())
    )


def _comment(place: str) -> bytes:
    body = PLANTED[place].encode()
    return b"\xff\xfe" + struct.pack(">H", len(body) + 2) + body


def _profile() -> bytes:
    """sRGB with a name in its description and in its header's free fields."""
    made = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB"))
    raw = bytearray(made.tobytes())
    raw[100:116] = SERIAL.encode().ljust(16, b"\0")
    table = 132
    for number in range(struct.unpack_from(">I", raw, 128)[0]):
        name, at, length = struct.unpack_from(">4sII", raw, table + 12 * number)
        if name == b"cprt":
            words = PLANTED["Profile"].encode("utf-16-be")[: length - 28]
            raw[at + 28 : at + 28 + len(words)] = words
    return bytes(raw)
