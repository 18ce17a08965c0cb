"""Graded questions on images: asked by a widget, kept in a file, graded by a number."""

from theatrum.quiz.answers import (
    Answer,
    Chosen,
    Clicked,
    Outlined,
    SeenImage,
    read_answer,
)
from theatrum.quiz.checking import answered
from theatrum.quiz.errors import (
    BadQuestion,
    BadReference,
    NoAnswer,
    NotSaved,
    QuizError,
    UnusableAnswer,
)
from theatrum.quiz.grading import grade
from theatrum.quiz.references import (
    Assessment,
    Choice,
    Inside,
    Near,
    Outline,
    Reference,
)
from theatrum.quiz.widgets import Question, choice, click, outline

__all__ = [
    "Answer",
    "Assessment",
    "BadQuestion",
    "BadReference",
    "Choice",
    "Chosen",
    "Clicked",
    "Inside",
    "Near",
    "NoAnswer",
    "NotSaved",
    "Outline",
    "Outlined",
    "Question",
    "QuizError",
    "Reference",
    "SeenImage",
    "UnusableAnswer",
    "answered",
    "choice",
    "click",
    "grade",
    "outline",
    "read_answer",
]
