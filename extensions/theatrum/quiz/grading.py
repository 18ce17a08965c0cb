"""Points for an answer, in the form that nbgrader reads them.

nbgrader takes a test cell's outputs in order. An error, or a single character on
stderr, gives no points. The value of the cell's last expression gives that many points
if its text reads as a number from 0 to the cell's maximum; above it grading is aborted;
anything else, or no value at all, gives *all* points (`nbgrader.utils.determine_grade`,
0.9.6). A NumPy scalar, whose text is `np.float64(0.5)`, is "anything else". So `grade`
returns a builtin float within the limits, keeps stderr silent, and prints its reasons
to stdout, from where nbgrader carries them into the student's feedback.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
import warnings

from theatrum.quiz.answers import Answer, check_question_id, read_answer
from theatrum.quiz.errors import BadReference, UnusableAnswer
from theatrum.quiz.picture import show_marks
from theatrum.quiz.references import Assessment, Reference


def grade(
    question: str, reference: Reference, points: float, *, show: bool = False
) -> float:
    """Return the points that the answer in the current directory earns.

    Write it as the last line of a hidden test, without a semicolon and without
    assigning it: nbgrader gives all points to a cell that shows no number. `points`
    is the maximum that the cell's nbgrader metadata names.

    Nothing that a student can write raises: a missing, damaged or unsuitable answer
    file earns 0.0, and the reason is printed. A mistake of the teacher's raises, before
    the answer is looked at; so it shows at once when the teacher runs the notebook, and
    does not come out as zero points for a class.

    Parameters
    ----------
    question
        The question's id, as in `choice`, `click` or `outline`.
    reference
        `Choice`, `Inside`, `Near` or `Outline`.
    points
        Points for a fully right answer, above zero.
    show
        Draw the student's mark over the reference. It becomes part of the feedback,
        and with it the right answer: for courses that do not ask again. nbgrader
        gives no points for, and takes none from, a picture.

    Returns
    -------
    float
        0 to `points`, parts of them rounded to four decimals.

    Raises
    ------
    BadQuestion
        The id is none.
    BadReference
        The reference is none, or `points` is not above zero.
    """
    check_question_id(question)
    # The class itself (`quiz.Choice` for `quiz.Choice("a")`) has the same attributes.
    if isinstance(reference, type) or not isinstance(reference, Reference):
        raise BadReference(
            "The reference must be a quiz.Choice(...), quiz.Inside(...), "
            f"quiz.Near(...) or quiz.Outline(...), not {reference!r}."
        )
    most = _checked_points(points)
    # A library's warning or log line must not cost a student the points.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        answer, assessment = _assess(question, reference)
        share = _share(assessment)
        score = most if share == 1 else min(round(most * share, 4), most)
        _say(assessment.reason)
        _say(f"{question}: {score:g} of {most:g} points.")
        if show and answer is not None:
            show_marks(answer.given, getattr(reference, "region", None))
    return score


def _assess(question: str, reference: Reference) -> tuple[Answer | None, Assessment]:
    """Return the answer, where there is a usable one, and what it earns."""
    try:
        answer = read_answer(question)
        _check_version(answer, reference.image)
        return answer, reference.assess(answer)
    except UnusableAnswer as error:
        return None, Assessment(0.0, str(error))


def _check_version(answer: Answer, version: str | None) -> None:
    if version is None or answer.image is None or answer.image.version == version:
        return
    raise UnusableAnswer(
        "Your answer was given on another version of the image than the one that this "
        "question is about. Open the notebook again, look at the image, and answer "
        "again."
    )


def _share(assessment: Assessment) -> float:
    """Return the fraction as a float from 0 to 1; what is not above zero is zero."""
    fraction = float(assessment.fraction)
    return min(fraction, 1.0) if fraction > 0 else 0.0  # NaN is not above zero


def _checked_points(points: object) -> float:
    if not isinstance(points, bool) and isinstance(points, float | int):
        most = float(points)
        if math.isfinite(most) and most > 0:
            return most
    raise BadReference(f"points must be a number above zero, not {points!r}.")


def _say(text: str) -> None:
    """Print to stdout, whatever its encoding can hold."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
