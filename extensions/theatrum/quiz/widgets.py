"""Questions in a notebook cell, each over the file that keeps its answer.

A question is a *field*, where the answer is given (a list of options, or a slide to
draw on), over a bar that says whether it is saved. The file is the truth: it is read
when the question is made, and written at each change. Making a question writes nothing,
so a grader, which runs the notebook without a browser, leaves the file as it was.

Every position is in level-0 pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import ipywidgets

from theatrum.quiz.answers import (
    Answer,
    Given,
    check_question_id,
    read_answer,
    remove_answer,
    save_answer,
)
from theatrum.quiz.controls import AnswerBar
from theatrum.quiz.errors import BrokenAnswer, NoAnswer, NotSaved
from theatrum.quiz.fields import Field, OptionField, SlideField

if TYPE_CHECKING:
    from theatrum.image import Image


def choice(
    question: str, prompt: str, options: Mapping[str, str], *, multiple: bool = False
) -> Question:
    """Ask for one of several options, or with `multiple` for any number of them.

    Parameters
    ----------
    question
        The question's id: 1 to 64 of a-z, 0-9, "-" and "_". It names the answer file.
    prompt
        What is asked, as plain text.
    options
        The text of each option under its key; the answer holds the keys.
    multiple
        Check boxes in place of radio buttons.
    """
    return Question(question, OptionField(prompt, options, multiple=multiple))


def click(
    question: str,
    prompt: str,
    image: Image | str | os.PathLike[str],
    *,
    height: str = "480px",
) -> Question:
    """Ask for one point on a slide.

    Parameters
    ----------
    question, prompt
        As for `choice`.
    image
        As for `SlideViewer`. Give the name, `"collection/name"`, rather than an opened
        image: where it cannot be had, as in a grader, the question then says so, and
        the notebook runs on.
    height
        Of the slide on screen, as CSS writes it.
    """
    return Question(question, SlideField("click", prompt, image, height))


def outline(
    question: str,
    prompt: str,
    image: Image | str | os.PathLike[str],
    *,
    height: str = "480px",
) -> Question:
    """Ask for the outline of one region of a slide: a polygon or a rectangle.

    The parameters are those of `click`.
    """
    return Question(question, SlideField("outline", prompt, image, height))


class Question(ipywidgets.VBox):  # type: ignore[misc]
    """A question with its answer; made by `choice`, `click` and `outline`."""

    def __init__(self, question: str, field: Field) -> None:
        self.question = check_question_id(question)
        self._field = field
        self._bar = AnswerBar()
        self._saved: Answer | None = None  # as the file has it
        self._shown: Answer | None = None
        self._cleared: Answer | None = None
        self._showing = False
        super().__init__(children=(*field.widgets, self._bar))
        self.add_class("theatrum-question")
        self._recall()
        field.observe(self._on_change)
        self._bar.on_msg(self._on_message)

    @property
    def answer(self) -> Answer | None:
        """The answer that is saved."""
        return self._saved

    @property
    def state(self) -> str:
        """What the line under the question says."""
        state = self._bar.state
        text = str(state["text"])
        if state["time"]:
            moment = datetime.fromisoformat(state["time"]).astimezone()
            text = text.replace("{time}", f"{moment:%H:%M:%S}")
        return f"{text} {state['note']}".strip()

    def clear(self) -> None:
        """Take the answer away; `undo` brings it back."""
        if self._shown is None or not self._field.usable:
            return
        self._cleared = self._shown
        self._show(None)
        self._store()

    def undo(self) -> None:
        """Bring back the answer that was cleared."""
        if self._cleared is None or not self._field.usable:
            return
        answer, self._cleared = self._cleared, None
        self._show(answer)
        self._store()

    def save(self) -> None:
        """Save what is shown once more, as an answer on the image as it is now."""
        if self._shown is None or not self._field.usable:
            return
        self._shown = self._made(self._shown.given)
        self._store()

    def __repr__(self) -> str:
        """Return what stands in an exported notebook, where widgets are dead."""
        return f"Question {self.question}: {self._field.prompt} ({self.state})"

    def _recall(self) -> None:
        """Show the answer of an earlier session."""
        try:
            self._saved = read_answer(self.question)
        except NoAnswer:
            self._tell()
        except BrokenAnswer as error:
            self._tell(
                note=f"Your saved answer cannot be shown: {error.reason}. "
                "Answer again to replace it."
            )
        else:
            self._show(self._saved)
            self._tell()

    def _on_change(self) -> None:
        if self._showing:
            return
        given = self._field.given()
        before = self._shown
        if given == (before and before.given):
            self._tell()  # the bar waits for a word; what it stands for is unchanged
            return
        self._cleared = before if given is None else None
        self._shown = None if given is None else self._made(given)
        self._store()

    def _on_message(
        self, _widget: object, content: Mapping[str, object], _: object
    ) -> None:
        match content.get("kind"):
            case "clear":
                self.clear()
            case "undo":
                self.undo()
            case "save":
                self.save()

    def _made(self, given: Given) -> Answer:
        return Answer(self.question, given, self._field.image, datetime.now(UTC))

    def _show(self, answer: Answer | None) -> None:
        self._shown = answer
        self._showing = True
        try:
            self._field.show(answer.given if answer else None)
        finally:
            self._showing = False

    def _store(self) -> None:
        """Bring the file to what is shown; where that fails the file stays."""
        try:
            if self._shown is None:
                remove_answer(self.question)
            else:
                save_answer(self._shown)
        except NotSaved as error:
            self._tell(failure=str(error))
        else:
            self._saved = self._shown
            self._tell()

    def _tell(self, *, failure: str = "", note: str = "") -> None:
        """Say how it stands with the answer."""
        saved, look, text = self._saved, "none", "Not answered yet"
        if failure:
            look, text = "failed", f"Could not save: {failure}."
            if saved is not None:
                text += " Your answer of {time} is kept."
        elif saved is not None:
            look, text = "saved", "Saved {time}"
        usable, changed = self._field.usable, self._image_change()
        notes = [note, changed, self._field.note(saved.given) if saved else ""]
        if not usable:
            notes.append("Without the image the answer cannot be changed here.")
        told = " ".join(filter(None, notes))
        with self._bar.hold_sync():
            self._bar.state = {
                "look": look,
                "text": f"{text}." if told and not failure else text,
                "time": saved.time.isoformat() if saved else None,
                "note": told,
                "turn": self._bar.state.get("turn", 0) + 1,
            }
            shown = usable and self._shown is not None
            self._bar.can_clear = shown
            self._bar.can_undo = usable and self._cleared is not None
            self._bar.can_save = shown and bool(failure or changed)

    def _image_change(self) -> str:
        """Say whether the saved answer was given on another image than this one."""
        before = self._saved.image if self._saved else None
        now = self._field.image
        if before is None or now is None:
            return ""
        then = "look at your answer again, then change or save it."
        if before.id != now.id:
            return f"This is not the image that you answered on: {then}"
        if before.version != now.version:
            return f"The image has changed since you answered: {then}"
        return ""
