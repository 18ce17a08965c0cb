"""The question widgets without a browser: what a hand does, done to their traits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from theatrum import quiz
from theatrum.quiz import BadQuestion, Chosen, Clicked, Outlined, Question
from theatrum.quiz.controls import AnswerBar, OptionList
from theatrum.viewer import SlideViewer

from tests.slides import YCBCR, write_slide

ORGANS = {"a": "Lung", "b": "Liver", "c": "Kidney"}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "liver.svs", YCBCR)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on the disk is full; undone at the test's end."""

    def fsync(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", fsync)


def organ(*, multiple: bool = False) -> Question:
    return quiz.choice("organ", "Which organ?", ORGANS, multiple=multiple)


def part(question: Question, kind: type) -> Any:
    """The one child of a question that is of this class."""
    (found,) = [child for child in question.children if isinstance(child, kind)]
    return found


def tick(question: Question, *keys: str) -> None:
    """What the browser sends when options are ticked."""
    part(question, OptionList).set_state({"chosen": list(keys)})


def press(question: Question, button: str) -> None:
    """What the browser sends when a button of the bar is pressed."""
    bar = part(question, AnswerBar)
    bar._handle_custom_msg({"kind": button}, [])


def draw(question: Question, kind: str, coordinates: Any) -> None:
    """What the viewer has after a hand has drawn a mark on the empty slide."""
    viewer = part(question, SlideViewer)
    geometry = {"type": kind, "coordinates": coordinates}
    feature = {"type": "Feature", "geometry": geometry, "properties": {}}
    viewer.marks = {"type": "FeatureCollection", "features": [feature]}


def marks(question: Question) -> list[dict[str, Any]]:
    return [mark["geometry"] for mark in part(question, SlideViewer).marks["features"]]


def file_of(question: Question) -> Path:
    return Path(f"{question.question}.answer.json")


def content(question: Question) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file_of(question).read_text())
    return document


# ---- choice ------------------------------------------------------------------------


def test_a_question_says_that_it_is_not_answered_and_writes_nothing(
    folder: Path,
) -> None:
    assert organ().state == "Not answered yet"
    assert organ().answer is None
    assert list(folder.iterdir()) == []


def test_each_tick_goes_to_the_file_at_once() -> None:
    question = organ()
    tick(question, "b")
    assert content(question)["answer"] == {"choice": ["b"]}
    assert content(question)["image"] is None
    assert question.state.startswith("Saved ")
    tick(question, "c")
    assert content(question)["answer"] == {"choice": ["c"]}
    assert question.answer is not None
    assert question.answer.given == Chosen(("c",))


def test_several_ticks_are_kept_in_the_order_of_the_options() -> None:
    question = organ(multiple=True)
    tick(question, "c", "a")
    assert content(question)["answer"] == {"choice": ["a", "c"]}


def test_the_saved_answer_is_shown_again() -> None:
    tick(organ(multiple=True), "a", "c")
    before = Path("organ.answer.json").read_bytes()
    again = organ(multiple=True)
    assert part(again, OptionList).chosen == ["a", "c"]
    assert again.state.startswith("Saved ")
    assert Path("organ.answer.json").read_bytes() == before


def test_clear_takes_the_answer_away_and_undo_brings_it_back() -> None:
    question = organ()
    bar = part(question, AnswerBar)
    assert not bar.can_clear
    tick(question, "b")
    assert (bar.can_clear, bar.can_undo) == (True, False)
    press(question, "clear")
    assert not file_of(question).exists()
    assert part(question, OptionList).chosen == []
    assert question.state == "Not answered yet"
    assert (bar.can_clear, bar.can_undo) == (False, True)
    press(question, "undo")
    assert content(question)["answer"] == {"choice": ["b"]}
    assert part(question, OptionList).chosen == ["b"]
    assert (bar.can_clear, bar.can_undo) == (True, False)


