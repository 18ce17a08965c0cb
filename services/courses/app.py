"""The exchange of assignments over HTTP.

Students see what is released in their courses, hand in, and read the feedback on
their own submissions. Teachers, and the course's grading server, see all of their
course. Who is asking comes from the hub's token, never from what is sent.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from hub import pages, problems
from hub.home import Home
from hub.settings import Settings
from hub.signin import Asker, Person, SignIn
from services.courses.errors import STATUS, BadPackageError, NotFoundError
from services.courses.exchange import Exchange
from services.courses.packages import PACKAGE_BYTES, recover


def teaches(person: Person, course: str) -> bool:
    """Whether the asker may see all of a course: a teacher, or its grading server."""
    if person.kind == "service":
        return person.name == course
    return f"formgrade-{course}" in person.groups


def attends(person: Person, course: str) -> bool:
    """Whether the asker may see what is released in a course."""
    return teaches(person, course) or f"nbgrader-{course}" in person.groups


def courses_of(person: Person) -> list[str]:
    """The courses that the asker attends or teaches."""
    if person.kind == "service":
        return [person.name]
    kinds = ("nbgrader-", "formgrade-")
    names = (group.partition("-") for group in person.groups if group.startswith(kinds))
    return sorted({course for _, _, course in names})


def make_app(settings: Settings) -> FastAPI:
    """The courses service's application."""
    prefix = f"{settings.base_url}services/courses"
    app = FastAPI(
        title="Theatrum courses",
        version="1",
        openapi_url=f"{prefix}/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    root = Home(settings.home).exchange
    recover(root)
    app.state.exchange = Exchange(root)
    pages.install_headers(app)
    problems.install(app, STATUS)
    SignIn().install(app)
    app.include_router(api, prefix=f"{prefix}/api/v1/courses")
    app.add_api_route(f"{prefix}/health", health, include_in_schema=False)
    return app


def health() -> dict[str, str]:
    """That the service is up."""
    return {"status": "ok"}


def _exchange(request: Request) -> Exchange:
    exchange: Exchange = request.app.state.exchange
    return exchange


async def _package(request: Request) -> bytes:
    """The body of the request, refused while it comes where it is too large."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > PACKAGE_BYTES:
            raise BadPackageError(
                f"a package may hold at most {PACKAGE_BYTES // 1_000_000} MB"
            )
    return bytes(parts)


def _zip(content: bytes) -> Response:
    return Response(content, media_type="application/zip")


def _check(asker: Person, course: str, student: str | None = None) -> None:
    """Refuse who may see neither all of the course nor this student's part of it."""
    own = attends(asker, course) and student in {None, asker.name}
    if not own and not teaches(asker, course):
        raise NotFoundError("there is nothing by these names that you may see")


def _check_teacher(asker: Person, course: str) -> None:
    if not teaches(asker, course):
        raise NotFoundError("there is nothing by these names that you may see")


Packages = Annotated[Exchange, Depends(_exchange)]
Package = Annotated[bytes, Depends(_package)]

api = APIRouter()
_ONE = "/{course}/assignments/{assignment}"
_SUBMISSION = f"{_ONE}/submissions/{{student}}/{{timestamp}}"


@api.get("")
def list_courses(asker: Asker) -> dict[str, list[str]]:
    """The asker's courses."""
    return {"courses": courses_of(asker)}


@api.get("/{course}/assignments")
def list_assignments(
    packages: Packages, asker: Asker, course: str
) -> dict[str, list[dict[str, Any]]]:
    """What is released in a course."""
    _check(asker, course)
    return {
        "assignments": [
            {"name": name, "notebooks": notebooks}
            for name, notebooks in packages.released(course).items()
        ]
    }


@api.get(_ONE)
def fetch(packages: Packages, asker: Asker, course: str, assignment: str) -> Response:
    """The files of a released assignment."""
    _check(asker, course)
    return _zip(packages.assignment(course, assignment))


@api.put(_ONE, status_code=204)
def release(
    packages: Packages,
    asker: Asker,
    package: Package,
    course: str,
    assignment: str,
    *,
    force: bool = False,
) -> None:
    """Make an assignment available to the students."""
    _check_teacher(asker, course)
    packages.release(course, assignment, package, force=force)


@api.delete(_ONE, status_code=204)
def withdraw(packages: Packages, asker: Asker, course: str, assignment: str) -> None:
    """Make a released assignment unavailable."""
    _check_teacher(asker, course)
    packages.withdraw(course, assignment)


@api.post(f"{_ONE}/submissions", status_code=201)
def submit(
    packages: Packages, asker: Asker, package: Package, course: str, assignment: str
) -> dict[str, Any]:
    """Hand in; who and when are decided here."""
    _check(asker, course)
    if asker.kind != "user":
        raise NotFoundError("only a person hands in")
    return asdict(packages.submit(course, assignment, asker.name, package))


@api.get("/{course}/submissions")
def list_submissions(
    packages: Packages,
    asker: Asker,
    course: str,
    assignment: str | None = None,
    student: str | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """What was handed in: all of it for teachers, their own for students."""
    if not teaches(asker, course):
        student = student or asker.name
    _check(asker, course, student)
    found = packages.submissions(course, assignment, student)
    return {"submissions": [asdict(submission) for submission in found]}


@api.get(_SUBMISSION)
def collect(
    packages: Packages,
    asker: Asker,
    course: str,
    assignment: str,
    student: str,
    timestamp: str,
) -> Response:
    """The files that were handed in."""
    _check(asker, course, student)
    return _zip(packages.submission(course, assignment, student, timestamp))


@api.get(f"{_SUBMISSION}/feedback")
def fetch_feedback(
    packages: Packages,
    asker: Asker,
    course: str,
    assignment: str,
    student: str,
    timestamp: str,
) -> Response:
    """The feedback on a submission."""
    _check(asker, course, student)
    return _zip(packages.feedback(course, assignment, student, timestamp))


@api.put(f"{_SUBMISSION}/feedback", status_code=204)
def give_feedback(
    packages: Packages,
    asker: Asker,
    package: Package,
    course: str,
    assignment: str,
    student: str,
    timestamp: str,
) -> None:
    """Give feedback on a submission, in place of an earlier one."""
    _check_teacher(asker, course)
    packages.give_feedback(course, assignment, student, timestamp, package)
