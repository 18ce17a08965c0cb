"""nbgrader's exchange over HTTP, in place of its shared folder.

nbgrader asks for one class a verb; these run in a student's server and in a
course's grading server, and speak to the courses service with the server's own hub
token. nbgrader's shared folder needs a directory that everybody can write to, knows
people by system account, and so mixes up all who share one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.exchange import abc
from nbgrader.utils import find_all_notebooks, parse_utc
from traitlets import Bool

from services.courses.errors import BadPackageError
from services.courses.packages import pack, unpack

_TIMEOUT_S = 60.0
# Answers that a teacher gave when trying the questions never travel to students.
ANSWERS = ("*.answer.json",)

# Any: nbgrader's own loosely typed records and the JSON of the service.
Record = dict[str, Any]


class HubExchange(abc.Exchange):  # type: ignore[misc]  # nbgrader is untyped
    """What all verbs share: where the service is, and how it is asked."""

    path_includes_course = Bool(
        True, help="Whether a student's folder is course/assignment"
    ).tag(config=True)

    @property
    def course(self) -> str:
        course: str = self.coursedir.course_id
        if not course:
            self.fail("No course is named: choose one in the list of assignments.")
        return course

    @property
    def assignment(self) -> str:
        assignment: str = self.coursedir.assignment_id
        return assignment

    def ask(self, method: str, *parts: str, **more: Any) -> httpx.Response:
        """One request to the courses service; ends the verb where it is refused."""
        address = "/".join(quote(part, safe="") for part in ("courses", *parts))
        token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
        try:
            answer = httpx.request(
                method,
                f"{os.environ['THEATRUM_COURSES_URL']}/api/v1/{address}",
                headers={"Authorization": f"token {token}"},
                timeout=_TIMEOUT_S,
                # The service is on this machine: never through a proxy.
                trust_env=False,
                **more,
            )
        except (KeyError, httpx.HTTPError) as err:
            self.fail(f"The courses service cannot be reached: {type(err).__name__}")
        if not answer.is_success:
            self.fail(_why(answer))
        return answer

    def own(self) -> dict[str, str]:
        """The student whose server this is, as a query; none on a grading server."""
        student = self.coursedir.student_id
        return {} if student in {"", "*"} else {"student": student}

    def local(self, course: str, assignment: str) -> Path:
        """The student's folder of an assignment."""
        below = f"{course}/{assignment}" if self.path_includes_course else assignment
        return Path(self.assignment_dir, below).absolute()

    def init_src(self) -> None:
        """Nothing to prepare: each verb does its work in `copy_files`."""

    def init_dest(self) -> None:
        """Nothing to prepare: each verb does its work in `copy_files`."""


class HubReleaseAssignment(HubExchange, abc.ExchangeReleaseAssignment):  # type: ignore[misc]
    """Makes a generated assignment available to the students."""

    def copy_files(self) -> None:
        folder = Path(
            self.coursedir.format_path(
                self.coursedir.release_directory, ".", self.assignment
            )
        )
        if not folder.is_dir():
            self.fail(
                f"{self.assignment} has no student version yet: generate it first."
            )
        self.ask(
            "PUT",
            self.course,
            "assignments",
            self.assignment,
            params={"force": self.force},
            content=pack(folder, leave_out=[*self.coursedir.ignore, *ANSWERS]),
        )
        self.log.info("Released %s of %s", self.assignment, self.course)


class HubFetchAssignment(HubExchange, abc.ExchangeFetchAssignment):  # type: ignore[misc]
    """Brings a released assignment into the student's home; never over their work."""

    def copy_files(self) -> None:
        target = self.local(self.course, self.assignment)
        if target.exists() and not self.replace_missing_files:
            self.fail(f"You already have {self.assignment}, in {target}.")
        package = self.ask("GET", self.course, "assignments", self.assignment).content
        if not target.exists():
            unpack(package, target)
            return
        staging = target.with_name(f".{target.name}.fetched")
        unpack(package, staging)
        for path in sorted(staging.rglob("*")):
            missing = target / path.relative_to(staging)
            if path.is_file() and not missing.exists():
                missing.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, missing)
        shutil.rmtree(staging)