def test_unticking_the_last_box_is_clearing() -> None:
    question = organ(multiple=True)
    tick(question, "b")
    tick(question)
    assert not file_of(question).exists()
    press(question, "undo")
    assert content(question)["answer"] == {"choice": ["b"]}


def test_a_new_answer_ends_the_undo() -> None:
    question = organ()
    tick(question, "a")
    press(question, "clear")
    tick(question, "b")
    press(question, "undo")
    assert content(question)["answer"] == {"choice": ["b"]}


def test_a_failed_write_is_told_and_loses_nothing(
    full_disk: Callable[[], None],
) -> None:
    question = organ()
    tick(question, "a")
    full_disk()
    tick(question, "b")
    assert question.state.startswith("Could not save: No space left on device. Your ")
    assert question.state.endswith(" is kept.")
    assert content(question)["answer"] == {"choice": ["a"]}
    assert part(question, AnswerBar).state["look"] == "failed"
    assert part(question, AnswerBar).can_save


def test_a_failed_first_write_promises_no_earlier_answer(
    full_disk: Callable[[], None],
) -> None:
    full_disk()
    question = organ()
    tick(question, "a")
    assert question.state == "Could not save: No space left on device."


def test_save_again_saves_what_is_shown_once_there_is_room(folder: Path) -> None:
    question = organ()
    obstacle = folder / "organ.answer.json"
    obstacle.mkdir()
    tick(question, "a")
    assert question.state.startswith("Could not save")
    obstacle.rmdir()
    press(question, "save")
    assert content(question)["answer"] == {"choice": ["a"]}
    assert not part(question, AnswerBar).can_save


def test_clearing_that_fails_is_told_and_can_be_undone() -> None:
    question = organ()
    tick(question, "a")
    file_of(question).unlink()
    file_of(question).mkdir()
    press(question, "clear")
    assert question.state.startswith("Could not save")
    press(question, "undo")
    assert part(question, OptionList).chosen == ["a"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "does not read as JSON"), ('{"schema": 2}', "schema 2")],
)
def test_a_damaged_file_is_told_and_stays_until_the_next_answer(
    text: str, reason: str
) -> None:
    Path("organ.answer.json").write_text(text)
    question = organ()
    assert question.state.startswith("Not answered yet. Your saved answer")
    assert reason in question.state
    assert Path("organ.answer.json").read_text() == text
    tick(question, "a")
    assert content(question)["answer"] == {"choice": ["a"]}


def test_an_option_that_is_gone_is_told() -> None:
    tick(organ(), "c")
    question = quiz.choice("organ", "Which organ?", {"a": "Lung", "b": "Liver"})
    assert "no longer here" in question.state
    assert part(question, OptionList).chosen == []
    tick(question, "a")
    assert "no longer here" not in question.state


def test_several_saved_options_of_a_question_for_one_are_told() -> None:
    tick(organ(multiple=True), "a", "b")
    assert "choose one" in organ().state


def test_the_bar_is_answered_even_when_nothing_has_changed() -> None:
    question = organ()
    tick(question, "a")
    turn = part(question, AnswerBar).state["turn"]
    tick(question, "a", "unknown")
    assert part(question, AnswerBar).state["turn"] == turn + 1
    assert content(question)["answer"] == {"choice": ["a"]}


def test_the_prompt_reaches_the_browser_as_text(slide: Path) -> None:
    prompt = "Is <b>a</b> & b\nright?"
    assert part(quiz.choice("q", prompt, ORGANS), OptionList).prompt == prompt
    heading = quiz.click("q", prompt, slide).children[0]
    assert "Is &lt;b&gt;a&lt;/b&gt; &amp; b\nright?" in heading.value


