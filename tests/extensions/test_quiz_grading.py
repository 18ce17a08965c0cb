"""Points, as nbgrader's own rule reads them from executed cells."""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from contextlib import chdir
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbgrader.utils import determine_grade
from theatrum.quiz import (
    Answer,
    Assessment,
    BadQuestion,
    BadReference,
    Choice,
    Chosen,
    Clicked,
    Inside,
    Near,
    Outline,
    Outlined,
    SeenImage,
    grade,
)
from theatrum.quiz.answers import format_answer, save_answer

SLIDE = SeenImage(id="7", name="ihc", version="1f3c")
SQUARE = [(1000, 1000), (2000, 1000), (2000, 2000), (1000, 2000)]
CORNERS = tuple((float(x), float(y)) for x, y in SQUARE)


def save(question: str, answer: Chosen | Clicked | Outlined) -> None:
    image = None if isinstance(answer, Chosen) else SLIDE
    save_answer(Answer(question, answer, image, datetime.now(UTC)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_points_are_a_builtin_float_with_the_reason_on_stdout(
    capfd: pytest.CaptureFixture[str],
) -> None:
    save("q1", Chosen(("a",)))
    points = grade("q1", Choice({"a", "b"}), points=3)
    assert type(points) is float
    assert points == 1.5
    out, err = capfd.readouterr()
    assert out == (
        "You chose 1 of 2 right options and 0 wrong; "
        "each wrong choice takes away a right one.\n"
        "q1: 1.5 of 3 points.\n"
    )
    assert err == ""


def test_a_question_without_an_answer_earns_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert grade("q1", Choice("a"), 2) == 0.0
    assert "has not been answered" in capfd.readouterr().out


def test_an_answer_about_another_version_earns_nothing_where_one_is_pinned(
    capfd: pytest.CaptureFixture[str],
) -> None:
    save("q1", Clicked((1500, 1500)))
    save("q2", Outlined(CORNERS))
    assert grade("q1", Inside(SQUARE), 1) == 1.0
    assert grade("q1", Inside(SQUARE, image="1f3c"), 1) == 1.0
    capfd.readouterr()
    for question, reference in [
        ("q1", Inside(SQUARE, image="other")),
        ("q1", Near((1500, 1500), tolerance_px=1, image="other")),
        ("q2", Outline(SQUARE, image="other")),
    ]:
        assert grade(question, reference, 1) == 0.0
        assert "another version of the image" in capfd.readouterr().out


@pytest.mark.parametrize("points", [0, -1, math.nan, math.inf, True, "2", None])
def test_points_that_make_no_sense_are_the_teachers_error(points: Any) -> None:
    save("q1", Chosen(("a",)))
    with pytest.raises(BadReference, match="points"):
        grade("q1", Choice("a"), points)


def test_a_teachers_error_shows_without_any_answer_file() -> None:
    with pytest.raises(BadQuestion):
        grade("../q1", Choice("a"), 1)
    with pytest.raises(BadReference, match=r"quiz\.Choice"):
        grade("q1", {"a"}, 1)  # type: ignore[arg-type]
    with pytest.raises(BadReference, match=r"quiz\.Choice"):
        grade("q1", Choice, 1)


class Loud:
    """A reference of a teacher's own that warns, logs and overstates."""

    image = None

    def __init__(self, fraction: Any) -> None:
        self.fraction = fraction

    def assess(self, _answer: Answer) -> Assessment:
        warnings.warn("careless", RuntimeWarning, stacklevel=1)
        logging.getLogger("loud").warning("noisy")
        sys.stderr.write("text")
        return Assessment(self.fraction, "ünïcode \ud800")


@pytest.mark.parametrize(
    ("fraction", "points"), [(7, 2.0), (-1, 0.0), (0.25, 0.5), (math.nan, 0.0)]
)
def test_stderr_stays_silent_and_points_within_limits_whatever_a_reference_does(
    capfd: pytest.CaptureFixture[str], fraction: float, points: float
) -> None:
    save("q1", Chosen(("a",)))
    assert grade("q1", Loud(fraction), 2) == points
    assert capfd.readouterr().err == ""


def test_reasons_print_where_stdout_cannot_hold_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    save("q1", Clicked((0, 0)))
    assert grade("q1", Near((9, 9), tolerance_um=1, mpp=1), 1) == 0.0
    plain.flush()
    assert rb"12.7 \xb5m" in plain.buffer.getvalue()


# What an answer file may hold instead of what belongs there.
hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.sampled_from([10**400, 1e308, -0.0, 5e-324])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=6,
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a JSON document."""
    if isinstance(node, dict):
        here = [(node, key) for key in node]
    elif isinstance(node, list):
        here = [(node, index) for index in range(len(node))]
    else:
        return []
    return here + [place for holder, key in here for place in places(holder[key])]


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a valid answer file with a value, or some bytes, replaced."""
    if draw(st.booleans()):
        document = json.loads(content)
        holder, key = draw(st.sampled_from(places(document)))
        holder[key] = draw(hostile)
        return json.dumps(document).encode()
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 12)))
    return content[:start] + draw(st.binary(max_size=4)) + content[end:]


