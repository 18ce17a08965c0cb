"""Siemens' mosaics: the slices of one volume as tiles of one square picture.

How many tiles there are, and which way they go, stands in private attributes, which
de-identification may have removed. Then the acquisition matrix tells how large a tile
is, and black tiles at the end are none.

The place in the header is that of the first pixel of a picture as large as the whole
mosaic around the centre of the first slice, so it has to be moved by half the
difference.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from theatrum.catalog.formats.dicom.coding import coding_of, decoded, spans
from theatrum.catalog.formats.dicom.headers import Header, number
from theatrum.catalog.formats.errors import Damaged

if TYPE_CHECKING:
    from theatrum.catalog.formats.dicom.slices import Slice

_CSA: Final = ((0x0029, 0x1010), (0x0029, 0x1110))
_MOST_TILES: Final = 4096
_NORMAL: Final = "SliceNormalVector"
_COUNT: Final = "NumberOfImagesInMosaic"


@dataclass(frozen=True)
class Mosaic:
    """The tiles of a mosaic: how many there are, in how many columns, and which way."""

    count: int
    across: int
    normal: tuple[float, float, float] | None

    def slices(self, whole: Slice) -> list[Slice]:
        """One slice a tile, each at its own place; `whole` is the picture of all."""
        rows, columns = whole.rows // self.across, whole.columns // self.across
        found = []
        for tile in range(self.count):
            row, column = divmod(tile, self.across)
            place, normal = self._place(whole, tile, (rows, columns))
            corner = row * rows, column * columns
            found.append(
                replace(
                    whole,
                    source=replace(whole.source, corner=corner),
                    rows=rows,
                    columns=columns,
                    place=place,
                    normal=normal,
                    frame=tile,
                )
            )
        return found

    def _place(
        self, whole: Slice, tile: int, size: tuple[int, int]
    ) -> tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]:
        if whole.place is None or whole.across is None or whole.down is None:
            return None, None
        if whole.step_mm is None or whole.thickness_mm is None:
            return None, None
        across, down = np.asarray(whole.across), np.asarray(whole.down)
        down_mm, across_mm = whole.step_mm
        normal = np.cross(across, down)
        if self.normal is not None and float(normal @ np.asarray(self.normal)) < 0:
            normal = -normal
        place = (
            np.asarray(whole.place)
            + across * across_mm * (whole.columns - size[1]) / 2
            + down * down_mm * (whole.rows - size[0]) / 2
            + normal * whole.thickness_mm * tile
        )
        x, y, z = (float(one) for one in place)
        u, v, w = (float(one) for one in normal)
        return (x, y, z), (u, v, w)


def mosaic_of(header: Header) -> Mosaic | None:
    """The tiles of a file that is a mosaic, else None; raises Damaged."""
    kinds = {str(one).upper() for one in header.dataset.get("ImageType") or ()}
    if "MOSAIC" not in kinds:
        return None
    told = _from_csa(header)
    count = _count(header, told)
    if count is not None:
        across = math.isqrt(count - 1) + 1
    else:
        across = _across(header)
        count = _filled(header, across)
    rows, columns = header.whole("Rows"), header.whole("Columns")
    if not 0 < count <= _MOST_TILES or across > min(rows, columns):
        raise Damaged(f"{header.path.name} says that it is a mosaic of {count} tiles.")
    normal = told.get(_NORMAL, ())
    return Mosaic(
        count, across, (normal[0], normal[1], normal[2]) if len(normal) == 3 else None
    )


def _count(header: Header, told: dict[str, tuple[float, ...]]) -> int | None:
    element = header.dataset.get((0x0019, 0x100A))
    value = None if element is None else element.value
    if isinstance(value, bytes) and len(value) == 2:
        value = struct.unpack("<H", value)[0]
    found = number(value)
    if found is None and told.get(_COUNT):
        found = told[_COUNT][0]
    return int(found) if found and found >= 1 else None


def _across(header: Header) -> int:
    """How many tiles lie side by side, by the acquisition matrix."""
    matrix = [int(one) for one in header.dataset.get("AcquisitionMatrix") or () if one]
    columns = header.whole("Columns")
    for size in matrix:
        if size and columns % size == 0 and columns // size > 1:
            return columns // size
    raise Damaged(
        f"{header.path.name} is a Siemens mosaic that does not say how many slices it "
        "has: export it again with its private attributes, or as single slices."
    )


def _filled(header: Header, across: int) -> int:
    """How many tiles show something: black ones at the end fill the square up."""
    import os

    coding = coding_of(header)
    start, end = spans(header, coding)[0]
    with header.path.open("rb") as file:
        content = os.pread(file.fileno(), end - start, start)
    pixels = decoded(content, coding, header.path.name)
    rows, columns = coding.rows // across, coding.columns // across
    for tile in range(across * across - 1, 0, -1):
        row, column = divmod(tile, across)
        y, x = row * rows, column * columns
        if pixels[y : y + rows, x : x + columns].any():
            return tile + 1
    return 1


def _from_csa(header: Header) -> dict[str, tuple[float, ...]]:
    """The numbers of Siemens' own header that a mosaic needs, where it is there."""
    for tag in _CSA:
        element = header.dataset.get(tag)
        if element is not None and isinstance(element.value, bytes):
            try:
                return _csa(element.value)
            except (struct.error, ValueError, IndexError):
                continue
    return {}


def _csa(content: bytes) -> dict[str, tuple[float, ...]]:
    """Fields of numbers: a name of 64 bytes, then counted items, little-endian."""
    found: dict[str, tuple[float, ...]] = {}
    at = 8 if content[:4] == b"SV10" else 0
    (count,) = struct.unpack_from("<I", content, at)
    at += 8
    if not 0 < count <= 1024:
        return found
    for _ in range(count):
        name = content[at : at + 64].split(b"\0", 1)[0].decode("latin-1")
        (items,) = struct.unpack_from("<I", content, at + 76)
        at += 84
        if items > 10_000:
            return found
        values: list[float] = []
        for _ in range(items):
            length = struct.unpack_from("<4I", content, at)[1]
            at += 16
            text = content[at : at + length].split(b"\0", 1)[0].strip()
            at += -(-length // 4) * 4
            if text and name in (_NORMAL, _COUNT):
                values.append(float(text))
        if values:
            found[name] = tuple(values)
    return found
