"""The demo slide: a large Aperio-like pyramid, made from one real photograph.

``build`` writes colon wall in immunohistochemistry, 20 480 x 15 360 px at 0.5 µm per
pixel, with structures at the positions that ``STRUCTURES`` tells (level-0 pixels). It
streams: bands of tile rows are drawn and encoded by two threads, written, reduced to
the coarser levels, and forgotten. The same ``DemoSlide`` gives the same bytes.

The file's images stand in Aperio's order: level 0, thumbnail, the other levels, label,
macro. The file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tifffile
from PIL import Image, ImageDraw

from hub.demo_structures import STRUCTURES, Structure, scaled
from hub.demo_texture import GLASS, Picture
from hub.demo_tissue import Tissue

__all__ = ["STRUCTURES", "DemoSlide", "Structure", "build", "structures"]

TILE = 240
BLOCK = 2 * TILE
"""Side of the squares that are drawn at once; both reductions divide it."""

REDUCTION = 4
"""Each stored level is this many times smaller than the one before."""

MPP = 0.5
OBJECTIVE = 20
QUALITY = 87


@dataclass(frozen=True)
class DemoSlide:
    """What is to be built; the structures of ``STRUCTURES`` scale with the width."""

    width: int = 20_480
    """Level-0 pixels; a multiple of 16."""
    height: int = 15_360
    """Level-0 pixels; a multiple of 16."""
    seed: int = 2023
    """Decides everything that is drawn at random."""

    def __post_init__(self) -> None:
        if self.width % 16 or self.height % 16 or min(self.width, self.height) < 256:
            raise ValueError("give a width and a height that are multiples of 16")


def structures(slide: DemoSlide) -> tuple[Structure, ...]:
    """What is placed on ``slide``, in its level-0 pixels."""
    return tuple(scaled(structure, slide.width) for structure in STRUCTURES)


def build(
    path: Path,
    progress: Callable[[float], None] | None = None,
    *,
    slide: DemoSlide | None = None,
) -> None:
    """Write the demo slide to ``path``; ``progress`` hears shares from 0 to 1."""
    slide = slide or DemoSlide()
    tell = progress or (lambda _share: None)
    staging = path.with_name(f".{path.name}.part")
    tell(0.0)
    try:
        _write(staging, slide, tell)
        with staging.open("rb") as written:
            os.fsync(written.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    tell(1.0)


def _write(path: Path, slide: DemoSlide, tell: Callable[[float], None]) -> None:
    quarter = np.empty(
        (slide.height // REDUCTION, slide.width // REDUCTION, 3), np.uint8
    )
    # Any: tifffile types each of its thirty arguments on its own.
    tiled: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (TILE, TILE),
        "photometric": "ycbcr",
        "subsampling": (2, 2),
        "compression": "jpeg",
    }
    plain: dict[str, Any] = {"metadata": None, "software": False}
    # Aperio's strips: sixteen rows each.
    strips: dict[str, Any] = {
        "photometric": "rgb",
        "subsampling": (2, 2),
        "compression": "jpeg",
        "compressionargs": {"level": QUALITY},
        "rowsperstrip": 16,
    }
    with tifffile.TiffWriter(path) as tiff, ThreadPoolExecutor(2) as pool:
        tissue = Tissue(slide.width, slide.height, slide.seed)
        tell(0.15)
        tiff.write(
            _full_resolution(tissue, quarter, pool, tell),
            shape=(slide.height, slide.width, 3),
            description=_description(slide, 1),
            **tiled,
            **plain,
        )
        thumbnail = _thumbnail(quarter)
        tiff.write(
            thumbnail, description=_thumbnail_line(slide, thumbnail), **strips, **plain
        )
        level = quarter
        downsample = REDUCTION
        while True:
            tiff.write(
                _tiles(level, pool),
                shape=level.shape,
                description=_description(slide, downsample),
                **tiled,
                **plain,
            )
            if downsample == REDUCTION**2:
                break
            level = _reduced(level, REDUCTION)
            downsample *= REDUCTION
        label, macro = _label(), _macro(thumbnail)
        tiff.write(
            label,
            description=f"{BANNER}\r\nlabel {label.shape[1]}x{label.shape[0]}",
            photometric="rgb",
            compression="lzw",
            predictor=True,
            rowsperstrip=16,
            subfiletype=1,
            **plain,
        )
        tiff.write(
            macro,
            description=f"{BANNER}\r\nmacro {macro.shape[1]}x{macro.shape[0]}",
            subfiletype=9,
            **strips,
            **plain,
        )


def _encode(tile: Picture) -> bytes:
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(tile),
        quality=QUALITY,
        colorspace="RGB",
        colorsubsampling="420",
    )
    return jpeg


def _full_resolution(
    tissue: Tissue,
    quarter: Picture,
    pool: ThreadPoolExecutor,
    tell: Callable[[float], None],
) -> Iterator[bytes]:
    """Level 0's tiles in order; fills ``quarter``, the level below, on the way."""
    rows = -(-tissue.height // BLOCK)
    columns = -(-tissue.width // BLOCK)
    glass = _encode(np.full((TILE, TILE, 3), GLASS, np.uint8))
    tiles_across = -(-tissue.width // TILE)
    tiles_down = -(-tissue.height // TILE)

    def draw(row: int, column: int) -> tuple[bytes, ...]:
        """One block's four tiles, row by row."""
        x, y = column * BLOCK, row * BLOCK
        pixels = tissue.region(x, y, BLOCK, BLOCK)
        part = quarter[
            y // REDUCTION : (y + BLOCK) // REDUCTION,
            x // REDUCTION : (x + BLOCK) // REDUCTION,
        ]
        if pixels is None:
            part[:] = GLASS
            return (glass,) * 4
        reduced = np.asarray(Image.fromarray(pixels).reduce(REDUCTION))
        part[:] = reduced[: part.shape[0], : part.shape[1]]
        return tuple(
            _encode(pixels[top : top + TILE, left : left + TILE])
            for top in (0, TILE)
            for left in (0, TILE)
        )

    # Two bands in flight keep both threads busy while a band is written.
    bands: deque[list[Future[tuple[bytes, ...]]]] = deque()
    for row in range(rows + 1):
        if row < rows:
            bands.append([pool.submit(draw, row, column) for column in range(columns)])
        if row == 0:
            continue
        blocks = [future.result() for future in bands.popleft()]
        for half in (0, 1):
            if 2 * (row - 1) + half >= tiles_down:
                continue
            line = [tile for block in blocks for tile in block[2 * half : 2 * half + 2]]
            yield from line[:tiles_across]
        tell(0.15 + 0.8 * row / rows)


def _tiles(level: Picture, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """A whole level's tiles in order; glass beyond its right and lower edge."""
    height, width = level.shape[:2]

    def cut(y: int, x: int) -> bytes:
        tile = np.full((TILE, TILE, 3), GLASS, np.uint8)
        part = level[y : y + TILE, x : x + TILE]
        tile[: part.shape[0], : part.shape[1]] = part
        return _encode(tile)

    for y in range(0, height, TILE):
        yield from pool.map(lambda x, y=y: cut(y, x), range(0, width, TILE))


BANNER = "Aperio Image Library v11.2.1 "
"""What OpenSlide and others know an Aperio file by."""


def _description(slide: DemoSlide, downsample: int) -> str:
    width, height = slide.width, slide.height
    size = f"{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE})"
    if downsample > 1:
        size += f" -> {width // downsample}x{height // downsample}"
    facts = (
        f"AppMag = {OBJECTIVE}",
        "ScanScope ID = THEATRUM",
        "Filename = histology101-ihc",
        "Title = Colon, FHL2 immunohistochemistry",
        f"MPP = {MPP:.4f}",
        f"OriginalWidth = {width}",
        f"OriginalHeight = {height}",
    )
    return f"{BANNER}\r\n{size} JPEG/RGB Q={QUALITY}|" + "|".join(facts)


def _thumbnail_line(slide: DemoSlide, thumbnail: Picture) -> str:
    height, width = thumbnail.shape[:2]
    return f"{BANNER}\r\n{slide.width}x{slide.height} -> {width}x{height} - |"


def _reduced(level: Picture, factor: int) -> Picture:
    """``level`` made ``factor`` times smaller, each pixel the mean of its box."""
    height, width = (size // factor * factor for size in level.shape[:2])
    bands = [
        Image.fromarray(level[y : min(y + 64 * factor, height), :width]).reduce(factor)
        for y in range(0, height, 64 * factor)
    ]
    return np.concatenate([np.asarray(band) for band in bands])


def _thumbnail(quarter: Picture) -> Picture:
    """The whole slide, at most 1024 px wide."""
    return _reduced(quarter, -(-quarter.shape[1] // 1024))


def _label() -> Picture:
    """A slide's paper label; it names no person."""
    image = Image.new("RGB", (400, 420), (247, 246, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 10, 389, 409), outline=(40, 40, 60), width=3)
    for row, (line, size) in enumerate(
        (("THEATRUM", 44), ("Histology 101", 32), ("Colon, FHL2", 32), ("DAB + H", 32))
    ):
        draw.text((36, 50 + 80 * row), line, fill=(30, 30, 60), font_size=size)
    return np.asarray(image)


def _macro(thumbnail: Picture) -> Picture:
    """The glass slide as a camera sees it: label at the left, tissue at the right."""
    macro = Image.new("RGB", (1280, 430), (226, 228, 226))
    label = Image.fromarray(_label()).resize((380, 400), Image.Resampling.BOX)
    macro.paste(label, (12, 15))
    scan = Image.fromarray(thumbnail)
    scan.thumbnail((820, 400))
    macro.paste(scan, (430, (430 - scan.height) // 2))
    return np.asarray(macro)


def main(arguments: list[str]) -> int:
    """``python -m hub.demo_slide OUT``: build the slide, with a line of progress."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m hub.demo_slide OUT.svs\n")
        return 2
    path = Path(arguments[0])

    def show(share: float) -> None:
        filled = round(30 * share)
        bar = "#" * filled + "." * (30 - filled)
        sys.stdout.write(f"\rbuilding the demo slide [{bar}] {share:4.0%}")
        sys.stdout.flush()

    try:
        build(path, show)
    except OSError as error:
        sys.stderr.write(f"\ncannot write {path.name}: {error.strerror or error}\n")
        return 1
    sys.stdout.write(f"\n{path.name}: {path.stat().st_size / 1e6:.0f} MB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