def content(answer: Chosen | Clicked | Outlined) -> bytes:
    return format_answer(Answer("q1", answer, SLIDE, datetime.now(UTC)))


corners = st.lists(
    st.tuples(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7)), min_size=3, max_size=20
)
files = st.one_of(
    st.binary(max_size=100),
    mutated(content(Chosen(("a", "b")))),
    mutated(content(Clicked((1500, 1500)))),
    mutated(content(Outlined(CORNERS))),
    corners.map(lambda found: content(Outlined(tuple(found)))),
)
references = st.sampled_from(
    [
        Choice({"a", "b"}),
        Inside(SQUARE, mpp=0.5, tolerance_um=10, image="1f3c"),
        Near((1500, 1500), tolerance_um=1e3, zero_um=1e7, mpp=0.25),
        Outline(SQUARE, full=1, none=0),
    ]
)


@settings(max_examples=400, deadline=None)
@given(files, references, st.sampled_from([1, 0.1, 3, 1e-3, 1e6]))
def test_no_answer_file_raises_or_leaves_the_limits(
    file: bytes, reference: Any, points: float
) -> None:
    err, out = TextIOWrapper(BytesIO()), TextIOWrapper(BytesIO(), encoding="utf-8")
    with TemporaryDirectory() as name, chdir(name):
        Path("q1.answer.json").write_bytes(file)
        before = sys.stderr, sys.stdout
        sys.stderr, sys.stdout = err, out
        try:
            score = grade("q1", reference, points)
        finally:
            sys.stderr, sys.stdout = before
    err.flush()
    out.flush()
    assert type(score) is float
    assert 0.0 <= score <= points
    assert err.buffer.getvalue() == b""
    assert len(out.buffer.getvalue().splitlines()) == 2


# Each cell with its most points and what nbgrader makes of it.
CELLS: dict[str, tuple[str, float]] = {
    # The traps: these hold of nbgrader 0.9.6 and are why `grade` is as it is.
    "trap: a NumPy scalar": ("import numpy as np\nnp.float64(0.5)", 4.0),
    "trap: a comparison": ("1 > 2", 4.0),
    "trap: a negative number": ("-1.0", 4.0),
    "trap: NaN": ("float('nan')", 4.0),
    "trap: no last value": ("score = 0.5", 4.0),
    "trap: a semicolon": ("0.5;", 4.0),
    "trap: a warning": ("import warnings\nwarnings.warn('x')\n3.0", 0.0),
    "a plain float": ("0.5", 0.5),
    # Ours.
    "half a choice": ("quiz.grade('half', quiz.Choice({'a', 'b'}), 4)", 2.0),
    "wrong choice": ("quiz.grade('half', quiz.Choice('c'), 4)", 0.0),
    "click": ("quiz.grade('click', quiz.Inside(SQUARE), 4)", 4.0),
    "NumPy points": ("quiz.grade('click', quiz.Inside(SQUARE), np.float64(4))", 4.0),
    "outline": ("quiz.grade('outline', quiz.Outline(SQUARE, none=0, full=1), 4)", 1.0),
    "a picture": ("quiz.grade('outline', quiz.Outline(SQUARE), 4, show=True)", 0.0),
    "a good picture": ("quiz.grade('click', quiz.Inside(SQUARE), 4, show=True)", 4.0),
    "no picture": ("quiz.grade('half', quiz.Choice('a'), 4, show=True)", 4.0),
    "no answer": ("quiz.grade('absent', quiz.Choice('a'), 4)", 0.0),
    "a damaged file": ("quiz.grade('damaged', quiz.Choice('a'), 4)", 0.0),
    "a loud reference": ("quiz.grade('half', Loud(), 4)", 2.0),
    "a teacher's mistake": ("quiz.grade('half', quiz.Choice(set()), 4)", 0.0),
}
SETUP = """
import sys, warnings
import numpy as np
from theatrum import quiz

SQUARE = [(1000, 1000), (2000, 1000), (2000, 2000), (1000, 2000)]

class Loud:
    image = None

    def assess(self, answer):
        warnings.warn("careless")
        print("text", file=sys.stderr)
        return quiz.Assessment(np.float64(0.5), "loud")
"""


