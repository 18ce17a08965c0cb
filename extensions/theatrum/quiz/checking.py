"""The visible half of a test: whether a question has been answered at all.

The student's version of a notebook holds no references. What is left of a test there
is this check, which makes nbgrader's Validate say which answers are missing.
"""

from __future__ import annotations

import os

from theatrum.quiz.answers import read_answer
from theatrum.quiz.errors import BrokenAnswer, NoAnswer


def answered(question: str) -> None:
    """Fail where the current directory holds no answer to a question, and say so.

    While nbgrader grades (it then sets `NBGRADER_EXECUTION`) nothing is raised:
    `grade`, which follows, gives no points for a missing answer and prints why, and
    the student reads that in place of a traceback.

    Raises
    ------
    AssertionError
        There is no answer file, or it holds no valid answer.
    """
    try:
        answer = read_answer(question)
    except NoAnswer:
        problem = (
            f"Question {question} has no saved answer yet: answer it above, wait for "
            '"Saved", and validate again.'
        )
    except BrokenAnswer as error:
        problem = f"{error} Answer question {question} again to replace it."
    else:
        moment = answer.time.astimezone()
        print(f"{question}: your answer of {moment:%H:%M:%S} is saved.")  # noqa: T201
        return
    if os.environ.get("NBGRADER_EXECUTION") != "autograde":
        raise AssertionError(problem) from None
