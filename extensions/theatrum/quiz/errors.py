"""What can go wrong with a question, as one tree.

Two kinds of people meet these. `BadQuestion` and `BadReference` are mistakes of the
notebook's author and are raised, so that they are noticed in the author's own run.
`UnusableAnswer` and `NotSaved` come from a student's files and disk; grading and the
widgets catch them, and their messages are written for the student.
"""

from __future__ import annotations


class QuizError(Exception):
    """A question, its reference or its answer is of no use."""


class BadQuestion(QuizError, ValueError):
    """The question is asked wrongly in the notebook."""


class BadReference(QuizError, ValueError):
    """The reference answer, or the points it gives, make no sense."""


class UnusableAnswer(QuizError):
    """The student's answer cannot be graded; the message says why."""


class NoAnswer(UnusableAnswer):
    """The question has not been answered."""


class BrokenAnswer(UnusableAnswer):
    """The answer file holds no valid answer. `reason` is the rest of a sentence."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Your answer file cannot be used: {reason}.")


class NotSaved(QuizError):
    """The answer file could not be written or removed; the one before it stands."""
