"""Where an answer is given: a list of options, or a slide with one mark on it.

Every position is in level-0 pixels, also in the GeoJSON of the viewer's marks.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import ipywidgets

from theatrum.quiz.answers import (
    MAX_TEXT,
    Chosen,
    Clicked,
    Given,
    Outlined,
    SeenImage,
    rounded,
)
from theatrum.quiz.controls import OptionList
from theatrum.quiz.errors import BadQuestion
from theatrum.quiz.shapes import crosses_itself

if TYPE_CHECKING:
    from theatrum.image import Image


class Field(Protocol):
    """Where an answer is given and shown."""

    prompt: str
    widgets: tuple[ipywidgets.Widget, ...]
    usable: bool
    image: SeenImage | None

    def given(self) -> Given | None:
        """Return what is given now."""

    def show(self, given: Given | None) -> None:
        """Show an answer, as far as it is one to this question."""

    def note(self, given: Given) -> str:
        """Return what the student should know about an answer, or ""."""

    def observe(self, changed: Callable[[], None]) -> None:
        """Call back whenever the student changes something."""


class OptionField:
    """A list of options."""

    image: SeenImage | None = None
    usable = True

    def __init__(
        self, prompt: str, options: Mapping[str, str], *, multiple: bool
    ) -> None:
        self.prompt = _checked_prompt(prompt)
        self._texts = _checked_options(options)
        self._multiple = multiple
        self._list = OptionList(
            prompt=self.prompt,
            options=[[key, text] for key, text in self._texts.items()],
            multiple=multiple,
        )
        self.widgets = (self._list,)

    def given(self) -> Chosen | None:
        """Return the ticked options in the question's order."""
        ticked = set(self._list.chosen)
        keys = tuple(key for key in self._texts if key in ticked)
        return Chosen(keys) if keys else None

    def show(self, given: Given | None) -> None:
        """Tick the options of an answer that this question has."""
        keys = given.keys if isinstance(given, Chosen) else ()
        known = [key for key in keys if key in self._texts]
        self._list.chosen = known if self._multiple or len(known) == 1 else []

    def note(self, given: Given) -> str:
        """Say when an answer is not one of these options."""
        if not isinstance(given, Chosen):
            return _OTHER_KIND
        if not set(given.keys) <= self._texts.keys():
            return "It names an option that is no longer here: choose again."
        if len(given.keys) > 1 and not self._multiple:
            return "It names several options: choose one."
        return ""

    def observe(self, changed: Callable[[], None]) -> None:
        """Call back whenever an option is ticked or unticked."""
        self._list.observe(lambda _change: changed(), "chosen")


class SlideField:
    """A slide with one mark on it."""

    def __init__(
        self,
        kind: Literal["click", "outline"],
        prompt: str,
        image: Image | str | os.PathLike[str],
        height: str,
    ) -> None:
        # Here, so that a grader which only wants `grade` loads no viewer.
        from theatrum.viewer import SlideViewer

        self.prompt = _checked_prompt(prompt)
        self._answer: type[Clicked | Outlined] = (
            Clicked if kind == "click" else Outlined
        )
        self.viewer = SlideViewer(
            image,
            tools=("point",) if kind == "click" else ("polygon", "rectangle"),
            height=height,
            max_marks=1,
        )
        shown: Image | None = self.viewer.image
        self.usable = shown is not None
        self.image: SeenImage | None = None
        if shown is not None:
            self.image = SeenImage(str(shown.id), shown.name, shown.version)
        heading = ipywidgets.HTML(
            f'<p class="theatrum-prompt">{html.escape(self.prompt)}</p>'
        )
        self.widgets = (heading, self.viewer)

    def given(self) -> Clicked | Outlined | None:
        """Return the mark on the slide."""
        for feature in reversed(self.viewer.marks.get("features", [])):
            geometry = feature["geometry"]
            if self._answer is Clicked and geometry["type"] == "Point":
                return Clicked(rounded(*geometry["coordinates"]))
            if self._answer is Outlined and geometry["type"] == "Polygon":
                ring = geometry["coordinates"][0]
                return Outlined(tuple(rounded(*corner) for corner in ring[:-1]))
        return None

    def show(self, given: Given | None) -> None:
        """Draw an answer's mark in place of what is drawn."""
        features = [_feature(given)] if isinstance(given, self._answer) else []
        self.viewer.marks = {"type": "FeatureCollection", "features": features}

    def note(self, given: Given) -> str:
        """Say when an answer is no mark for this question, or a doubtful one."""
        if not isinstance(given, self._answer):
            return _OTHER_KIND
        if isinstance(given, Outlined) and crosses_itself(given.polygon):
            return "Your outline crosses itself: draw it again if that was not meant."
        return ""

    def observe(self, changed: Callable[[], None]) -> None:
        """Call back whenever the marks change."""
        self.viewer.observe(lambda _change: changed(), "marks")


_ANSWERS = {"click": Clicked, "outline": Outlined}
_OTHER_KIND = "It is an answer to another kind of question: answer again."


def _feature(mark: Clicked | Outlined) -> dict[str, Any]:
    """Return the GeoJSON feature of a mark."""
    if isinstance(mark, Clicked):
        geometry: dict[str, Any] = {"type": "Point", "coordinates": list(mark.point)}
    else:
        ring = [list(corner) for corner in (*mark.polygon, mark.polygon[0])]
        geometry = {"type": "Polygon", "coordinates": [ring]}
    # The viewer takes the kind for four upright corners only.
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"kind": "rectangle"},
    }


def _checked_prompt(prompt: object) -> str:
    if isinstance(prompt, str) and prompt.strip():
        return prompt.strip()
    raise BadQuestion("The prompt must be a text that says what is asked.")


def _checked_options(options: object) -> dict[str, str]:
    if not isinstance(options, Mapping) or len(options) < 2:
        raise BadQuestion(
            'Give at least two options, as {key: text}, for example {"a": "Lung", '
            '"b": "Liver"}.'
        )
    for key, text in options.items():
        if not (isinstance(key, str) and 0 < len(key) <= MAX_TEXT):
            raise BadQuestion(f"The key {key!r} of an option must be a short text.")
        if not (isinstance(text, str) and text.strip()):
            raise BadQuestion(f"The option {key!r} needs a text.")
    if len(set(options.values())) < len(options):
        raise BadQuestion(
            "Two options have the same text; nobody could tell them apart."
        )
    return dict(options)
