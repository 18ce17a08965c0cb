"""Nodes to test with, in a module of their own: found, pickled and run elsewhere."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pydantic
from theatrum.node import (
    Context,
    Image,
    Marks,
    Measure,
    Numbers,
    Polygon,
    Pressed,
    Quality,
    Resources,
    node,
)


class Way(enum.Enum):
    """How to look."""

    FAST = "fast"
    EXACT = "exact"


@dataclass(frozen=True)
class Brightness:
    """What the example finds."""

    mean: Annotated[float, Measure(unit="grey", title="Mean brightness", digits=1)]
    bright: int
    where: Sequence[Polygon]
    spots: Marks
    verdict: Quality | None


@node(
    name="brightness",
    version="2.1.0",
    title="Brightness",
    resources=Resources(memory_bytes=1000, seconds=2),
)
def brightness(
    image: Image,
    areas: Sequence[Polygon] | None = None,
    *,
    threshold: Annotated[float, pydantic.Field(ge=0, le=255)] = 128.0,
    how: Literal["all", "some"] = "all",
    way: Way = Way.FAST,
    limit: int | None = None,
    context: Context | None = None,
) -> Brightness:
    """Tell how bright a slide is.

    It looks at all of it.

    Parameters
    ----------
    image
        Any slide.
    threshold
        From here on a pixel
        is bright.
    how : str
        Not the way.

    Returns
    -------
    limit
        No description of the parameter of this name.
    """
    context = context or Context()
    context.progress(0.5, "looking")
    pixels = np.asarray(image.region(0, 0, image.width, image.height))
    points = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    return Brightness(
        mean=float(pixels.mean()),
        bright=int((pixels.mean(axis=2) >= threshold).sum()),
        where=areas or (),
        spots=Marks(points, np.array([0, 0, 1]), ("Bright", "Dark")),
        verdict=None,
    )


@brightness.recount
def recounted(marks: Marks, numbers: Numbers) -> Numbers:
    """Count the bright marks."""
    return {"bright": marks.count("Bright")}


@brightness.action("swap", title="Swap", tooltip="Bright is dark")
def swapped(marks: Marks, numbers: Numbers) -> Pressed:
    """Swap the classes."""
    after = marks.with_classes(1 - marks.classes)
    return Pressed(after, {"bright": after.count("Bright")})


@node
def width_of(image: Image) -> int:
    """Tell how wide a slide is."""
    return image.width
