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


def save(question: str) -> None:
    save_answer(Answer(question, Chosen(("a",)), None, datetime.now(UTC)))


def test_missing_answer_fails_with_what_to_do() -> None:
    save("q1")
    with pytest.raises(AssertionError, match="q2 has no saved answer yet: answer it"):
        answered("q2")


def test_saved_answer_passes_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    save("q1")
    assert answered("q1") is None  # a value would be taken for points
    assert "q1: your answer of" in capsys.readouterr().out


def test_broken_answer_fails_with_the_reason(folder: Path) -> None:
    (folder / "q1.answer.json").write_text("{")
    with pytest.raises(AssertionError, match=r"cannot be used: .* Answer question q1"):
        answered("q1")


@pytest.mark.parametrize("content", [None, "{"])
def test_grading_goes_on_to_the_points(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content is not None:
        (folder / "q1.answer.json").write_text(content)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    answered("q1")


def test_validating_is_not_grading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    with pytest.raises(AssertionError):
        answered("q1")


def test_name_that_is_no_questions_is_refused() -> None:
    with pytest.raises(BadQuestion):
        answered("../q1")