def test_a_dead_question_in_an_exported_notebook_is_readable() -> None:
    question = organ()
    assert repr(question) == "Question organ: Which organ? (Not answered yet)"
    bundle = question._repr_mimebundle_()
    assert bundle["text/plain"] == repr(question)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quiz.choice("Q 1", "p", ORGANS), "question's id"),
        (lambda: quiz.choice("../q", "p", ORGANS), "question's id"),
        (lambda: quiz.choice("q", " ", ORGANS), "prompt"),
        (lambda: quiz.choice("q", None, ORGANS), "prompt"),
        (lambda: quiz.choice("q", "p", ["a", "b"]), "key: text"),
        (lambda: quiz.choice("q", "p", {"a": "only"}), "two options"),
        (lambda: quiz.choice("q", "p", {1: "x", 2: "y"}), "key 1"),
        (lambda: quiz.choice("q", "p", {"": "x", "b": "y"}), "key ''"),
        (lambda: quiz.choice("q", "p", {"a": "x", "b": ""}), "needs a text"),
        (lambda: quiz.choice("q", "p", {"a": "x", "b": "x"}), "same text"),
    ],
)
def test_a_mistake_in_a_question_is_raised(make: Any, message: str) -> None:
    with pytest.raises(BadQuestion, match=message):
        make()


# ---- click and outline -------------------------------------------------------------


def test_a_click_is_kept_in_level_0_pixels_with_its_image(slide: Path) -> None:
    question = quiz.click("nucleus", "Click a nucleus", slide)
    draw(question, "Point", [123.456, 78.9])
    assert content(question)["kind"] == "click"
    assert content(question)["answer"] == {"point": [123.46, 78.9]}
    image = part(question, SlideViewer).image
    assert content(question)["image"] == {
        "id": image.id,
        "name": image.name,
        "version": image.version,
    }
    assert quiz.grade("nucleus", quiz.Near((123, 79), tolerance_px=1), 2) == 2.0


def test_a_polygon_and_a_rectangle_are_outlines(slide: Path) -> None:
    question = quiz.outline("region", "Outline it", slide)
    square = [[100, 100], [300, 100], [300, 300], [100, 300], [100, 100]]
    draw(question, "Polygon", [square])
    corners = [[100.0, 100.0], [300.0, 100.0], [300.0, 300.0], [100.0, 300.0]]
    assert content(question)["answer"] == {"polygon": corners}
    assert quiz.grade("region", quiz.Outline(square), 2) == 2.0


def test_a_saved_mark_is_drawn_again_and_not_written_again(slide: Path) -> None:
    draw(quiz.click("nucleus", "Click", slide), "Point", [10.5, 20.25])
    square = [[100.0, 100.0], [300.0, 100.0], [300.0, 300.0], [100.0, 300.0]]
    draw(quiz.outline("region", "Outline", slide), "Polygon", [[*square, square[0]]])
    before = [Path(f"{name}.answer.json").stat() for name in ("nucleus", "region")]
    click = quiz.click("nucleus", "Click", slide)
    outline = quiz.outline("region", "Outline", slide)
    assert marks(click) == [{"type": "Point", "coordinates": [10.5, 20.25]}]
    (region,) = marks(outline)
    assert region["coordinates"] == [[*square, square[0]]]
    (mark,) = part(outline, SlideViewer).marks["features"]
    assert mark["properties"]["kind"] == "rectangle"
    after = [Path(f"{name}.answer.json").stat() for name in ("nucleus", "region")]
    assert [stat.st_mtime_ns for stat in after] == [s.st_mtime_ns for s in before]


def test_the_newest_mark_is_the_answer(slide: Path) -> None:
    question = quiz.click("nucleus", "Click", slide)
    draw(question, "Point", [1, 2])
    draw(question, "Point", [3, 4])
    assert content(question)["answer"] == {"point": [3.0, 4.0]}
    assert len(marks(question)) == 1


