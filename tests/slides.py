"""Slides made in code: tiny, one for each claimed feature, some of them broken.

The picture (`picture`) encodes its own coordinates: red is a wave along x, green one
along y, blue a code of the 64-pixel block. So any part of it can be found again at any
scale, and `displacement` says by how many pixels a part lies away from its place.

Past the picture's edge the tiles hold magenta, which is nowhere in it: whoever shows
the padding shows magenta.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

Pixels = npt.NDArray[np.uint8]

PADDING = (255, 0, 255)
LABEL_COLOUR = (10, 200, 60)


@dataclass(frozen=True)
class SlideSpec:
    """What to write.

    Attributes
    ----------
    width, height
        Of level 0, in pixels.
    downsamples
        One stored level each, 1 first; its size is divided by it and rounded down.
    tile
        The side of the stored tiles, in pixels.
    codec
        "jpeg" or "deflate".
    rgb
        JPEG components are RGB and no marker says so (as Aperio does), else YCbCr.
    tables
        The tiles are abbreviated streams and their tables are in the JPEGTables tag.
    aperio
        Written as Aperio SVS with thumbnail, label and macro, else as generic TIFF.
    empty
        Tiles (x, y) of level 0 that the file leaves out.
    mpp
        Micrometres per pixel (Aperio only).
    """

    width: int = 1000
    height: int = 700
    downsamples: tuple[int, ...] = (1, 4, 16)
    tile: int = 64
    codec: str = "jpeg"
    rgb: bool = False
    tables: bool = True
    aperio: bool = True
    empty: frozenset[tuple[int, int]] = frozenset()
    mpp: float = 0.5


YCBCR = SlideSpec()
RGB_ODD = SlideSpec(width=1001, height=703, downsamples=(1, 3, 9), rgb=True)
WHOLE_STREAMS = SlideSpec(tables=False, aperio=False, downsamples=(1, 2))
SINGLE = SlideSpec(width=1999, height=1230, downsamples=(1,))
DEFLATE = SlideSpec(codec="deflate", aperio=False, tile=128, downsamples=(1, 2))
SPARSE = replace(YCBCR, empty=frozenset({(0, 0), (3, 2), (4, 2)}), downsamples=(1, 4))


def picture(width: int, height: int) -> Pixels:
    """The picture: each pixel's colour follows from its x and y."""
    y, x = np.mgrid[0:height, 0:width]
    red = 30 + 190 * np.abs((x % 96) / 48 - 1)
    green = 30 + 190 * np.abs((y % 96) / 48 - 1)
    blue = 60 + (37 * (x // 64) + 91 * (y // 64)) % 140
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def shrunken(pixels: Pixels, factor: int) -> Pixels:
    """Means of whole blocks of `factor` pixels; the rest at the edges is left out."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    whole = pixels[: height * factor, : width * factor].astype(np.float64)
    blocks = whole.reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def displacement(seen: Pixels, wanted: Pixels, reach: int = 3) -> tuple[int, int]:
    """The shift (x, y) in pixels, up to `reach`, at which `seen` fits `wanted` best."""
    height, width = seen.shape[:2]
    inner = seen[reach : height - reach, reach : width - reach].astype(np.int16)
    best = {}
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            there = wanted[
                reach + dy : height - reach + dy, reach + dx : width - reach + dx
            ]
            best[dx, dy] = float(np.abs(inner - there).mean())
    return min(best, key=lambda shift: best[shift])


def write_slide(path: Path, spec: SlideSpec) -> Path:
    """Write a slide; returns `path`."""
    full = picture(spec.width, spec.height)
    with tifffile.TiffWriter(path) as tiff:
        for number, downsample in enumerate(spec.downsamples):
            level = shrunken(full, downsample)
            _write_level(tiff, spec, level, number)
            if number == 0 and spec.aperio:
                _write_strips(tiff, shrunken(full, 8), "", 0)
        if spec.aperio:
            label = np.full((40, 60, 3), LABEL_COLOUR, np.uint8)
            _write_strips(tiff, label, "label", 1)
            _write_strips(tiff, np.full((50, 120, 3), 180, np.uint8), "macro", 9)
    return path


def write_truncated(path: Path, spec: SlideSpec, share: float) -> Path:
    """Write a slide and cut the file to `share` of its length; returns `path`."""
    write_slide(path, spec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def damage_tile(path: Path, page: int, number: int) -> None:
    """Overwrite a tile of a written slide with zeros."""
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[page].dataoffsets[number]
        length = tiff.pages[page].databytecounts[number]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))


def lose_tile(path: Path, page: int, number: int) -> None:
    """Let a tile's offset point past the end of the file, as a cut file has it."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages[page].tags["TileOffsets"]
        offsets = list(tag.value)
        offsets[number] = path.stat().st_size - 3
        tag.overwrite(offsets)


def _write_level(
    tiff: tifffile.TiffWriter, spec: SlideSpec, level: Pixels, number: int
) -> None:
    options: dict[str, Any] = {
        "metadata": None,
        "software": False,
        "tile": (spec.tile, spec.tile),
        "description": _description(spec) if spec.aperio else None,
        "subfiletype": 0 if spec.aperio or number == 0 else 1,
    }
    if spec.codec == "deflate":
        tiff.write(level, photometric="rgb", compression="deflate", **options)
        return
    empty = spec.empty if number == 0 else frozenset()
    tables, _ = _split(_encode(_tiles(level, spec.tile)[0, 0], spec), spec)
    tiff.write(
        _streams(level, spec, empty),
        shape=level.shape,
        dtype=np.uint8,
        photometric="rgb" if spec.rgb else "ycbcr",
        subsampling=None if spec.rgb else (2, 2),
        compression="jpeg",
        # Without this tifffile calls RGB YCbCr, as it would encode it.
        compressionargs={"outcolorspace": "rgb"} if spec.rgb else None,
        jpegtables=tables if spec.tables else None,
        **options,
    )


def _write_strips(
    tiff: tifffile.TiffWriter, pixels: Pixels, name: str, kind: int
) -> None:
    height, width = pixels.shape[:2]
    tiff.write(
        pixels,
        photometric="rgb",
        compression="lzw",
        predictor=True,
        rowsperstrip=16,
        subfiletype=kind,
        description=f"Aperio Image Library \r\n{name} {width}x{height}",
        metadata=None,
        software=False,
    )


def _description(spec: SlideSpec) -> str:
    return (
        "Aperio Image Library \r\n"
        f"{spec.width}x{spec.height} ({spec.tile}x{spec.tile}) JPEG/RGB Q=90"
        f"|AppMag = 20|MPP = {spec.mpp}"
    )


def _tiles(level: Pixels, tile: int) -> dict[tuple[int, int], Pixels]:
    """The level's tiles by (x, y), row by row, filled up with the padding."""
    height, width = level.shape[:2]
    tiles = {}
    for y in range(-(-height // tile)):
        for x in range(-(-width // tile)):
            part = level[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
            padded = np.empty((tile, tile, 3), np.uint8)
            padded[:] = PADDING
            padded[: part.shape[0], : part.shape[1]] = part
            tiles[x, y] = padded
    return tiles


def _streams(
    level: Pixels, spec: SlideSpec, empty: frozenset[tuple[int, int]]
) -> Iterator[bytes]:
    for place, tile in _tiles(level, spec.tile).items():
        whole = _encode(tile, spec)
        yield b"" if place in empty else _split(whole, spec)[1]


def _encode(tile: Pixels, spec: SlideSpec) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(
            tile,
            level=90,
            colorspace="RGB",
            outcolorspace="RGB" if spec.rgb else "YCBCR",
            subsampling="444" if spec.rgb else "420",
        )
    )


def _split(stream: bytes, spec: SlideSpec) -> tuple[bytes, bytes]:
    """A JPEG's tables, and the stream as the file holds it.

    RGB components get the numbers 1, 2, 3, which a reader without other knowledge takes
    for YCbCr, and lose the marker that says otherwise.
    """
    tables, rest = [b"\xff\xd8"], [b"\xff\xd8"]
    at = 2
    while True:
        marker = stream[at + 1]
        (length,) = struct.unpack_from(">H", stream, at + 2)
        segment = bytearray(stream[at : at + 2 + length])
        if spec.rgb and marker == 0xC0:
            segment[10], segment[13], segment[16] = 1, 2, 3
        if spec.rgb and marker == 0xDA:
            segment[5], segment[7], segment[9] = 1, 2, 3
        at += 2 + length
        if marker in (0xDB, 0xC4):  # quantisation and Huffman tables
            tables.append(bytes(segment))
            if not spec.tables:
                rest.append(bytes(segment))
        elif not 0xE0 <= marker <= 0xEF:
            rest.append(bytes(segment))
        if marker == 0xDA:
            break
    return b"".join([*tables, b"\xff\xd9"]), b"".join(rest) + stream[at:]
