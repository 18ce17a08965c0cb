"""The visible half of a test: whether a question has been answered at all.

The student's version of a notebook holds no references. What is left of a test there
is this check, which makes nbgrader's Validate say which answers are missing.
"""

from __future__ import annotations

import os
import sys

from theatrum.quiz.answers import read_answer
from theatrum.quiz.errors import BrokenAnswer, NoAnswer


def answered(question: str) -> None:
    """Say whether the current directory holds an answer; fail Validate if it does not.

    Only while nbgrader validates (it then sets `NBGRADER_EXECUTION`) is anything
    raised. In the student's own hands an error would stop "Run All Cells" above the
    questions that are still to come; and while grading, `grade` follows, which gives
    no points for a missing answer and prints why.

    Raises
    ------
    AssertionError
        While validating: there is no answer file, or it holds no valid answer.
    """
    try:
        answer = read_answer(question)
    except NoAnswer:
        problem = f"Question {question} has no saved answer yet"
        advice = 'answer it, wait for "Saved", and validate again'
    except BrokenAnswer as error:
        problem = f"Question {question} has no usable answer: {error.reason}"
        advice = "answer it again, which replaces the file"
    else:
        moment = answer.time.astimezone()
        _say(f"{question}: your answer of {moment:%H:%M:%S} is saved.")
        return
    if os.environ.get("NBGRADER_EXECUTION") == "validate":
        raise AssertionError(f"{problem}; {advice}.") from None
    _say(f"{question}: there was no answer when this cell ran. Validate looks again.")


def _say(text: str) -> None:
    """Print to stdout, whatever its encoding can hold."""
    sys.stdout.write(text.encode("ascii", "backslashreplace").decode() + "\n")