class HubSubmit(HubExchange, abc.ExchangeSubmit):  # type: ignore[misc]
    """Hands in the student's folder; who and when is decided by the service."""

    def copy_files(self) -> None:
        folder = self.local(self.course, self.assignment)
        if not folder.is_dir():
            self.fail(f"There is no folder {folder}: fetch the assignment first.")
        self._compare(folder)
        package = pack(folder, leave_out=self.coursedir.ignore)
        handed_in = self.ask(
            "POST",
            self.course,
            "assignments",
            self.assignment,
            "submissions",
            content=package,
        ).json()
        self.log.info("Handed in at %s", handed_in["timestamp"])

    def _compare(self, folder: Path) -> None:
        listed = self.ask("GET", self.course, "assignments").json()["assignments"]
        expected = {
            f"{notebook}.ipynb"
            for entry in listed
            if entry["name"] == self.assignment
            for notebook in entry["notebooks"]
        }
        missing = sorted(expected - set(find_all_notebooks(str(folder))))
        if missing and self.strict:
            self.fail(f"Not handed in: {', '.join(missing)} is missing.")
        if missing:
            self.log.warning("Handed in without %s", ", ".join(missing))


class HubCollect(HubExchange, abc.ExchangeCollect):  # type: ignore[misc]
    """Brings the newest submission of each student into the course's folder."""

    def copy_files(self) -> None:
        found = self.ask(
            "GET",
            self.course,
            "submissions",
            params={"assignment": self.assignment},
        ).json()["submissions"]
        wanted = self.coursedir.student_id
        people: dict[str, list[Record]] = {}
        for submission in found:
            if wanted in {"*", "", submission["student"]}:
                people.setdefault(submission["student"], []).append(submission)
        due = self._due()
        failed = []
        for student, submissions in people.items():
            try:
                self._take(_chosen(submissions, due))
            except (BadPackageError, OSError) as err:
                # One student's odd files must not keep the others from their grade.
                self.log.error("Not collected from %s: %s", student, err)
                failed.append(student)
        if failed:
            self.fail(f"Collected, but not from {', '.join(failed)}: see above.")

    def _due(self) -> datetime | None:
        if not self.before_duedate:
            return None
        with Gradebook(self.coursedir.db_url, self.course) as gradebook:
            try:
                due: datetime | None = gradebook.find_assignment(
                    self.assignment
                ).duedate
            except MissingEntry:
                return None
            return due

    def _take(self, submission: Record) -> None:
        student, stamp = submission["student"], submission["timestamp"]
        target = Path(
            self.coursedir.format_path(
                self.coursedir.submitted_directory, student, self.assignment
            )
        )
        if target.is_dir():
            had = self.coursedir.get_existing_timestamp(str(target))
            newer = had is None or parse_utc(stamp) > had
            if not (self.update and newer) and not (self.before_duedate and newer):
                self.log.info("Nothing newer to collect from %s", student)
                return
        package = self.ask(
            "GET",
            self.course,
            "assignments",
            self.assignment,
            "submissions",
            student,
            stamp,
        ).content
        target.parent.mkdir(parents=True, exist_ok=True)
        unpack(package, target, {"timestamp.txt": stamp.encode()})
        self.log.info("Collected %s of %s", self.assignment, student)


def _why(answer: httpx.Response) -> str:
    """What a refusal says; a proxy's own page says less than the service does."""
    if answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        problem = answer.json()
        return f"{problem['detail']}. {problem['title']}"
    return f"The courses service answered {answer.status_code}: try again in a minute."


def _chosen(submissions: list[Record], due: datetime | None) -> Record:
    """The newest, or the newest before the due date where there is one."""
    in_time = [
        submission
        for submission in submissions
        if due is None or parse_utc(submission["timestamp"]) <= due
    ]
    return (in_time or submissions)[-1]


class HubReleaseFeedback(HubExchange, abc.ExchangeReleaseFeedback):  # type: ignore[misc]
    """Gives each student the feedback on the submission that was graded."""

    def copy_files(self) -> None:
        left_out = set(filter(None, self.coursedir.student_id_exclude.split(",")))
        wanted = self.coursedir.student_id or "*"
        pattern = self.coursedir.format_path(
            self.coursedir.feedback_directory, "*", self.assignment
        )
        top = Path(pattern.split("*")[0])
        for folder in sorted(top.glob(f"*/{self.assignment}")):
            student = folder.parent.name
            if student in left_out or wanted not in {"*", student}:
                continue
            noted = folder / "timestamp.txt"
            if not noted.is_file():
                self.log.warning("%s did not hand in here: nothing is given", student)
                continue
            stamp = noted.read_text("utf-8").strip()
            self.ask(
                "PUT",
                self.course,
                "assignments",
                self.assignment,
                "submissions",
                student,
                stamp,
                "feedback",
                content=pack(folder, leave_out=["timestamp.txt"]),
            )
            self.log.info("Gave feedback on %s to %s", self.assignment, student)


