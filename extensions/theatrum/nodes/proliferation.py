"""Nuclei counted in an area, and how many of them are positive (Ki-67 and the like).

The index is positive nuclei over all nuclei, in percent, as Dowsett and others define
it ("Assessment of Ki67 in breast cancer", J Natl Cancer Inst 103 (2011) 1656-1664):
any nuclear brown counts. What counts as brown is a threshold on the mean amount of DAB
over the nucleus; it belongs to the laboratory's staining and scanner, and has to be set
there. The numbers are for research and for teaching: a person looks at the gallery,
moves what is wrong, and the numbers follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from theatrum.node import (
    Context,
    Image,
    Marks,
    Measure,
    Numbers,
    Polygon,
    Resources,
    node,
)
from theatrum.nodes.nuclei import Look, Nuclei, find_nuclei
from theatrum.nodes.outlines import on_slide
from theatrum.nodes.raster import l0_pixel_mm2, raster_at

POSITIVE, NEGATIVE, NOT_A_NUCLEUS = "Positive", "Negative", "Not a nucleus"
NUCLEUS = "Nucleus"

# Told apart by people who see colours in any way, and in any print.
COLOURS = {
    POSITIVE: "#d55e00",
    NEGATIVE: "#0072b2",
    NUCLEUS: "#0072b2",
    NOT_A_NUCLEUS: "#808080",
}


@dataclass(frozen=True)
class Proliferation:
    """How many nuclei of an area are positive."""

    nuclei: Marks
    """`scores`: mean DAB over the nucleus, in optical density."""
    index: Annotated[float | None, Measure(unit="%", title="Ki-67 index", digits=1)]
    """None where there is no nucleus."""
    positive: Annotated[int, Measure(title="Positive nuclei")]
    negative: Annotated[int, Measure(title="Negative nuclei")]
    area_mm2: Annotated[float | None, Measure(unit="mm2", title="Area", digits=3)]
    """None, as the densities, where the slide does not say its scale."""
    density: Annotated[float | None, Measure(unit="per mm2", title="Nuclei", digits=0)]
    positive_density: Annotated[
        float | None, Measure(unit="per mm2", title="Positive nuclei", digits=0)
    ]
    areas: Sequence[Polygon]
    """What of the polygon lies on the slide."""


@dataclass(frozen=True)
class NucleiCount:
    """How many nuclei an area has."""

    nuclei: Marks
    """`scores`: mean haematoxylin over the nucleus, in optical density."""
    count: Annotated[int, Measure(title="Nuclei")]
    area_mm2: Annotated[float | None, Measure(unit="mm2", title="Area", digits=3)]
    density: Annotated[float | None, Measure(unit="per mm2", title="Nuclei", digits=0)]
    mean_um2: Annotated[
        float | None, Measure(unit="µm2", title="Mean area of a nucleus", digits=1)
    ]
    """As it was found; a person's corrections leave it."""
    areas: Sequence[Polygon]


@node(
    name="ki67",
    version="1.0.0",
    title="Ki-67 index",
    resources=Resources(memory_bytes=700_000_000, seconds=600),
)
def ki67(
    image: Image,
    polygon: Polygon,
    *,
    positive_from: Annotated[float, Field(gt=0, le=2)] = 0.2,
    mpp: Annotated[float, Field(ge=0.2, le=1)] = 0.5,
    smallest_um2: Annotated[float, Field(ge=3, le=100)] = 12.0,
    context: Context | None = None,
) -> Proliferation:
    """Count positive and negative nuclei in an area of a haematoxylin-DAB section.

    Parameters
    ----------
    image
        A bright-field slide, stained with haematoxylin and DAB.
    polygon
        Where to count; what of it lies beside the slide is left out.
    positive_from
        Mean DAB over a nucleus, in optical density, from which it is positive.
    mpp
        Micrometres per pixel to look at it with.
    smallest_um2
        What is smaller is no nucleus.
    """
    areas = on_slide(polygon, image)
    look = Look("h-dab", smallest_um2=smallest_um2)
    found = find_nuclei(raster_at(image, mpp), areas, look, context or Context())
    negative = (found.second < positive_from).astype(np.int64)
    names = (POSITIVE, NEGATIVE, NOT_A_NUCLEUS)
    marks = _marks(found, negative, names, found.second)
    area_mm2 = _area_mm2(image, areas)
    return Proliferation(
        nuclei=marks,
        **_proliferation(marks, area_mm2),  # type: ignore[arg-type]  # by name
        area_mm2=area_mm2,
        areas=areas,
    )


