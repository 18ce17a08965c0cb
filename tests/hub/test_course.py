"""The course file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub import course
from hub.course import CourseFileError

GOOD = 'id = "histo1"\ntitle = "Histology"\ncollection = "slides"\nimage = "ihc"\n'


def test_groups_and_account_follow_from_the_id(tmp_path: Path) -> None:
    read = course.read(_write(tmp_path, GOOD))
    assert read.student_group == "nbgrader-histo1"
    assert read.teacher_group == "formgrade-histo1"
    assert len(read.account) <= 32


@pytest.mark.parametrize("name", ["", "1a", "A", "a-b", "a/b", "../x", "a" * 24])
def test_an_id_that_cannot_be_a_service_is_refused(tmp_path: Path, name: str) -> None:
    file = _write(tmp_path, GOOD.replace("histo1", name))
    with pytest.raises(CourseFileError, match="id is"):
        course.read(file)


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    file = _write(tmp_path, GOOD.replace("collection", "selection"))
    with pytest.raises(CourseFileError, match="collection"):
        course.read(file)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(CourseFileError, match=r"course\.toml cannot be read"):
        course.read(_write(tmp_path, "id: histo1"))


def _write(folder: Path, text: str) -> Path:
    file = folder / "course.toml"
    file.write_text(text)
    return file
