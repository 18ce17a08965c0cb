"""Feedback pages: what is cut out of them before a student reads them."""

from __future__ import annotations

import nbformat

from services.courses.feedback import HideReferences

GRADED = {
    "nbgrader": {
        "schema_version": 3,
        "grade": True,
        "grade_id": "q1-points",
        "locked": True,
        "points": 1,
        "solution": False,
        "task": False,
    }
}
SOURCE = """quiz.answered("q1")
### BEGIN HIDDEN TESTS
quiz.grade("q1", quiz.Choice("secret"), points=1)
### END HIDDEN TESTS"""


def test_the_reference_is_cut_and_the_reasons_stay() -> None:
    said = nbformat.v4.new_output("stream", text="One of two is right.")
    cell = nbformat.v4.new_code_cell(SOURCE, metadata=GRADED, outputs=[said])
    _cut(cell)
    assert cell.source == 'quiz.answered("q1")'
    assert cell.outputs == [said]


def test_an_error_keeps_its_message_and_loses_the_source_lines() -> None:
    error = nbformat.v4.new_output(
        "error",
        ename="NameError",
        evalue="name 'quiz' is not defined",
        traceback=['----> 3 quiz.grade("q1", quiz.Choice("secret"), points=1)'],
    )
    cell = nbformat.v4.new_code_cell(SOURCE, metadata=GRADED, outputs=[error])
    _cut(cell)
    assert cell.outputs[0].traceback == ["NameError: name 'quiz' is not defined"]


def test_a_students_own_cell_is_left_as_it_is() -> None:
    error = nbformat.v4.new_output(
        "error", ename="E", evalue="v", traceback=["line 1", "line 2"]
    )
    cell = nbformat.v4.new_code_cell("1 / 0", outputs=[error])
    _cut(cell)
    assert cell.source == "1 / 0"
    assert len(cell.outputs[0].traceback) == 2


def _cut(cell: nbformat.NotebookNode) -> None:
    HideReferences().preprocess_cell(cell, {}, 0)