def graded(cells: dict[str, str], run_in: Path) -> dict[str, Any]:
    """Execute each cell as an autograder does, and return what nbgrader reads."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(nbformat.v4.new_code_cell(SETUP))
    for name, source in cells.items():
        cell = nbformat.v4.new_code_cell(source)
        cell.metadata["nbgrader"] = {"grade": True, "grade_id": name, "points": 4}
        notebook.cells.append(cell)
    client = NotebookClient(
        notebook,
        timeout=120,
        allow_errors=True,
        kernel_name="python3",
        resources={"metadata": {"path": str(run_in)}},
    )
    client.execute()
    setup, *rest = notebook.cells
    assert not setup.outputs, setup.outputs
    return {cell.metadata.nbgrader.grade_id: cell for cell in rest}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_in = tmp_path_factory.mktemp("submitted")
    with chdir(run_in):
        save("half", Chosen(("a",)))
        save("click", Clicked((1000.0, 1500.0)))
        save("outline", Outlined(((1e3, 1e3), (2e3, 1e3), (2e3, 1250), (1e3, 1250))))
        Path("damaged.answer.json").write_text("{")
    return graded({name: source for name, (source, _) in CELLS.items()}, run_in)


@pytest.mark.parametrize("name", CELLS)
def test_nbgrader_reads_the_points_that_were_meant(
    cells: dict[str, Any], name: str
) -> None:
    assert determine_grade(cells[name]) == (CELLS[name][1], 4.0)


def test_more_than_the_most_points_abort_nbgrader_and_ours_never_are_more(
    folder: Path,
) -> None:
    sources = {"trap": "4.5", "ours": "quiz.grade('q1', quiz.Choice('a'), 4)"}
    save("q1", Chosen(("a",)))
    cells = graded(sources, folder)
    with pytest.raises(ValueError, match="greater than maximum"):
        determine_grade(cells["trap"])
    assert determine_grade(cells["ours"]) == (4.0, 4.0)


def test_the_reasons_stand_in_the_executed_cell(cells: dict[str, Any]) -> None:
    for name, reason in [
        ("outline", "by 25 % (IoU 0.25)"),
        ("no answer", "has not been answered"),
        ("a damaged file", "does not read as JSON"),
    ]:
        stream, _ = cells[name].outputs
        assert stream.name == "stdout"
        assert reason in stream.text


def test_a_picture_is_shown_only_where_the_teacher_asks(cells: dict[str, Any]) -> None:
    kinds = {
        name: [output.output_type for output in cells[name].outputs]
        for name in ("a picture", "click", "no picture")
    }
    assert kinds["a picture"] == ["stream", "display_data", "execute_result"]
    assert kinds["click"] == kinds["no picture"] == ["stream", "execute_result"]
    assert "image/png" in cells["a picture"].outputs[1].data


def test_a_teachers_mistake_is_an_error_in_the_run(cells: dict[str, Any]) -> None:
    (error,) = cells["a teacher's mistake"].outputs
    assert error.ename == "BadReference"


@pytest.mark.parametrize("points", [1 / 3, 0.1, 1e-6, 7])
def test_a_right_answer_earns_exactly_all_points(points: float) -> None:
    save("q1", Chosen(("a",)))
    assert grade("q1", Choice("a"), points) == points
