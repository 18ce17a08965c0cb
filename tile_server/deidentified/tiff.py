"""A slide of the TIFF family, copied tile by tile into a file without its words.

The tiles of every level are copied as they are coded, so each pixel of the copy is the
pixel of the slide. Kept besides: sizes, scale, objective, and what the colours mean. No
label, no macro, no thumbnail, no text, no date, no number of a scanner or a scan.

Formats whose levels are no grid of whole tiles are refused: to copy them is to encode
them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from tile_server.deidentified.big_tiff import BigTiffWriter, Page
from tile_server.deidentified.colour_profile import bare_profile
from tile_server.deidentified.streams import (
    DamagedStream,
    bare_deflate,
    bare_jpeg,
    bare_jpeg2000,
    lzw_as_deflate,
)
from tile_server.errors import TileServerError
from tile_server.readers import open_slide
from tile_server.readers.bare_tiff import TIFF_DAMAGED
from tile_server.readers.protocol import Level, Reader
from tile_server.readers.tiff_tables import (
    LONGEST_TILE,
    PHILIPS,
    PLAIN_VENDORS,
    TileTable,
)

_APERIO = "aperio"
_NONE, _LZW, _JPEG, _DEFLATE = 1, 5, 7, 8
_YCBCR = 6
# Compression of the file to that of the copy, and what a tile becomes.
_CODINGS: dict[int, tuple[int, Callable[[bytes], bytes]]] = {
    _LZW: (_DEFLATE, lzw_as_deflate),
    _JPEG: (_JPEG, bare_jpeg),
    _DEFLATE: (_DEFLATE, bare_deflate),
    32946: (_DEFLATE, bare_deflate),
    33003: (33003, bare_jpeg2000),
    33005: (33005, bare_jpeg2000),
    34712: (34712, bare_jpeg2000),
}
_WORD = re.compile(r"[^\W_]+(?:[-_.][^\W_]+)*")
_TEXT_BYTES = 1 << 20


class CannotCopy(TileServerError):
    """This slide cannot be copied without its identity; the message says why."""


@dataclass(frozen=True)
class Copied:
    """What was written: level 0 in pixels, and the words that stand in the copy."""

    size: tuple[int, int]
    words: frozenset[str]


def copy_tiff(source: Path, target: Path) -> Copied:
    """Write a copy of a slide to `target`, synced; raises CannotCopy, OSError.

    `target` is made; what lies there is replaced. The copy has been opened and has the
    slide's levels and scale.
    """
    try:
        with open_slide(source) as reader, tifffile.TiffFile(source) as tiff:
            chosen = _pages(reader, tiff)
            descriptor = os.open(source, os.O_RDONLY)
            try:
                with target.open("wb") as file:
                    words = _write(BigTiffWriter(file), reader, chosen, descriptor)
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                os.close(descriptor)
            _compare(reader, target)
            full = reader.levels[0]
    except DamagedStream as err:
        raise CannotCopy(f"a tile cannot be told apart from words: {err}") from err
    except TIFF_DAMAGED as err:
        raise CannotCopy("the file's tables are damaged") from err
    return Copied((full.width, full.height), words)


def texts_of(path: Path) -> frozenset[str]:
    """Every word of the texts in a TIFF's tags, of all its pages.

    What must not stand in a copy, but for words that everybody's files share.
    """
    found: set[str] = set()
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            for tag in getattr(page, "tags", ()):
                value = tag.value
                if isinstance(value, bytes) and tag.code in {700, 33723, 34377}:
                    value = value[:_TEXT_BYTES].decode("utf-8", "replace")
                if isinstance(value, str):
                    found |= {word[0] for word in _WORD.finditer(value[:_TEXT_BYTES])}
    return frozenset(found)


def _pages(
    reader: Reader, tiff: tifffile.TiffFile
) -> list[tuple[Level, tifffile.TiffPage]]:
    """The page of each level; CannotCopy where one is no grid of whole tiles."""
    vendor = reader.properties.get("openslide.vendor", "generic-tiff")
    if tiff.is_ome or vendor not in PLAIN_VENDORS | {PHILIPS}:
        kind = "ome-tiff" if tiff.is_ome else vendor
        raise CannotCopy(f"files of the kind {kind} have no tiles that can be copied")
    left = [
        page
        for page in tiff.pages
        if isinstance(page, tifffile.TiffPage) and page.is_tiled
    ]
    chosen = []
    for level in reader.levels:
        page = next((one for one in left if _fits(one, level, vendor)), None)
        if page is None:
            raise CannotCopy("a level of this slide is no grid of tiles of its own")
        left.remove(page)
        if not (
            page.planarconfig == tifffile.PLANARCONFIG.CONTIG
            and page.bitspersample == 8
            and page.samplesperpixel in {1, 3}
            and page.imagedepth == 1
        ):
            raise CannotCopy("its pixels are not 8 bits of grey or of three colours")
        if page.compression not in _CODINGS and page.compression != _NONE:
            raise CannotCopy(f"its tiles are coded by method {int(page.compression)}")
        chosen.append((level, page))
    return chosen


def _fits(page: tifffile.TiffPage, level: Level, vendor: str) -> bool:
    """Whether a page holds a level; Philips' pages are as large as their tiles."""
    width, height = level.width, level.height
    if vendor == PHILIPS:
        width += -width % page.tilewidth
        height += -height % page.tilelength
    return (page.imagewidth, page.imagelength) == (width, height)


