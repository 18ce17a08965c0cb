"""A Philips TIFF made in code, with the three things that are odd about it.

* A page is as large as its tiles together; the picture of a coarser level is smaller,
  and only the pixel spacing in the description says by how much.
* A tile of nothing but glass has the offset 0, at every level.
* All tiles of a page share one table, and the description is XML.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from tests import slides

TILE = 128
# Of level 0, a whole number of tiles as in the files that scanners write.
WIDTH, HEIGHT = 1024, 768
LEVELS = 5
MPP = 0.25
# Tiles (level, x, y) of glass.
GLASS = frozenset({(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 0), (0, 5, 3)})


def write_philips(path: Path) -> Path:
    """Write the slide; returns `path`."""
    spec = slides.SlideSpec(tile=TILE)
    with tifffile.TiffWriter(path) as tiff:
        for number in range(LEVELS):
            level = slides.shrunken(slides.picture(WIDTH, HEIGHT), 1 << number)
            tiles = slides._tiles(level, TILE)
            glass = frozenset((x, y) for k, x, y in GLASS if k == number)
            tables, _ = slides._split(slides._encode(tiles[0, 0], spec), spec)
            columns, rows = (-(-size // TILE) for size in level.shape[1::-1])
            tiff.write(
                slides._streams(level, spec, glass),
                shape=(rows * TILE, columns * TILE, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                jpegtables=tables,
                subfiletype=1 if number else 0,
                description=_description() if number == 0 else None,
                software="Philips DP v1.0",
                metadata=None,
            )
    return path


def _description() -> str:
    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{_spacing(1 << number)}'
        f"{_attribute('PIIM_PIXEL_DATA_REPRESENTATION_NUMBER', number)}</DataObject>"
        for number in range(LEVELS)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>'
        f'<DataObject ObjectType="DPScannedImage">'
        f"{_attribute('PIM_DP_IMAGE_TYPE', 'WSI')}{_spacing(1)}"
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE">'
        f"<Array>{levels}</Array></Attribute></DataObject></Array></Attribute>"
        "</DataObject>"
    )


def _spacing(downsample: int) -> str:
    mm = f"&quot;{MPP * downsample / 1000:.9f}&quot;"
    return _attribute("DICOM_PIXEL_SPACING", f"{mm} {mm}")


def _attribute(name: str, text: object) -> str:
    return f'<Attribute Name="{name}" PMSVR="IString">{text}</Attribute>'
