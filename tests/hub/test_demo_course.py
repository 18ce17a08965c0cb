"""The demo course: its file, its notebooks, and the points it gives."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.utils import is_grade, is_locked
from nbgrader.validator import Validator
from theatrum.quiz.answers import (
    Answer,
    Chosen,
    Clicked,
    Given,
    Outlined,
    SeenImage,
    format_answer,
)
from traitlets.config import Config

from hub import course
from hub.demo_slide import MPP, STRUCTURES, Structure
from tests.conftest import ROOT

COURSE = ROOT / "notebooks" / "courses" / "histology101"
SOURCE = COURSE / "source" / "slide1" / "slide1.ipynb"
POINTS = {"q1": 1, "q2": 2, "q3": 2, "q4": 3, "q5": 2}
SLIDE = SeenImage("1", "ihc", "1f3c")


def structure(kind: str) -> Structure:
    return next(one for one in STRUCTURES if one.kind == kind)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def graded(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The test cells by question."""
    return {
        cell.metadata.nbgrader.grade_id.removesuffix("-points"): cell
        for cell in notebook.cells
        if is_grade(cell)
    }


def reference(question: str) -> tuple[ast.Call, dict[str, Any]]:
    """The reference in a hidden test: its call, and what its keywords say."""
    source = graded(read(SOURCE))[question].source
    last = ast.parse(source).body[-1]
    assert isinstance(last, ast.Expr)  # so that nbgrader sees the points
    call = last.value
    assert isinstance(call, ast.Call)
    assert ast.unparse(call.func) == "quiz.grade"
    name, wanted = call.args
    assert ast.literal_eval(name) == question
    points = {key.arg: ast.literal_eval(key.value) for key in call.keywords}
    assert points == {"points": POINTS[question]}
    assert isinstance(wanted, ast.Call)
    keywords = {str(key.arg): ast.literal_eval(key.value) for key in wanted.keywords}
    return wanted, keywords


def course_config(folder: Path) -> Config:
    config = Config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.course_id = "histology101"
    config.CourseDirectory.db_url = f"sqlite:///{folder / 'gradebook.db'}"
    return config


