"""A picture of a student's mark over the reference, for feedback.

Drawn without the slide, which a grader may not reach: two shapes on white, told apart
by their lines (solid and filled, dashed) and a legend besides their colours.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import shapely
from IPython.display import Image, display
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from theatrum.quiz.answers import Chosen, Clicked, Given, Position
from theatrum.quiz.shapes import Region

SIZE = (480, 360)
MARGIN_PX, LEGEND_PX = 24, 28
REFERENCE, REFERENCE_FILL = "#0b57d0", "#dbe7fb"
STUDENT = "#b3261e"
DASH_PX = 9


def show_marks(given: Given, region: Region | None) -> None:
    """Display a mark over its reference; a choice has neither and shows nothing."""
    if isinstance(given, Chosen) or region is None:
        return
    file = io.BytesIO()
    draw_marks(given, region).save(file, "PNG")
    words = "Your mark, red and dashed, over the reference, blue and filled."
    display(Image(file.getvalue(), alt=words))  # type: ignore[no-untyped-call]


def draw_marks(given: Given, region: Region) -> Pillow.Image:
    """Return a picture in which both shapes fill the space under a legend.

    Parameters
    ----------
    given
        A point or an outline in level-0 pixels.
    region
        The reference in level-0 pixels.
    """
    match given:
        case Chosen():
            raise TypeError("A choice has no place on an image.")
        case Clicked(point):
            marked: tuple[Position, ...] = (point,)
        case _:
            marked = given.polygon
    place = _Frame.around([*marked, *map(tuple, shapely.get_coordinates(region))])
    canvas = Pillow.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(canvas)
    for part in shapely.get_parts(region):
        draw.polygon(place.all(part.exterior.coords), REFERENCE_FILL)
        for hole in part.interiors:
            draw.polygon(place.all(hole.coords), "white")
        for ring in (part.exterior, *part.interiors):
            draw.line(place.all(ring.coords), REFERENCE, 2)
    if isinstance(given, Clicked):
        _cross(draw, place.one(given.point))
    else:
        _dashes(draw, place.all([*marked, marked[0]]))
    _legend(draw)
    return canvas


@dataclass(frozen=True)
class _Frame:
    """Where level-0 pixels come to lie on the canvas, at one scale for both axes."""

    l0_center: Position
    scale: float

    @classmethod
    def around(cls, positions: Sequence[Position]) -> _Frame:
        xs, ys = zip(*positions, strict=True)
        width, height = max(xs) - min(xs), max(ys) - min(ys)
        scale = min(
            (SIZE[0] - 2 * MARGIN_PX) / max(width, 1.0),
            (SIZE[1] - LEGEND_PX - 2 * MARGIN_PX) / max(height, 1.0),
        )
        return cls(((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2), scale)

    def one(self, position: Sequence[float]) -> Position:
        x, y = position[0] - self.l0_center[0], position[1] - self.l0_center[1]
        middle = SIZE[0] / 2, (SIZE[1] - LEGEND_PX) / 2
        return middle[0] + x * self.scale, middle[1] + y * self.scale

    def all(self, positions: Iterable[Sequence[float]]) -> list[Position]:
        return [self.one(position) for position in positions]


def _cross(draw: ImageDraw.ImageDraw, center: Position) -> None:
    x, y = center
    for side in (-1, 1):
        draw.line([(x - 8, y - 8 * side), (x + 8, y + 8 * side)], STUDENT, 3)


def _dashes(draw: ImageDraw.ImageDraw, line: Sequence[Position]) -> None:
    """Draw a dashed line; the dashes run on round its corners."""
    done = 0.0
    for (x, y), (to_x, to_y) in itertools.pairwise(line):
        length = math.hypot(to_x - x, to_y - y) or 1.0  # a corner given twice
        stops = [0.0, *_between(done, length), length]
        for start, end in itertools.pairwise(stops):
            if int((done + (start + end) / 2) // DASH_PX) % 2 == 0:
                ends = [
                    (x + (to_x - x) * at / length, y + (to_y - y) * at / length)
                    for at in (start, end)
                ]
                draw.line(ends, STUDENT, 3)
        done += length


def _between(done: float, length: float) -> Iterator[float]:
    """Yield where dashes begin or end on a line that begins after `done` pixels."""
    stop = DASH_PX - done % DASH_PX
    while stop < length:
        yield stop
        stop += DASH_PX


def _legend(draw: ImageDraw.ImageDraw) -> None:
    font = ImageFont.load_default(14)
    y = SIZE[1] - LEGEND_PX + 6
    draw.rectangle(
        [MARGIN_PX, y + 2, MARGIN_PX + 22, y + 14], REFERENCE_FILL, REFERENCE
    )
    draw.text((MARGIN_PX + 30, y), "reference", "black", font)
    _dashes(draw, [(MARGIN_PX + 130, y + 8), (MARGIN_PX + 157, y + 8)])
    draw.text((MARGIN_PX + 165, y), "your answer", "black", font)