class HubFetchFeedback(HubExchange, abc.ExchangeFetchFeedback):  # type: ignore[misc]
    """Brings the feedback on the student's own submissions home."""

    def copy_files(self) -> None:
        found = self.ask(
            "GET",
            self.course,
            "submissions",
            params={"assignment": self.assignment, **self.own()},
        ).json()["submissions"]
        for submission in found:
            if not submission["feedback"]:
                continue
            package = self.ask(
                "GET",
                self.course,
                "assignments",
                self.assignment,
                "submissions",
                submission["student"],
                submission["timestamp"],
                "feedback",
            ).content
            home = self.local(self.course, self.assignment) / "feedback"
            unpack(package, home / submission["timestamp"])


class HubList(HubExchange, abc.ExchangeList):  # type: ignore[misc]
    """Lists what is released, or what the student handed in, as nbgrader wants it."""

    def list_files(self) -> list[Record]:
        submitted = self.inbound or self.cached
        found: list[Record] = []
        for course in self._courses():
            found += self._submitted(course) if submitted else self._released(course)
        return found

    def remove_files(self) -> list[Record]:
        if self.inbound or self.cached:
            self.fail("What was handed in is kept and cannot be removed.")
        listed = self.list_files()
        for entry in listed:
            self.ask(
                "DELETE", entry["course_id"], "assignments", entry["assignment_id"]
            )
        return listed

    def copy_files(self) -> None:
        """Nothing is copied by a list."""

    def _courses(self) -> list[str]:
        if self.coursedir.course_id:
            return [self.coursedir.course_id]
        courses: list[str] = self.ask("GET").json()["courses"]
        return courses

    def _released(self, course: str) -> list[Record]:
        listed = self.ask("GET", course, "assignments").json()["assignments"]
        wanted = self.assignment
        return [
            self._released_entry(course, entry)
            for entry in listed
            if not wanted or entry["name"] == wanted
        ]

    def _released_entry(self, course: str, entry: Record) -> Record:
        folder = self.local(course, entry["name"])
        fetched = folder.is_dir()
        notebooks = (
            sorted(path.stem for path in folder.glob("*.ipynb"))
            if fetched
            else entry["notebooks"]
        )
        return {
            "course_id": course,
            "assignment_id": entry["name"],
            "status": "fetched" if fetched else "released",
            "path": str(folder),
            "notebooks": [
                {"notebook_id": name, "path": str(folder / f"{name}.ipynb")}
                for name in notebooks
            ],
        }

    def _submitted(self, course: str) -> list[Record]:
        params = {"assignment": self.assignment} if self.assignment else {}
        params |= self.own()
        found = self.ask("GET", course, "submissions", params=params).json()
        together: dict[tuple[str, str], list[Record]] = {}
        for submission in found["submissions"]:
            key = (submission["student"], submission["assignment"])
            together.setdefault(key, []).append(self._submitted_entry(submission))
        return [
            {
                "course_id": course,
                "student_id": student,
                "assignment_id": assignment,
                "status": "submitted",
                "submissions": entries,
            }
            for (student, assignment), entries in sorted(together.items())
        ]

    def _submitted_entry(self, submission: Record) -> Record:
        assignment = submission["assignment"]
        home = self.local(submission["course"], assignment)
        folder = home / "feedback" / submission["timestamp"]
        notebooks = [
            _notebook_entry(home, folder, name, submission["feedback"].get(name))
            for name in submission["notebooks"]
        ]
        local = _all(notebooks, "has_local_feedback")
        return {
            "course_id": submission["course"],
            "student_id": submission["student"],
            "assignment_id": assignment,
            "timestamp": submission["timestamp"],
            "status": "submitted",
            "path": str(home),
            "notebooks": notebooks,
            "has_local_feedback": local,
            "has_exchange_feedback": _all(notebooks, "has_exchange_feedback"),
            "feedback_updated": any(one["feedback_updated"] for one in notebooks),
            "local_feedback_path": str(folder) if local else None,
        }


def _notebook_entry(home: Path, folder: Path, name: str, digest: str | None) -> Record:
    """A handed-in notebook and its feedback; `digest` is that of the newest page."""
    page = folder / f"{name}.html"
    fetched = page.is_file()
    stale = (
        fetched
        and digest is not None
        and hashlib.sha256(page.read_bytes()).hexdigest() != digest
    )
    return {
        "notebook_id": name,
        "path": str(home / f"{name}.ipynb"),
        "has_local_feedback": fetched,
        "has_exchange_feedback": digest is not None,
        "local_feedback_path": str(page) if fetched else None,
        "feedback_updated": stale,
    }


def _all(notebooks: list[Record], key: str) -> bool:
    return bool(notebooks) and all(one[key] for one in notebooks)
