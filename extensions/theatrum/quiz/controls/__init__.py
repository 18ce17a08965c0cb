"""The browser's half of a question: the options of a choice, and the answer's state."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

__all__ = ["AnswerBar", "OptionList"]

_HERE = Path(__file__).parent


class OptionList(anywidget.AnyWidget):
    """A prompt over radio buttons or, for several choices, check boxes."""

    _esm = (_HERE / "options.js").read_text(encoding="utf-8")

    prompt = traitlets.Unicode().tag(sync=True)
    # Key and text of each, in order.
    options: traitlets.List[object] = traitlets.List().tag(sync=True)
    multiple = traitlets.Bool(False).tag(sync=True)
    # From the browser and to it: the keys that are ticked.
    chosen = traitlets.List(trait=traitlets.Unicode()).tag(sync=True)


class AnswerBar(anywidget.AnyWidget):
    """Whether the answer is saved, and the buttons Clear, Undo and Save again.

    The buttons arrive as messages `{"kind": "clear" | "undo" | "save"}`.
    """

    _esm = (_HERE / "bar.js").read_text(encoding="utf-8")
    _css = (_HERE / "question.css").read_text(encoding="utf-8")

    # look: "none", "saved" or "failed". text: what is so; "{time}" stands for `time`
    # (ISO 8601), which the browser writes in the student's own time zone. note: what
    # else the student should know. turn: grows with each answer that was dealt with.
    state = traitlets.Dict().tag(sync=True)
    can_clear = traitlets.Bool(False).tag(sync=True)
    can_undo = traitlets.Bool(False).tag(sync=True)
    can_save = traitlets.Bool(False).tag(sync=True)