@ki67.recount
def _sorted_by_hand(marks: Marks, numbers: Numbers) -> Numbers:
    """Follow the marks that a person moved to another class."""
    return _proliferation(marks, numbers.get("area_mm2"))


@ki67.action(
    "recount",
    title="Recount",
    tooltip="Make the index anew from the nuclei as they are sorted now",
)
def _pressed_recount(marks: Marks, numbers: Numbers) -> Numbers:
    return _sorted_by_hand(marks, numbers)


@node(
    name="count-nuclei",
    version="1.0.0",
    title="Nuclei count",
    resources=Resources(memory_bytes=700_000_000, seconds=600),
)
def count_nuclei(
    image: Image,
    polygon: Polygon,
    *,
    mpp: Annotated[float, Field(ge=0.2, le=1)] = 0.5,
    smallest_um2: Annotated[float, Field(ge=3, le=100)] = 12.0,
    context: Context | None = None,
) -> NucleiCount:
    """Count the nuclei in an area of a haematoxylin-eosin section.

    Parameters
    ----------
    image
        A bright-field slide, stained with haematoxylin and eosin.
    polygon
        Where to count; what of it lies beside the slide is left out.
    mpp
        Micrometres per pixel to look at it with.
    smallest_um2
        What is smaller is no nucleus.
    """
    areas = on_slide(polygon, image)
    look = Look("h-e", smallest_um2=smallest_um2)
    found = find_nuclei(raster_at(image, mpp), areas, look, context or Context())
    area_mm2 = _area_mm2(image, areas)
    every = np.zeros(len(found), np.int64)
    return NucleiCount(
        nuclei=_marks(found, every, (NUCLEUS, NOT_A_NUCLEUS), found.first),
        count=len(found),
        area_mm2=area_mm2,
        density=_per(len(found), area_mm2),
        mean_um2=float(found.areas_um2.mean()) if len(found) and area_mm2 else None,
        areas=areas,
    )


@count_nuclei.recount
def _left_over(marks: Marks, numbers: Numbers) -> Numbers:
    """Count without what a person took out."""
    count = marks.count(NUCLEUS)
    return {"count": count, "density": _per(count, numbers.get("area_mm2"))}


@count_nuclei.action(
    "recount",
    title="Recount",
    tooltip="Count anew without those that are no nuclei",
)
def _pressed_count(marks: Marks, numbers: Numbers) -> Numbers:
    return _left_over(marks, numbers)


def _proliferation(
    marks: Marks, area_mm2: float | None
) -> dict[str, float | int | None]:
    """Return the numbers that follow from how nuclei are sorted."""
    positive, negative = marks.count(POSITIVE), marks.count(NEGATIVE)
    every = positive + negative
    return {
        "index": 100 * positive / every if every else None,
        "positive": positive,
        "negative": negative,
        "density": _per(every, area_mm2),
        "positive_density": _per(positive, area_mm2),
    }


def _per(count: int, area_mm2: float | None) -> float | None:
    return None if not area_mm2 else count / area_mm2


def _area_mm2(image: Image, areas: Sequence[Polygon]) -> float | None:
    pixel_mm2 = l0_pixel_mm2(image)
    if pixel_mm2 is None:
        return None
    return sum(area.area_px for area in areas) * pixel_mm2


def _marks(
    found: Nuclei,
    classes: np.ndarray[tuple[int], np.dtype[np.int64]],
    names: tuple[str, ...],
    scores: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> Marks:
    return Marks(
        found.points,
        classes,
        names,
        scores=scores,
        class_colours=tuple(COLOURS[name] for name in names),
    )
