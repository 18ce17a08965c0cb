"""Measurements of several areas that a person drew.

Area and perimeter follow from the outline itself. Stain and tissue are means over the
pixels whose centres lie inside, summed up tile by tile, so that an area of any size
needs the memory of one tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from theatrum.node import (
    BadValue,
    Context,
    Image,
    Measure,
    Polygon,
    Resources,
    Table,
    node,
)
from theatrum.nodes.outlines import on_slide
from theatrum.nodes.raster import TILE, Raster, l0_pixel_mm2, raster_at
from theatrum.nodes.stains import NAMES, StainSet, amounts
from theatrum.nodes.tissue import MOST_PIXELS, TissueRule, learned, read_all


@dataclass(frozen=True)
class AreaMeasurements:
    """One row for each area, in the order they were given."""

    table: Table
    total_mm2: Annotated[float | None, Measure(unit="mm2", title="Area", digits=3)]
    """Of all areas added up, also where they overlap; None without a known scale."""
    tissue_mm2: Annotated[float | None, Measure(unit="mm2", title="Tissue", digits=3)]
    areas: Sequence[Polygon]
    """What of the areas lies on the slide."""


@dataclass
class _Sums:
    """Of the pixels of one area, as tiles add to them."""

    pixels: int = 0
    tissue: int = 0
    first: float = 0.0
    second: float = 0.0

    def mean(self, total: float) -> float | None:
        """Return a sum by pixel; None of an area too small to hold a centre."""
        return total / self.pixels if self.pixels else None


@node(
    name="measure-areas",
    version="1.0.0",
    title="Measure areas",
    resources=Resources(memory_bytes=500_000_000, seconds=300),
)
def measure_areas(
    image: Image,
    polygons: Sequence[Polygon],
    *,
    stains: StainSet = "h-e",
    mpp: Annotated[float, Field(ge=0.25, le=32)] = 2.0,
    context: Context | None = None,
) -> AreaMeasurements:
    """Measure areas: size, perimeter, tissue and stain of each.

    Parameters
    ----------
    image
        A bright-field slide.
    polygons
        What of them lies beside the slide is left out.
    stains
        What the section is stained with.
    mpp
        Micrometres per pixel to look at stain and tissue with.
    """
    if not polygons:
        raise BadValue("There is no area to measure: draw at least one.")
    context = context or Context()
    areas = [on_slide(polygon, image) for polygon in polygons]
    coarse = raster_at(image, 8.0, MOST_PIXELS)
    rule = learned(read_all(coarse, context.part(0, 0.3)))
    raster = raster_at(image, mpp)
    rows = []
    for number, parts in enumerate(areas):
        share = 0.7 / len(areas)
        step = context.part(0.3 + number * share, 0.3 + (number + 1) * share)
        rows.append(_sums(raster, parts, rule, stains, step))
    context.progress(1.0, "done")
    return _measured(image, polygons, areas, rows, stains)


def _sums(
    raster: Raster,
    parts: Sequence[Polygon],
    rule: TissueRule,
    stains: StainSet,
    context: Context,
    edge: int = TILE,
) -> _Sums:
    sums = _Sums()
    work = [
        (part, tile)
        for part in parts
        for tile in raster.tiles(raster.around(part), edge)
    ]
    for done, (part, tile) in enumerate(work):
        context.progress(done / len(work), "measuring")
        inside = raster.mask(part, tile)
        if not inside.any():
            continue
        pixels = raster.read(tile)
        first, second = amounts(pixels, stains)
        sums.pixels += int(inside.sum())
        sums.tissue += int((rule.mask(pixels) & inside).sum())
        sums.first += float(first[inside].sum(dtype=np.float64))
        sums.second += float(second[inside].sum(dtype=np.float64))
    return sums


def _measured(
    image: Image,
    polygons: Sequence[Polygon],
    areas: Sequence[Sequence[Polygon]],
    rows: Sequence[_Sums],
    stains: StainSet,
) -> AreaMeasurements:
    pixel_mm2 = l0_pixel_mm2(image)
    sizes = [sum(part.area_px for part in parts) for parts in areas]
    first, second = NAMES[stains]
    columns: dict[str, list[float | int | None]] = {
        "area": list(range(1, len(polygons) + 1)),
        "tissue": [row.mean(100 * row.tissue) for row in rows],
        first: [row.mean(row.first) for row in rows],
        second: [row.mean(row.second) for row in rows],
    }
    units = {"tissue": "%", first: "OD", second: "OD"}
    total = tissue = None
    if pixel_mm2 is not None:
        mm2 = [size * pixel_mm2 for size in sizes]
        columns["size"] = list(mm2)
        columns["perimeter"] = [_perimeter_mm(image, parts) for parts in areas]
        units |= {"size": "mm2", "perimeter": "mm"}
        total = sum(mm2)
        tissue = sum(
            size * row.tissue / row.pixels
            for size, row in zip(mm2, rows, strict=True)
            if row.pixels
        )
    order = ["area", "size", "perimeter", "tissue", first, second]
    return AreaMeasurements(
        table=Table({name: columns[name] for name in order if name in columns}, units),
        total_mm2=total,
        tissue_mm2=tissue,
        areas=[part for parts in areas for part in parts],
    )


def _perimeter_mm(image: Image, parts: Sequence[Polygon]) -> float:
    across, down = image.mpp_x or 0.0, image.mpp_y or 0.0  # known, or nobody asks
    return sum(part.perimeter(across / 1000, down / 1000) for part in parts)
