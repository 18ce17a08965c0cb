"""A course: one file, from which groups, roles and services follow.

nbgrader fixes two names: the students' hub group is `nbgrader-<course>`, the
teachers' is `formgrade-<course>`, and the grading service is called as the course is.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

TAKEN = frozenset({"catalog", "courses", "tiles", "voila"})
COURSE_ID = re.compile(r"[a-z][a-z0-9_]{0,22}")


class CourseFileError(Exception):
    """A course file cannot be used; the message names the file and what to change."""


@dataclass(frozen=True)
class Course:
    """What a course file says.

    Attributes
    ----------
    id
        The course's name in addresses, groups and accounts.
    collection, image
        The catalogue's collection of the course, and its first image's name there.
    """

    id: str
    title: str
    description: str
    collection: str
    image: str
    teachers: tuple[str, ...]
    students: tuple[str, ...]

    @property
    def student_group(self) -> str:
        return f"nbgrader-{self.id}"

    @property
    def teacher_group(self) -> str:
        return f"formgrade-{self.id}"

    @property
    def account(self) -> str:
        """The system account that grades the course in accounts mode."""
        return f"grader-{self.id}"


def read(file: Path) -> Course:
    """The course that `file` describes.

    Raises
    ------
    CourseFileError
        Where the file is not TOML, or a name or list in it is missing or malformed.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        course = Course(
            id=table["id"],
            title=table["title"],
            description=table.get("description", ""),
            collection=table["collection"],
            image=table.get("image", ""),
            teachers=tuple(table.get("teachers", ())),
            students=tuple(table.get("students", ())),
        )
    except KeyError as err:
        raise CourseFileError(f"{file}: add the missing entry {err}") from err
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise CourseFileError(f"{file} cannot be read: {err}") from err
    if not isinstance(course.id, str) or not COURSE_ID.fullmatch(course.id):
        raise CourseFileError(
            f"{file}: id is {course.id!r}; use up to 23 small letters, digits and "
            "underscores, a letter first"
        )
    if course.id in TAKEN:
        raise CourseFileError(f"{file}: {course.id} is a service's name; take another")
    for key in ("teachers", "students"):
        people = table.get(key, [])
        plain = isinstance(people, list) and all(isinstance(p, str) for p in people)
        if not plain:
            raise CourseFileError(f'{file}: write {key} as a list, ["anna", "bo"]')
    return course


def installed(folder: Path) -> list[Course]:
    """The courses of an installation, by id; each has a folder in `folder`."""
    found = []
    for file in sorted(folder.glob("*/course.toml")):
        if file.parent.name.startswith("."):
            continue  # being set up
        course = read(file)
        if course.id != file.parent.name:
            raise CourseFileError(
                f"{file}: id is {course.id!r}, but the folder is called "
                f"{file.parent.name}: give both the same name"
            )
        found.append(course)
    return found
