"""What people think of contours, structure by structure.

GET  /series/{id}/review    structures in three planes, ratings, comparison
POST /series/{id}/rate      one rating of the set and one of each structure
GET  /ratings.csv           all ratings, without anything of a patient
"""

from __future__ import annotations

import csv
import io
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import select

from services.dicom_client import audit, read_models
from services.dicom_client.api_series import RatingForm
from services.dicom_client.errors import BadRequest, NoSuchThing
from services.dicom_client.models import Job, Rating
from services.dicom_client.pages import readings
from services.dicom_client.pages.rendering import Here, Pages, download
from services.dicom_client.pages.rights import Member, PlannersForm, Seer
from services.dicom_client.pages.wording import iso

MODIFICATIONS = ("none", "minor", "major", "not segmented")
KINDS = (
    *("wrong extent", "wrong borders", "missing slices", "extra slices", "islands"),
    *("holes", "wrong side", "overlaps another", "artefact", "unusual anatomy"),
    "other",
)
"""What can be wrong with a structure."""


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/series/{job_id}/review", review, methods=["GET"])
    router.add_api_route("/series/{job_id}/rate", rate, methods=["POST"])
    router.add_api_route("/ratings.csv", as_csv, methods=["GET"])


def review(
    request: Request,
    here: Here,
    member: Seer,
    job_id: str,
    roi: Annotated[int, Query(ge=-1, lt=10_000)] = -1,
) -> Response:
    """The structures to look through, and what was said of them."""
    return review_page(request, here, member, job_id, roi=roi)


def review_page(
    request: Request,
    here: Pages,
    member: Member,
    job_id: str,
    *,
    roi: int = -1,
    problem: str = "",
    status: int = 200,
) -> Response:
    told = read_models.detailed(here.service, job_id)
    result = readings.structure_set(here.service, job_id)
    names = readings.structures(result)
    if not names:
        raise NoSuchThing("this series has no contours here (any more)")
    measurement = request.app.state.measurements.newest(job_id)
    goes_on = measurement is not None and measurement.phase == "measuring"
    return here.live(
        request,
        member,
        "review.html",
        "review_live.html",
        # What other people measure is seen with the next look at the page.
        follow=job_id if goes_on else "",
        every_s=1 if goes_on else 0,
        measurement=measurement,
        status=status,
        tab="series",
        job=told,
        names=names,
        roi=roi if roi < len(names) else -1,
        drawn=result.stat().st_mtime_ns if result else 0,
        key=member.key(job_id),
        modifications=MODIFICATIONS,
        kinds=KINDS,
        problem=problem,
    )


def rate(here: Here, sent: PlannersForm, job_id: str) -> Response:
    """Keep what was said; what was left open is no rating."""
    names = readings.structures(readings.structure_set(here.service, job_id))
    forms = [_form("", sent.fields.plain(), "set")]
    forms += [
        _form(name, sent.fields.plain(), str(at)) for at, name in enumerate(names)
    ]
    said = [
        form
        for form in forms
        if form.modification
        or form.comment
        or form.score is not None
        or form.minutes is not None
    ]
    if not said:
        raise BadRequest("nothing was rated: say something of the set or a structure")
    with here.service.database.writing() as session:
        if session.get(Job, job_id) is None:
            raise NoSuchThing("there is no such series")
        for form in said:
            content = form.model_dump(exclude={"roi"})
            session.add(
                Rating(
                    job_id=job_id, who=sent.member.name, roi=form.roi, content=content
                )
            )
            audit.note(
                session, sent.member.name, "rating", job_id=job_id, after=form.roi
            )
    return here.to(f"series/{job_id}?done=rated")


def _form(roi: str, fields: dict[str, str], mark: str) -> RatingForm:
    """The fields of one structure (their names end with its mark)."""

    def number(name: str) -> str | None:
        return fields.get(f"{name}-{mark}", "").strip() or None

    try:
        return RatingForm(
            roi=roi[:64],
            score=number("score"),  # type: ignore[arg-type] # read by pydantic
            minutes=number("minutes"),  # type: ignore[arg-type]
            modification=fields.get(f"modification-{mark}", ""),
            kind=fields.get(f"kind-{mark}", ""),
            comment=fields.get(f"comment-{mark}", "").strip(),
        )
    except ValidationError as err:
        fault = err.errors()[0]
        raise BadRequest(
            f"{roi or 'the set'}, {fault['loc'][0]}: {fault['msg']}"
        ) from err


def as_csv(here: Here, member: Seer) -> Response:
    """All ratings as comma-separated values."""
    with here.service.database.reading() as session:
        rows = session.execute(
            select(Rating, Job.template_name, Job.template_digest, Job.modality)
            .join(Job, Job.job_id == Rating.job_id)
            .order_by(Rating.id)
        ).all()
    with here.service.database.writing() as session:
        audit.note(session, member.name, "ratings-export")
    fields = ("modification", "kind", "score", "minutes", "comment")
    heading = ["series", "template", "template_digest", "modality", "at", "who", "roi"]
    lines = [
        [
            *(row.Rating.job_id, row.template_name, row.template_digest[:16]),
            *(row.modality, iso(row.Rating.at), row.Rating.who, row.Rating.roi),
            *(row.Rating.content.get(name) for name in fields),
        ]
        for row in rows
    ]
    return download(table([*heading, *fields], lines), "text/csv", "ratings.csv")


def table(heading: list[str], lines: list[list[Any]]) -> str:  # Any: cells
    """Comma-separated values that no spreadsheet takes for formulas."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(heading)
    writer.writerows([cell(one) for one in line] for line in lines)
    return written.getvalue()


def cell(value: Any) -> Any:  # Any: of any column
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return f"'{value}"
    return "" if value is None else value