def _write(
    writer: BigTiffWriter,
    reader: Reader,
    chosen: list[tuple[Level, tifffile.TiffPage]],
    descriptor: int,
) -> frozenset[str]:
    full = chosen[0][0]
    profile = bare_profile(reader.facts.profile)
    words: set[str] = set()
    for number, (level, page) in enumerate(chosen):
        compression, bare = _CODINGS.get(page.compression, (_NONE, bytes))
        described = _description(reader, level, page)
        words |= {word[0] for word in _WORD.finditer(described)}
        tables = page.jpegtables if page.compression == _JPEG else None
        writer.add(
            Page(
                size=(level.width, level.height),
                tile=(page.tilewidth, page.tilelength),
                samples=page.samplesperpixel,
                compression=compression,
                photometric=int(page.photometric),
                predictor=int(page.predictor),
                is_reduced=number > 0,
                mpp=_scale(reader, full, level),
                subsampling=_subsampling(page),
                tables=None if tables is None else bare_jpeg(tables),
                profile=profile if number == 0 else None,
                description=described,
            ),
            _tiles(page, descriptor, bare, _absent(reader, page)),
        )
    return frozenset(words)


def _tiles(
    page: tifffile.TiffPage,
    descriptor: int,
    bare: Callable[[bytes], bytes],
    absent: bytes,
) -> Iterator[bytes]:
    """The tiles of a page in their order, each without what decoding does not need."""
    table = TileTable.of(page, descriptor)
    if table is None:
        raise CannotCopy("its table of tiles is not that of its grid")
    whole = page.tilewidth * page.tilelength * page.samplesperpixel
    for number in range(table.count):
        offset, length = table.find(number % table.columns, number // table.columns)
        if not length:
            yield absent
            continue
        if length > LONGEST_TILE:
            raise CannotCopy("a tile is longer than any scanner writes")
        stream = os.pread(descriptor, length, offset)
        if len(stream) != length:
            raise CannotCopy("the file is cut off")
        if page.compression == _NONE and length != whole:
            raise CannotCopy("a tile holds more than its pixels")
        yield bare(stream)


def _absent(reader: Reader, page: tifffile.TiffPage) -> bytes:
    """What stands for a tile that the file leaves out.

    Philips means glass by it. Another format's reader would not know: so such a tile is
    drawn. Elsewhere absent stays absent.
    """
    if reader.properties.get("openslide.vendor") != PHILIPS:
        return b""
    if page.compression != _JPEG or page.photometric != _YCBCR:
        raise CannotCopy("tiles that it leaves out cannot be drawn in its own coding")
    plain = np.full(
        (page.tilelength, page.tilewidth, 3), reader.facts.background, np.uint8
    )
    across, down = _subsampling(page) or (1, 1)
    stream = imagecodecs.jpeg8_encode(
        plain,
        level=95,
        colorspace="RGB",
        outcolorspace="YCBCR",
        subsampling={(1, 1): "444", (2, 1): "422", (2, 2): "420"}[across, down],
    )
    return bare_jpeg(bytes(stream))


def _subsampling(page: tifffile.TiffPage) -> tuple[int, int] | None:
    if page.photometric != _YCBCR:
        return None
    across, down = page.tags.valueof(530, (2, 2))
    return int(across), int(down)


def _scale(reader: Reader, full: Level, level: Level) -> tuple[float, float] | None:
    """Micrometres per pixel of a level, None where the slide does not say."""
    facts = reader.facts
    if facts.mpp_x is None or facts.mpp_y is None:
        return None
    across = facts.mpp_x * full.width / level.width
    return across, facts.mpp_y * full.height / level.height


def _description(reader: Reader, level: Level, page: tifffile.TiffPage) -> str:
    """Aperio's form of description with numbers alone, for a slide of that form.

    Nothing else in a TIFF says the objective, and only by this form do openslide and
    others take the JPEG 2000 of such slides. No word of the slide's own is in it.
    """
    if reader.properties.get("openslide.vendor") != _APERIO:
        return ""
    facts = reader.facts
    parts = [
        "Aperio Image Library \r\n"
        f"{level.width}x{level.height} ({page.tilewidth}x{page.tilelength})"
    ]
    if facts.objective is not None:
        parts.append(f"AppMag = {facts.objective:g}")
    if facts.mpp_x is not None:
        parts.append(f"MPP = {facts.mpp_x:.8g}")
    return "|".join(parts)


def _compare(reader: Reader, target: Path) -> None:
    """Open the copy; CannotCopy where its levels or its scale became others."""
    with open_slide(target) as copied:
        same = [(level.width, level.height) for level in copied.levels] == [
            (level.width, level.height) for level in reader.levels
        ]
        ours, theirs = copied.facts, reader.facts
        scales = [(ours.mpp_x, theirs.mpp_x), (ours.mpp_y, theirs.mpp_y)]
        for one, other in scales:
            same &= (one is None) == (other is None)
            if one is not None and other is not None:
                same &= abs(one - other) <= 1e-4 * other
    if not same:
        raise CannotCopy("the copy would not have the slide's levels and scale")