@pytest.fixture(autouse=True, scope="module")
def commands() -> Iterator[None]:
    """nbgrader calls `alembic` by its bare name, as the hub's services find it."""
    with pytest.MonkeyPatch.context() as patch:
        beside = str(Path(sys.executable).parent)
        patch.setenv("PATH", beside, prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def released(commands: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course after nbgrader has made the student's version."""
    folder = tmp_path_factory.mktemp("course") / "histology101"
    shutil.copytree(COURSE, folder)
    done = NbGraderAPI(config=course_config(folder)).generate_assignment("slide1")
    assert done["success"], done["log"]
    return folder


def test_course_file_names_the_slide_and_the_people() -> None:
    read = course.read(COURSE / "course.toml")
    assert read.id == "histology101"
    assert f"{read.collection}/{read.image}" == "histology101/ihc"
    assert read.student_group == "nbgrader-histology101"
    assert read.teachers == ("teacher",)
    assert read.students == ("student1", "student2")


def test_course_file_lists_the_assignment_with_its_points() -> None:
    table = tomllib.loads((COURSE / "course.toml").read_text("utf-8"))
    assert table["assignments"] == [
        {"name": "slide1", "title": "One slide, five questions", "points": 10}
    ]
    assert {path.name for path in (COURSE / "source").iterdir()} == {"slide1"}


@pytest.mark.parametrize("path", [SOURCE, COURSE / "welcome.ipynb"])
def test_notebook_is_valid_and_kept_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_every_cell_is_locked_and_the_points_add_up_to_ten() -> None:
    notebook = read(SOURCE)
    for cell in notebook.cells:
        assert is_locked(cell)
        assert cell.metadata.nbgrader.schema_version == 3
        assert not cell.metadata.nbgrader.solution
    names = [cell.metadata.nbgrader.grade_id for cell in notebook.cells]
    assert len(set(names)) == len(names)
    found = {
        question: cell.metadata.nbgrader.points
        for question, cell in graded(notebook).items()
    }
    assert found == POINTS
    assert sum(found.values()) == 10


def test_click_references_are_where_the_slide_has_its_structures() -> None:
    inside, keywords = reference("q2")
    assert ast.unparse(inside.func) == "quiz.Inside"
    assert tuple(ast.literal_eval(inside.args[0])) == structure("follicle").outline
    assert keywords == {}
    near, keywords = reference("q3")
    assert ast.unparse(near.func) == "quiz.Near"
    assert ast.literal_eval(near.args[0]) == structure("ink").centre
    assert keywords == {"tolerance_um": 50, "mpp": MPP}


def test_outline_reference_is_the_lumen() -> None:
    outline, keywords = reference("q4")
    assert ast.unparse(outline.func) == "quiz.Outline"
    assert tuple(ast.literal_eval(outline.args[0])) == structure("vessel").outline
    assert keywords == {"full": 0.75, "none": 0.3}


@pytest.mark.parametrize("question", ["q1", "q5"])
def test_right_options_are_options_that_are_asked(question: str) -> None:
    wanted, _ = reference(question)
    assert ast.unparse(wanted.func) == "quiz.Choice"
    right = ast.literal_eval(wanted.args[0])
    asked = next(
        cell.source
        for cell in read(SOURCE).cells
        if cell.source.startswith("quiz.choice(") and f'"{question}"' in cell.source
    )
    call = ast.parse(asked).body[0]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    options = ast.literal_eval(call.value.args[2])
    assert {right} if isinstance(right, str) else right < options.keys()


def test_students_version_holds_no_reference(released: Path) -> None:
    path = released / "release" / "slide1" / "slide1.ipynb"
    text = path.read_text("utf-8")
    for secret in ("quiz.grade", "HIDDEN", "quiz.Inside", "quiz.Near", "quiz.Outline"):
        assert secret not in text
    for one in STRUCTURES:
        for x, y in (one.centre, one.outline[3]):
            assert f"{x:g}, {y:g}" not in text
    for question, cell in graded(read(path)).items():
        # Ends with the visible check, which shows no value to take for points.
        assert cell.source.splitlines()[-1] == f'quiz.answered("{question}")'
        assert not cell.metadata.editable
    assert all(cell.get("outputs", []) == [] for cell in read(path).cells)


def fetch(released: Path, folder: Path) -> Path:
    """A student's folder of the assignment."""
    return shutil.copytree(released / "release" / "slide1", folder)


def save(folder: Path, question: str, given: Given) -> None:
    seen = None if isinstance(given, Chosen) else SLIDE
    answer = Answer(question, given, seen, datetime.now(UTC))
    (folder / f"{question}.answer.json").write_bytes(format_answer(answer))


def answer_right(folder: Path) -> None:
    save(folder, "q1", Chosen(("dab",)))
    save(folder, "q2", Clicked(structure("follicle").centre))
    save(folder, "q3", Clicked(structure("ink").centre))
    save(folder, "q4", Outlined(structure("vessel").outline))
    save(folder, "q5", Chosen(("glands", "muscle", "submucosa", "fold")))


def test_validate_names_the_questions_that_have_no_answer(
    released: Path, tmp_path: Path
) -> None:
    folder = fetch(released, tmp_path / "slide1")
    answer_right(folder)
    (folder / "q3.answer.json").unlink()
    result = Validator().validate(str(folder / "slide1.ipynb"))
    assert len(result["failed"]) == 1
    assert "Question q3 has no saved answer yet" in json.dumps(result["failed"])


def test_validate_passes_when_all_is_answered(released: Path, tmp_path: Path) -> None:
    folder = fetch(released, tmp_path / "slide1")
    answer_right(folder)
    assert Validator().validate(str(folder / "slide1.ipynb")) == {}


def test_autograde_gives_each_student_the_points_that_follow(released: Path) -> None:
    submitted = released / "submitted"
    answer_right(fetch(released, submitted / "all" / "slide1"))
    part = fetch(released, submitted / "part" / "slide1")
    x, y = structure("ink").centre
    save(part, "q1", Chosen(("eosin",)))
    save(part, "q3", Clicked((x + 60, y + 70)))  # 46 µm away
    save(part, "q5", Chosen(("glands", "fold", "cartilage")))
    (part / "q4.answer.json").write_text("{broken")
    api = NbGraderAPI(config=course_config(released))
    for student in ("all", "part"):
        done = api.autograde("slide1", student)
        assert done["success"], done["log"]
    with Gradebook(f"sqlite:///{released / 'gradebook.db'}") as gradebook:
        scores = {
            student: gradebook.find_submission("slide1", student).score
            for student in ("all", "part")
        }
        most = gradebook.find_assignment("slide1").max_score
    assert most == 10
    assert scores == {"all": 10, "part": 0 + 0 + 2 + 0 + 0.5}
    whole = read(released / "autograded" / "all" / "slide1" / "slide1.ipynb")
    for cell in whole.cells:  # also those that show slides, where there are none
        for output in cell.get("outputs", []):
            assert output.output_type != "error", output.traceback
    cells = graded(read(released / "autograded" / "part" / "slide1" / "slide1.ipynb"))
    told = {name: json.dumps(cell.outputs) for name, cell in cells.items()}
    assert "has not been answered" in told["q2"]
    assert "cannot be used" in told["q4"]
    assert "Traceback" not in "".join(told.values())
