"""The visible check of a question, in a student's hands and while grading."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from theatrum.quiz.answers import Answer, Chosen, save_answer
from theatrum.quiz.checking import answered
from theatrum.quiz.errors import BadQuestion


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    return tmp_path


@pytest.fixture
def validating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")


def save(question: str) -> None:
    save_answer(Answer(question, Chosen(("a",)), None, datetime.now(UTC)))


@pytest.mark.usefixtures("validating")
def test_missing_answer_fails_validation_with_what_to_do() -> None:
    save("q1")
    with pytest.raises(AssertionError, match="q2 has no saved answer yet; answer it"):
        answered("q2")


@pytest.mark.usefixtures("validating")
def test_broken_answer_fails_validation_with_the_reason(folder: Path) -> None:
    (folder / "q1.answer.json").write_text("{")
    with pytest.raises(AssertionError, match=r"no usable answer: .*; answer it again"):
        answered("q1")


@pytest.mark.usefixtures("validating")
def test_saved_answer_passes_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    save("q1")
    answered("q1")
    said = capfd.readouterr()
    assert "q1: your answer of" in said.out
    assert said.err == ""  # nbgrader gives no points for a word on stderr


@pytest.mark.parametrize("run_by", [None, "autograde"])
@pytest.mark.parametrize("content", [None, "{"])
def test_cells_below_run_on_where_an_answer_is_missing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    run_by: str | None,
    content: str | None,
) -> None:
    if content is not None:
        (folder / "q1.answer.json").write_text(content)
    if run_by is not None:
        monkeypatch.setenv("NBGRADER_EXECUTION", run_by)
    answered("q1")
    assert "q1: there was no answer" in capfd.readouterr().out


def test_name_that_is_no_questions_is_refused() -> None:
    with pytest.raises(BadQuestion):
        answered("../q1")
