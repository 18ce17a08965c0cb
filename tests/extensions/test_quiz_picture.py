"""The picture for feedback: both shapes are on it, whatever they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageColor
from theatrum.quiz.answers import Chosen, Clicked, Outlined
from theatrum.quiz.picture import REFERENCE_FILL, SIZE, STUDENT, draw_marks
from theatrum.quiz.references import Inside, Near, Outline

SQUARE = [(1000.0, 1000.0), (2000.0, 1000.0), (2000.0, 2000.0), (1000.0, 2000.0)]
HOLED = {
    "type": "Polygon",
    "coordinates": [
        [[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]],
        [[300, 300], [600, 300], [600, 600], [300, 600], [300, 300]],
    ],
}


def share(picture: np.ndarray, colour: str) -> float:
    """The share of pixels that have exactly this colour."""
    return float(np.all(picture == ImageColor.getrgb(colour), axis=2).mean())


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (Clicked((1500, 1500)), Inside(SQUARE)),
        (Clicked((9000, 1500)), Inside(HOLED)),
        (Clicked((1500, 1500)), Near((1500, 1500), tolerance_px=0)),
        (Clicked((1400, 1500)), Near((1500, 1500), tolerance_um=40, mpp=(0.5, 0.25))),
        (Outlined(tuple((x + 300, y - 200) for x, y in SQUARE)), Outline(SQUARE)),
    ],
)
def test_the_answer_and_the_reference_are_drawn(
    answer: Clicked | Outlined, reference: Inside | Near | Outline
) -> None:
    picture = draw_marks(answer, reference.region)
    assert picture.size == SIZE
    pixels = np.asarray(picture)
    assert share(pixels, STUDENT) > 0.001
    assert share(pixels, REFERENCE_FILL) > 0.001
    assert share(pixels, "white") > 0.2


def test_a_hole_stays_empty() -> None:
    picture = draw_marks(Clicked((50, 50)), Inside(HOLED).region)
    width, height = SIZE[0], SIZE[1] - 28
    assert picture.getpixel((width // 2, height // 2)) == (255, 255, 255)


coordinates = st.floats(-1e7, 1e7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8))
def test_any_outline_can_be_drawn(corners: list[tuple[float, float]]) -> None:
    picture = draw_marks(Outlined(tuple(corners)), Outline(SQUARE).region)
    assert share(np.asarray(picture), STUDENT) > 0


def test_a_choice_has_no_picture() -> None:
    with pytest.raises(TypeError):
        draw_marks(Chosen(("a",)), Outline(SQUARE).region)
