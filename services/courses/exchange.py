"""Where assignments travel: released, handed in, given back.

One folder a course below the exchange's root::

    <course>/released/<assignment>/...
    <course>/submitted/<assignment>/<student>/<timestamp>/...
    <course>/feedback/<assignment>/<student>/<timestamp>/...

Packages come and go as zip archives. A package becomes visible by one rename, so a
process that dies half-way leaves nothing that a reader could see. Who a submission
is from, and when it came, is decided here and not by what is sent.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from services.courses.errors import (
    BadNameError,
    NotFoundError,
    ReleasedAlreadyError,
)
from services.courses.packages import pack, remove, unpack

# nbgrader writes this, and reads it back with dateutil.
TIMESTAMP = "%Y-%m-%d %H:%M:%S.%f UTC"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC")


@dataclass(frozen=True)
class Submission:
    """One package that a student handed in."""

    course: str
    assignment: str
    student: str
    timestamp: str
    notebooks: tuple[str, ...]
    feedback: dict[str, str]
    """SHA-256 of each feedback page, by the notebook's name without ending."""


@dataclass(frozen=True)
class Exchange:
    """The folder of all courses' packages."""

    root: Path

    def release(
        self, course: str, assignment: str, package: bytes, *, force: bool = False
    ) -> None:
        """Make an assignment available to the course's students."""
        target = self._released(course, assignment)
        if target.exists() and not force:
            raise ReleasedAlreadyError(f"{assignment} has been released already")
        unpack(package, target)

    def withdraw(self, course: str, assignment: str) -> None:
        """Make a released assignment unavailable; what was handed in stays."""
        target = self._released(course, assignment)
        if not target.is_dir():
            raise NotFoundError(f"no assignment {assignment} is released")
        remove(target)

    def released(self, course: str) -> dict[str, tuple[str, ...]]:
        """The released assignments and the names of their notebooks."""
        folder = self.root / _name(course) / "released"
        return {path.name: _notebooks(path) for path in _folders(folder)}

    def assignment(self, course: str, assignment: str) -> bytes:
        """The released files, packed."""
        return pack(self._released(course, assignment))

    def submit(
        self, course: str, assignment: str, student: str, package: bytes
    ) -> Submission:
        """Take in a student's work; the time is now, by this machine's clock."""
        if not self._released(course, assignment).is_dir():
            raise NotFoundError(f"no assignment {assignment} is released")
        now = datetime.now(UTC).strftime(TIMESTAMP)
        target = self._one("submitted", course, assignment, student, now)
        unpack(package, target)
        return self._describe(target)

    def submissions(
        self, course: str, assignment: str | None = None, student: str | None = None
    ) -> list[Submission]:
        """What was handed in, oldest first."""
        top = self.root / _name(course) / "submitted"
        assignments = [top / _name(assignment)] if assignment else _folders(top)
        found: list[Submission] = []
        for one in assignments:
            students = [one / _name(student)] if student else _folders(one)
            for person in students:
                found.extend(self._describe(path) for path in _folders(person))
        return sorted(found, key=lambda submission: submission.timestamp)

    def submission(
        self, course: str, assignment: str, student: str, timestamp: str
    ) -> bytes:
        """The files that were handed in, packed."""
        return pack(self._one("submitted", course, assignment, student, timestamp))

    def give_feedback(
        self,
        course: str,
        assignment: str,
        student: str,
        timestamp: str,
        package: bytes,
    ) -> None:
        """Store the feedback on a submission, in place of an earlier one."""
        if not self._one("submitted", course, assignment, student, timestamp).is_dir():
            raise NotFoundError("there is no such submission")
        unpack(package, self._one("feedback", course, assignment, student, timestamp))

    def feedback(
        self, course: str, assignment: str, student: str, timestamp: str
    ) -> bytes:
        """The feedback on a submission, packed."""
        return pack(self._one("feedback", course, assignment, student, timestamp))

    def _released(self, course: str, assignment: str) -> Path:
        return self.root / _name(course) / "released" / _name(assignment)

    def _one(
        self, kind: str, course: str, assignment: str, student: str, timestamp: str
    ) -> Path:
        if not _STAMP.fullmatch(timestamp):
            raise NotFoundError(f"{timestamp!r} is not the time of a submission")
        return (
            self.root
            / _name(course)
            / kind
            / _name(assignment)
            / _name(student)
            / timestamp
        )

    def _describe(self, path: Path) -> Submission:
        student, assignment = path.parent.name, path.parent.parent.name
        course = path.parents[3].name
        back = self._one("feedback", course, assignment, student, path.name)
        return Submission(
            course=course,
            assignment=assignment,
            student=student,
            timestamp=path.name,
            notebooks=_notebooks(path),
            feedback={
                page.stem: hashlib.sha256(page.read_bytes()).hexdigest()
                for page in sorted(back.glob("*.html"))
            },
        )


def _name(name: str) -> str:
    """`name`, where it is one plain path component."""
    if not _NAME.fullmatch(name):
        raise BadNameError(f"{name[:100]!r} cannot be used as a name")
    return name


def _folders(folder: Path) -> list[Path]:
    """The visible folders in `folder`; those being written begin with a dot."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."
    )


def _notebooks(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.ipynb")))
