"""A BigTIFF of encoded tiles, written from nothing: what is not given is not in it.

Little-endian, one IFD a level (TIFF 6.0 section 15; BigTIFF's offsets of 8 bytes). The
same tiles make the same bytes: no date, no name of a program, no path.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

SHORT, LONG, RATIONAL, ASCII, UNDEFINED, LONG8 = 3, 4, 5, 2, 7, 16
_FORMATS = {SHORT: "H", LONG: "I", RATIONAL: "I", LONG8: "Q"}
_CENTIMETRE = 3  # as ResolutionUnit


@dataclass(frozen=True)
class Page:
    """How a level is coded. Sizes are (width, height) in its own pixels.

    Attributes
    ----------
    mpp
        Micrometres per pixel of this level, across and down, or None.
    subsampling
        Of YCbCr components, or None.
    description
        Words of our own that a reader needs to know the scale; "" for none.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    samples: int
    compression: int
    photometric: int
    predictor: int = 1
    is_reduced: bool = False
    mpp: tuple[float, float] | None = None
    subsampling: tuple[int, int] | None = None
    tables: bytes | None = None
    profile: bytes | None = None
    description: str = ""


class BigTiffWriter:
    """Writes pages one after another into a file that is open for writing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        self._next_at = 8

    def add(self, page: Page, tiles: Iterable[bytes]) -> None:
        """A page whose tiles come row by row; an empty one is a tile that is absent.

        A tile that is the very object that came before is stored once.
        """
        offsets: list[int] = []
        lengths: list[int] = []
        last: bytes | None = None
        for tile in tiles:
            if tile and tile is last:
                offsets.append(offsets[-1])
                lengths.append(lengths[-1])
                continue
            last = tile
            offsets.append(self._put(tile) if tile else 0)
            lengths.append(len(tile))
        self._directory(page, offsets, lengths)

    def _directory(
        self, page: Page, offsets: Sequence[int], lengths: Sequence[int]
    ) -> None:
        entries: dict[int, tuple[int, Sequence[int] | bytes]] = {
            254: (LONG, [int(page.is_reduced)]),
            256: (LONG, [page.size[0]]),
            257: (LONG, [page.size[1]]),
            258: (SHORT, [8] * page.samples),
            259: (SHORT, [page.compression]),
            262: (SHORT, [page.photometric]),
            277: (SHORT, [page.samples]),
            284: (SHORT, [1]),
            322: (LONG, [page.tile[0]]),
            323: (LONG, [page.tile[1]]),
            324: (LONG8, offsets),
            325: (LONG8, lengths),
        }
        if page.predictor != 1:
            entries[317] = SHORT, [page.predictor]
        if page.description:
            entries[270] = ASCII, page.description.encode("ascii") + b"\0"
        if page.mpp is not None:
            entries[282] = RATIONAL, _per_centimetre(page.mpp[0])
            entries[283] = RATIONAL, _per_centimetre(page.mpp[1])
            entries[296] = SHORT, [_CENTIMETRE]
        if page.tables is not None:
            entries[347] = UNDEFINED, page.tables
        if page.subsampling is not None:
            entries[530] = SHORT, list(page.subsampling)
        if page.profile is not None:
            entries[34675] = UNDEFINED, page.profile
        lines = [self._entry(tag, *entries[tag]) for tag in sorted(entries)]
        at = self._put(struct.pack("<Q", len(lines)) + b"".join(lines) + bytes(8))
        self._file.seek(self._next_at)
        self._file.write(struct.pack("<Q", at))
        self._file.seek(0, 2)
        self._next_at = at + 8 + 20 * len(lines)

    def _entry(self, tag: int, kind: int, values: Sequence[int] | bytes) -> bytes:
        if isinstance(values, bytes):
            count, raw = len(values), values
        else:
            count = len(values) // (2 if kind == RATIONAL else 1)
            raw = struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)
        if len(raw) > 8:
            raw = struct.pack("<Q", self._put(raw))
        return struct.pack("<HHQ8s", tag, kind, count, raw)

    def _put(self, raw: bytes) -> int:
        """Append bytes at an even place; where they lie."""
        at = self._file.seek(0, 2)
        if at % 2:
            self._file.write(b"\0")
            at += 1
        self._file.write(raw)
        return at


def _per_centimetre(mpp: float) -> list[int]:
    """Pixels per centimetre as a RATIONAL, to eight digits or so."""
    share = Fraction(10_000 / mpp).limit_denominator(10_000)
    return [share.numerator, share.denominator]
