"""Where a slide is out of focus.

A lens out of focus takes fine detail away and leaves coarse detail. Brenner's gradient
("An automated microscope for cytologic research", J Histochem Cytochem 24 (1976)
100-111) measures detail as the squared difference of pixels two apart; but it grows
with contrast as well, so pale tissue looks blurred. Here it is divided by the same sum
for pixels eight apart: contrast falls out, and a picture without any detail has
(2 / 8)**2 = 0.06, whatever it shows. On two public slides of haematoxylin-eosin
sharp fields have 0.23 to 0.47; blurred by a Gaussian of 0.5 µm 0.15 to 0.26, of 1 µm
0.10 to 0.14.

The tissue is found at a coarse scale. The slide is parted into square cells; of each
that holds enough tissue one field is read, where the tissue of the cell is.

Bounds: bright-field slides; a scale near 0.5 µm per pixel, so a slide scanned at 10x or
below is not judged. Tissue without structure (mucus, fat) may look blurred; pen and
dust that lie above the section are out of focus, rightly. A field stands for its cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from theatrum.node import (
    Context,
    Image,
    Marks,
    Measure,
    Polygon,
    Quality,
    Resources,
    Table,
    node,
)
from theatrum.node.pixels import Pixels
from theatrum.nodes.raster import Box, Mask, Raster, raster_at
from theatrum.nodes.tissue import MOST_PIXELS, learned, read_all, tissue_mask

SHARP_FROM, BLURRED_BELOW = 0.21, 0.145
"""Of the sharpness; between them a field is soft."""

CLASSES = ("Sharp", "Soft", "Blurred")
COLOURS = ("#009e73", "#f0e442", "#d55e00")

FIELD = 256
"""Side of a field in pixels."""

_COARSEST_MPP = 0.75
_LEAST_SHARE = 0.25
"""Of a cell that tissue covers: less of it is not judged."""

_LEAST_CONTRAST = 20.0
"""Mean squared difference of pixels eight apart: below is noise, not a picture."""


@dataclass(frozen=True)
class FocusMap:
    """How sharp a slide is."""

    cells: Marks
    """One square for each cell that was judged; `scores` are their sharpness."""
    sharp: Annotated[float | None, Measure(unit="%", title="Sharp", digits=1)]
    blurred: Annotated[float | None, Measure(unit="%", title="Blurred", digits=1)]
    """Of the cells that were judged; None where there are none."""
    judged: Annotated[int, Measure(title="Fields judged")]
    sharpness: Annotated[float | None, Measure(title="Median sharpness", digits=3)]
    quality: Quality | None
    """None where nothing could be judged: that is for a person."""
    table: Table


@node(
    name="focus-map",
    version="1.0.0",
    title="Focus quality map",
    resources=Resources(memory_bytes=500_000_000, seconds=300),
)
def focus_map(
    image: Image,
    *,
    cell_um: Annotated[float, Field(ge=64, le=5000)] = 512.0,
    most_blurred: Annotated[float, Field(ge=0, le=100)] = 10.0,
    context: Context | None = None,
) -> FocusMap:
    """Map the focus of a slide, and say whether it is fit for use.

    Parameters
    ----------
    image
        A bright-field slide, scanned at 20x or more.
    cell_um
        Side of a cell of the map, in micrometres.
    most_blurred
        Share of blurred cells, in percent, up to which a slide is fit for use.
    """
    context = context or Context()
    fine = raster_at(image, 0.5)
    if fine.mpp > _COARSEST_MPP:
        return _not_judged()
    coarse = raster_at(image, 8.0, MOST_PIXELS)
    tissue = _tissue(coarse, context.part(0, 0.2))
    fields = _fields(fine, coarse, tissue, cell_um)
    squares: list[Polygon] = []
    scores: list[float] = []
    judging = context.part(0.2, 1)
    for done, (cell, field) in enumerate(fields):
        judging.progress(done / len(fields), "judging the focus")
        score = sharpness(fine.read(field))
        if score is not None:
            squares.append(_square(fine, cell))
            scores.append(score)
    context.progress(1.0, "done")
    return _map(squares, np.array(scores), most_blurred) if scores else _not_judged()


def sharpness(pixels: Pixels) -> float | None:
    """Return how much fine detail there is to coarse detail, about 0.06 to 0.5.

    None where there is no detail at all.
    """
    grey = (pixels @ np.array([0.299, 0.587, 0.114])).astype(np.float32)
    coarse = _brenner(grey, 8)
    return _brenner(grey, 2) / coarse if coarse >= _LEAST_CONTRAST else None


def _brenner(grey: npt.NDArray[np.float32], lag: int) -> float:
    across = grey[:, lag:] - grey[:, :-lag]
    down = grey[lag:] - grey[:-lag]
    return float(np.mean(across**2) + np.mean(down**2)) / 2


def _tissue(coarse: Raster, context: Context) -> Mask:
    pixels = read_all(coarse, context, text="looking for tissue")
    return tissue_mask(
        pixels, learned(pixels), coarse.mpp, smallest_mm2=0.02, hole_mm2=0.0
    )


def _fields(
    fine: Raster, coarse: Raster, tissue: Mask, cell_um: float
) -> list[tuple[Box, Box]]:
    """Return cells with tissue and the field of each, in pixels of `fine`."""
    edge = max(FIELD, round(cell_um / fine.mpp))
    ratio = fine.downsample / coarse.downsample
    found = []
    for cell in fine.tiles(fine.box, edge):
        top, left = int(cell.top * ratio), int(cell.left * ratio)
        part = tissue[
            top : max(top + 1, round(cell.bottom * ratio)),
            left : max(left + 1, round(cell.right * ratio)),
        ]
        # A cell of the slide's edge counts as a whole one: it is smaller, not emptier.
        if part.size == 0 or part.mean() < _LEAST_SHARE:
            continue
        rows, columns = np.nonzero(part)
        x = int((left + columns.mean() + 0.5) / ratio) - FIELD // 2
        y = int((top + rows.mean() + 0.5) / ratio) - FIELD // 2
        x = min(max(x, cell.left), cell.right - FIELD)
        y = min(max(y, cell.top), cell.bottom - FIELD)
        if x >= cell.left and y >= cell.top:
            found.append((cell, Box(x, y, x + FIELD, y + FIELD)))
    return found


def _square(fine: Raster, cell: Box) -> Polygon:
    corners = [
        (cell.left, cell.top),
        (cell.right, cell.top),
        (cell.right, cell.bottom),
        (cell.left, cell.bottom),
    ]
    return fine.polygon_to_level0(Polygon(corners))


def _map(
    squares: list[Polygon], scores: npt.NDArray[np.float64], most_blurred: float
) -> FocusMap:
    classes = np.where(scores >= SHARP_FROM, 0, np.where(scores < BLURRED_BELOW, 2, 1))
    sharp, blurred = (100 * float((classes == one).mean()) for one in (0, 2))
    fit = blurred <= most_blurred
    return FocusMap(
        cells=Marks(
            np.array([square.exterior.mean(axis=0) for square in squares]),
            classes,
            CLASSES,
            scores=scores,
            outlines=tuple(squares),
            class_colours=COLOURS,
        ),
        sharp=sharp,
        blurred=blurred,
        judged=len(squares),
        sharpness=float(np.median(scores)),
        quality=Quality(
            "QualityOk" if fit else "Rejected",
            f"{blurred:.0f} % of the tissue is blurred; up to {most_blurred:g} % "
            "is fit for use",
        ),
        table=_table([int((classes == one).sum()) for one in range(len(CLASSES))]),
    )


def _not_judged() -> FocusMap:
    nothing = Marks(np.empty((0, 2)), np.empty(0, int), CLASSES, class_colours=COLOURS)
    return FocusMap(nothing, None, None, 0, None, None, _table([0] * len(CLASSES)))


def _table(counts: list[int]) -> Table:
    return Table({"class": CLASSES, "fields": counts})