def test_erasing_the_mark_clears_and_the_viewers_undo_brings_it_back(
    slide: Path,
) -> None:
    question = quiz.click("nucleus", "Click", slide)
    viewer = part(question, SlideViewer)
    draw(question, "Point", [1, 2])
    viewer.marks = {"type": "FeatureCollection", "features": []}
    assert not file_of(question).exists()
    viewer.undo()
    assert content(question)["answer"] == {"point": [1.0, 2.0]}
    press(question, "clear")
    assert marks(question) == []
    press(question, "undo")
    assert marks(question) == [{"type": "Point", "coordinates": [1.0, 2.0]}]


def test_an_outline_that_crosses_itself_is_saved_and_told(slide: Path) -> None:
    question = quiz.outline("region", "Outline", slide)
    draw(question, "Polygon", [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]])
    assert question.state.startswith("Saved ")
    assert "crosses itself" in question.state
    draw(question, "Polygon", [[[0, 0], [9, 0], [9, 9], [0, 0]]])
    assert "crosses itself" not in question.state


def test_a_changed_image_is_told_and_save_again_takes_the_new_one(
    tmp_path: Path,
) -> None:
    slide = write_slide(tmp_path / "liver.svs", YCBCR)
    draw(quiz.click("nucleus", "Click", slide), "Point", [1, 2])
    version = content(quiz.click("nucleus", "Click", slide))["image"]["version"]
    os.utime(slide, ns=(1, 1))
    question = quiz.click("nucleus", "Click", slide)
    assert marks(question) == [{"type": "Point", "coordinates": [1.0, 2.0]}]
    assert "The image has changed since you answered" in question.state
    assert content(question)["image"]["version"] == version
    press(question, "save")
    assert "changed" not in question.state
    assert content(question)["image"]["version"] != version


def test_another_image_is_told(slide: Path, tmp_path: Path) -> None:
    draw(quiz.click("nucleus", "Click", slide), "Point", [1, 2])
    other = write_slide(tmp_path / "lung.svs", YCBCR)
    question = quiz.click("nucleus", "Click", other)
    assert "not the image that you answered on" in question.state


def test_an_answer_to_another_kind_of_question_is_told(slide: Path) -> None:
    tick(organ(), "a")
    question = quiz.click("organ", "Click", slide)
    assert "another kind of question" in question.state
    assert marks(question) == []
    draw(question, "Point", [1, 2])
    assert content(question)["kind"] == "click"
    assert "another kind" in organ().state


@pytest.mark.parametrize("ask", [quiz.click, quiz.outline])
def test_an_image_that_cannot_be_had_is_told_and_its_answer_kept(
    slide: Path, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THEATRUM_CATALOG_URL", raising=False)
    question = ask("mark", "Where?", slide)
    if ask is quiz.click:
        draw(question, "Point", [1, 2])
    else:
        draw(question, "Polygon", [[[0, 0], [9, 0], [9, 9], [0, 0]]])
    before = file_of(question).read_bytes()
    without = ask("mark", "Where?", "histology101/absent")
    assert without.state.startswith("Saved ")
    assert "Without the image" in without.state
    for button in ("clear", "undo", "save"):
        press(without, button)
    assert file_of(question).read_bytes() == before
    assert without.answer is not None
    assert isinstance(without.answer.given, Clicked | Outlined)


def test_a_notebook_of_questions_runs_in_a_grader_without_a_word_on_stderr(
    folder: Path, slide: Path
) -> None:
    tick(organ(), "b")
    draw(quiz.click("nucleus", "Click", slide), "Point", [1, 2])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sources = [
        "from theatrum import quiz",
        f"quiz.choice('organ', 'Which organ?', {ORGANS!r})",
        f"quiz.choice('organs', 'Which?', {ORGANS!r}, multiple=True)",
        "quiz.click('nucleus', 'Click', 'histology101/ihc')",
        "quiz.outline('region', 'Outline', 'histology101/ihc')",
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources]
    )
    environment = {
        name: value for name, value in os.environ.items() if "THEATRUM" not in name
    }
    NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute(env=environment)
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert [output.output_type for output in outputs] == ["execute_result"] * 4
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == before
