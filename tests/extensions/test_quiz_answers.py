"""The answer file: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import json
import os
import stat
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum.quiz.answers import (
    MAX_BYTES,
    MAX_COORDINATE_PX,
    MAX_VERTICES,
    Answer,
    Chosen,
    Clicked,
    Outlined,
    SeenImage,
    answer_path,
    check_question_id,
    format_answer,
    parse_answer,
    read_answer,
    remove_answer,
    save_answer,
)
from theatrum.quiz.errors import BadQuestion, BrokenAnswer, NoAnswer, NotSaved

NOON = datetime(2026, 10, 3, 12, 2, 11, tzinfo=UTC)
SLIDE = SeenImage(id="7", name="histology101/ihc", version="1f3c")
TRIANGLE = ((10.0, 20.0), (30.0, 20.0), (30.0, 40.0))


def answer(given: Chosen | Clicked | Outlined, question: str = "q1") -> Answer:
    image = None if isinstance(given, Chosen) else SLIDE
    return Answer(question, given, image, NOON)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


coordinates = st.floats(-1e6, 1e6).map(lambda number: round(number, 2))
positions = st.tuples(coordinates, coordinates)
texts = st.text(st.characters(), min_size=1, max_size=30)
keys = st.lists(texts, min_size=1, max_size=5, unique=True)
polygons = st.lists(positions, min_size=3, max_size=8, unique=True)
answers = st.builds(
    Answer,
    question=st.just("q1"),
    given=st.one_of(
        keys.map(lambda found: Chosen(tuple(found))),
        positions.map(Clicked),
        polygons.map(lambda found: Outlined(tuple(found))),
    ),
    image=st.builds(SeenImage, id=texts, name=texts, version=texts),
    time=st.datetimes(min_value=datetime(2000, 1, 1)).map(
        lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
    ),
)


@given(answers)
def test_an_answer_comes_back_as_it_was_given(given_answer: Answer) -> None:
    assert parse_answer(format_answer(given_answer), "q1") == given_answer


def test_the_file_is_what_the_documentation_says(folder: Path) -> None:
    save_answer(answer(Outlined(TRIANGLE)))
    assert json.loads((folder / "q1.answer.json").read_text()) == {
        "schema": 1,
        "question": "q1",
        "kind": "outline",
        "image": {"id": "7", "name": "histology101/ihc", "version": "1f3c"},
        "answer": {"polygon": [[10.0, 20.0], [30.0, 20.0], [30.0, 40.0]]},
        "time": "2026-10-03T12:02:11+00:00",
    }


def test_saving_leaves_one_file_that_the_umask_allows_others_to_read(
    folder: Path,
) -> None:
    before = os.umask(0o022)
    try:
        for key in "abc":
            save_answer(answer(Chosen((key,))))
    finally:
        os.umask(before)
    (file,) = folder.iterdir()
    assert file.name == "q1.answer.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert read_answer("q1").given == Chosen(("c",))


def test_the_folder_is_the_current_one_at_the_time_of_the_call(folder: Path) -> None:
    (folder / "other").mkdir()
    save_answer(answer(Chosen(("a",))))
    with chdir(folder / "other"), pytest.raises(NoAnswer):
        read_answer("q1")


def test_a_failed_write_leaves_the_earlier_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_answer(answer(Chosen(("a",))))

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(NotSaved, match=r"^No space left on device$"):
        save_answer(answer(Chosen(("b",))))
    assert read_answer("q1").given == Chosen(("a",))
    assert [path.name for path in folder.iterdir()] == ["q1.answer.json"]


def test_a_folder_in_the_way_is_told_and_not_raised_otherwise(folder: Path) -> None:
    (folder / "q1.answer.json").mkdir()
    with pytest.raises(NotSaved, match="directory"):
        save_answer(answer(Chosen(("a",))))
    with pytest.raises(NotSaved):
        remove_answer("q1")
    with pytest.raises(BrokenAnswer):
        read_answer("q1")
    assert [path.name for path in folder.iterdir()] == ["q1.answer.json"]


def test_a_deleted_current_folder_is_told(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    with chdir(folder):
        os.chdir(gone)
        gone.rmdir()
        with pytest.raises(NoAnswer):
            read_answer("q1")
        with pytest.raises(NotSaved):
            save_answer(answer(Chosen(("a",))))
        os.chdir(folder)


def test_an_answer_that_no_reader_would_take_is_not_written(folder: Path) -> None:
    save_answer(answer(Outlined(TRIANGLE)))
    corners = tuple((float(number), 0.0) for number in range(MAX_VERTICES + 1))
    with pytest.raises(NotSaved, match=f"at most {MAX_VERTICES}"):
        save_answer(answer(Outlined(corners)))
    assert read_answer("q1").given == Outlined(TRIANGLE)


def test_the_largest_outline_fits_into_the_largest_file() -> None:
    corners = tuple(
        (-MAX_COORDINATE_PX + number + 0.01, -MAX_COORDINATE_PX + 0.01)
        for number in range(MAX_VERTICES)
    )
    assert len(format_answer(answer(Outlined(corners)))) < MAX_BYTES / 1.5


def test_removing_twice_is_no_error() -> None:
    save_answer(answer(Chosen(("a",))))
    remove_answer("q1")
    remove_answer("q1")
    with pytest.raises(NoAnswer):
        read_answer("q1")


@pytest.mark.parametrize("good", ["q1", "a" * 64, "3-tumour_edge", "_"])
def test_a_plain_id_is_taken(good: str) -> None:
    assert check_question_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", "a" * 65, "Q1", "../q1", "q 1", "q1\n", "q.1", "é", "a\0", 1, None]
)
def test_any_other_id_is_refused_with_an_example(bad: Any) -> None:
    with pytest.raises(BadQuestion, match="for example"):
        read_answer(bad)
    with pytest.raises(BadQuestion):
        save_answer(answer(Chosen(("a",)), bad))


def document(**changes: Any) -> bytes:
    plain = json.loads(format_answer(answer(Outlined(TRIANGLE))))
    return json.dumps(plain | changes).encode()


def choice_document(found: Any) -> bytes:
    return document(kind="choice", image=None, answer={"choice": found})


def point_document(found: Any) -> bytes:
    return document(kind="click", answer={"point": found})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not read as JSON"),
        (b"\xff\xfe{}", "not text"),
        (b"{" * 10, "does not read as JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 40_000, "nested too deeply"),
        (b"[]", "holds no answer"),
        (b"null", "holds no answer"),
        (b" " * (MAX_BYTES + 1), "larger than 256 KiB"),
        (b"9" * 5000, "does not read as JSON"),
        (document(schema=2), "schema 2"),
        (document(schema=True), "schema"),
        (document(schema="1"), "schema '1'"),
        (document(schema=[[]]), r"schema \(list\)"),
        (document(question="q2"), "belongs to the question 'q2'"),
        (document(question="\ud800\x1b[31m"), r"'\\ud800\\x1b\[31m'"),
        (document(kind="scribble"), "unknown kind 'scribble'"),
        (document(kind=["outline"]), "unknown kind"),
        (document(answer=[1]), "holds no answer"),
        (document(answer={"point": [1, 2]}), "holds no outline"),
        (document(answer={"polygon": [[0, 0], [1, 1]]}), "fewer than three"),
        (document(answer={"polygon": [[0, 0], [1, 1], [0, 0]]}), "fewer than three"),
        (document(answer={"polygon": [[0, 0]] * 5000}), "5000 corners"),
        (document(image=None), "which image"),
        (document(image={"id": 7}), "id is not a text"),
        (document(time="yesterday"), "'yesterday'"),
        (document(time="2026-10-03T12:02:11"), "no time zone"),
        (document(time="0001-01-01T00:00:00+23:00"), "does not read as a time"),
        (document(time=12), "not a text"),
        (choice_document([]), "names no choice"),
        (choice_document("a"), "names no choice"),
        (choice_document([1]), "not a text"),
        (choice_document(["a"] * 1000), "more than 200"),
        (choice_document(["a" * 1000]), "longer than 300"),
        (point_document([1]), "pair of numbers"),
        (point_document([1, True]), "pair of numbers"),
        (point_document(["1", "2"]), "pair of numbers"),
        (point_document([1, float("nan")]), "does not read as JSON"),
        (point_document([1, float("inf")]), "does not read as JSON"),
        (point_document([1, 10**400]), "far outside"),
        (point_document([1, -1e300]), "far outside"),
        (document().replace(b"10.0", b"1e999"), "far outside"),
    ],
)
def test_a_damaged_file_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenAnswer, match=reason) as refusal:
        parse_answer(content, "q1")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "large"])
def test_only_a_plain_file_of_bounded_size_is_read(folder: Path, kind: str) -> None:
    file = folder / "q1.answer.json"
    elsewhere = folder / "elsewhere"
    match kind:
        case "link":
            elsewhere.write_bytes(document())
            file.symlink_to(elsewhere)
        case "dangling link":
            file.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(file)
        case "large":
            with file.open("wb") as hole:
                hole.truncate(1 << 40)
    with pytest.raises(BrokenAnswer, match=r"link|plain file|larger"):
        read_answer("q1")


def test_saving_over_a_link_replaces_the_link_and_not_its_target(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.write_text("precious")
    (folder / "q1.answer.json").symlink_to(elsewhere)
    save_answer(answer(Chosen(("a",))))
    assert elsewhere.read_text() == "precious"
    assert read_answer("q1").given == Chosen(("a",))


def test_a_polygon_that_repeats_its_first_corner_is_the_same_polygon() -> None:
    closed = [list(corner) for corner in (*TRIANGLE, TRIANGLE[0])]
    read = parse_answer(document(answer={"polygon": closed}), "q1")
    assert read.given == Outlined(TRIANGLE)


def test_the_time_of_another_zone_is_the_same_moment() -> None:
    read = parse_answer(document(time="2026-10-03T14:02:11+02:00"), "q1")
    assert read.time == NOON
    assert read.time.utcoffset() == timedelta(0)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_raise_anything_but_a_refusal(content: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        parse_answer(content, "q1")


def test_a_teachers_try_in_the_source_is_kept_apart_from_what_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source" / "slide1"
    source.mkdir(parents=True)
    monkeypatch.setenv("THEATRUM_COURSE_DIR", str(tmp_path))
    monkeypatch.chdir(source)
    remove_answer("q1")
    answer = Answer("q1", Chosen(("a",)), None, NOON)
    save_answer(answer)
    assert read_answer("q1").given == answer.given
    assert [path.name for path in source.iterdir()] == [".tries"]


def test_a_grader_reads_the_students_file_and_not_the_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graded = tmp_path / "autograded" / "student1" / "slide1"
    graded.mkdir(parents=True)
    monkeypatch.setenv("THEATRUM_COURSE_DIR", str(tmp_path))
    monkeypatch.chdir(graded)
    assert answer_path("q1") == Path("q1.answer.json")
