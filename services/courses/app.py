"""The exchange of assignments over HTTP.

Students see what is released in their courses, hand in, and read the feedback on
their own submissions. Teachers, and the course's grading server, see all of their
course. Who is asking comes from the hub's token, never from what is sent.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response

from hub import pages, problems
from hub.home import Home
from hub.settings import Settings
from hub.signin import Person, SignIn
from services.courses.errors import STATUS, BadPackageError, NotFoundError
from services.courses.exchange import Exchange
from services.courses.packages import PACKAGE_BYTES


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
    prefix = f"{settings.base_url}services/courses/"
    app = FastAPI(
        title="Theatrum courses",
        version="1",
        openapi_url=f"{prefix}api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    pages.install_headers(app)
    problems.install(app, STATUS)
    sign_in = SignIn()
    exchange = Exchange(Home(settings.home).exchange)
    _add_student_routes(app, f"{prefix}api/v1/courses", exchange, sign_in)
    _add_teacher_routes(app, f"{prefix}api/v1/courses/{{course}}", exchange, sign_in)

    @app.get(f"{prefix}health", include_in_schema=False)
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


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


def _add_student_routes(
    app: FastAPI, api: str, exchange: Exchange, sign_in: SignIn
) -> None:
    Asker = Annotated[Person, Depends(sign_in.api)]  # noqa: N806 (a type)
    Package = Annotated[bytes, Depends(_package)]  # noqa: N806
    one = f"{api}/{{course}}/assignments/{{assignment}}"

    def check(asker: Person, course: str, student: str | None = None) -> None:
        own = attends(asker, course) and student in {None, asker.name}
        if not own and not teaches(asker, course):
            raise NotFoundError("there is nothing by these names that you may see")

    @app.get(api)
    def list_courses(asker: Asker) -> dict[str, list[str]]:
        return {"courses": courses_of(asker)}

    @app.get(f"{api}/{{course}}/assignments")
    def list_assignments(asker: Asker, course: str) -> dict[str, Any]:
        check(asker, course)
        released = exchange.released(course)
        return {
            "assignments": [
                {"name": name, "notebooks": notebooks}
                for name, notebooks in released.items()
            ]
        }

    @app.get(one)
    def fetch(asker: Asker, course: str, assignment: str) -> Response:
        check(asker, course)
        return _zip(exchange.assignment(course, assignment))

    @app.post(f"{one}/submissions", status_code=201)
    def submit(
        asker: Asker, package: Package, course: str, assignment: str
    ) -> dict[str, Any]:
        check(asker, course)
        if asker.kind != "user":
            raise NotFoundError("only a person hands in")
        return asdict(exchange.submit(course, assignment, asker.name, package))

    @app.get(f"{api}/{{course}}/submissions")
    def list_submissions(
        asker: Asker,
        course: str,
        assignment: str | None = None,
        student: str | None = None,
    ) -> dict[str, Any]:
        check(asker, course, student or asker.name)
        if not teaches(asker, course):
            student = asker.name
        found = exchange.submissions(course, assignment, student)
        return {"submissions": [asdict(submission) for submission in found]}

    @app.get(f"{one}/submissions/{{student}}/{{timestamp}}")
    def collect(
        asker: Asker, course: str, assignment: str, student: str, timestamp: str
    ) -> Response:
        check(asker, course, student)
        return _zip(exchange.submission(course, assignment, student, timestamp))

    @app.get(f"{one}/submissions/{{student}}/{{timestamp}}/feedback")
    def fetch_feedback(
        asker: Asker, course: str, assignment: str, student: str, timestamp: str
    ) -> Response:
        check(asker, course, student)
        return _zip(exchange.feedback(course, assignment, student, timestamp))


def _add_teacher_routes(
    app: FastAPI, api: str, exchange: Exchange, sign_in: SignIn
) -> None:
    Asker = Annotated[Person, Depends(sign_in.api)]  # noqa: N806 (a type)
    Package = Annotated[bytes, Depends(_package)]  # noqa: N806
    one = f"{api}/assignments/{{assignment}}"

    def check(asker: Person, course: str) -> None:
        if not teaches(asker, course):
            raise NotFoundError("there is nothing by these names that you may see")

    @app.put(one, status_code=204)
    def release(
        asker: Asker,
        package: Package,
        course: str,
        assignment: str,
        *,
        force: bool = False,
    ) -> None:
        check(asker, course)
        exchange.release(course, assignment, package, force=force)

    @app.delete(one, status_code=204)
    def withdraw(asker: Asker, course: str, assignment: str) -> None:
        check(asker, course)
        exchange.withdraw(course, assignment)

    @app.put(f"{one}/submissions/{{student}}/{{timestamp}}/feedback", status_code=204)
    def give_feedback(
        asker: Asker,
        package: Package,
        course: str,
        assignment: str,
        student: str,
        timestamp: str,
    ) -> None:
        check(asker, course)
        exchange.give_feedback(course, assignment, student, timestamp, package)
