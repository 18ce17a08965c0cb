"""How well the contours agree with those of a person: an uploaded RT Structure Set.

POST /series/{id}/compare    the file is measured and not kept
POST /series/{id}/compare/cancel
GET  /overlaps.csv           all measures, without anything of a patient
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from theatrum.structures import StructureError

from services.dicom_client import audit
from services.dicom_client.errors import BadRequest, NoSuchThing, WrongState
from services.dicom_client.intake import read_headers
from services.dicom_client.measurements import SUFFIX, Measurements
from services.dicom_client.models import Job, Overlap
from services.dicom_client.pages import readings
from services.dicom_client.pages.rating import review_page, table
from services.dicom_client.pages.rendering import Here, download, sentence
from services.dicom_client.pages.rights import PlannersForm, Seer
from services.dicom_client.pages.wording import iso

_PATIENCE_S = 2.0
"""How long an answer waits for a small set."""
MEASURES = (
    *("dice", "jaccard", "hausdorff_95_mm", "hausdorff_mm", "mean_surface_mm"),
    *("surface_dice", "added_path_mm", "volume_ml", "reference_ml", "tolerance_mm"),
)


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/series/{job_id}/compare", compare, methods=["POST"])
    router.add_api_route("/series/{job_id}/compare/cancel", cancel, methods=["POST"])
    router.add_api_route("/overlaps.csv", as_csv, methods=["GET"])


def compare(request: Request, here: Here, sent: PlannersForm, job_id: str) -> Response:
    """Measure the result against the file, structure by structure.

    A small set is measured when the answer comes; of a large one the page tells how
    far it is.
    """
    service = here.service
    job = service.jobs.get(job_id)
    result = readings.structure_set(service, job_id)
    headers = read_headers(readings.images(service, job))
    if result is None or not headers:
        raise NoSuchThing("this series has no contours here (any more)")
    content = sent.fields.file("reference")
    folder = service.folders.of(job_id).path
    # It names a patient: it lies where the case does, and only while it is measured.
    handle, name = tempfile.mkstemp(dir=folder, suffix=SUFFIX)
    reference = Path(name)
    measurements: Measurements = request.app.state.measurements
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        begun = measurements.begin(job_id, sent.member.name, reference, result, headers)
    except BaseException as err:
        reference.unlink(missing_ok=True)
        if isinstance(err, WrongState):
            return review_page(
                request, here, sent.member, job_id, problem=sentence(err), status=409
            )
        raise
    try:
        begun.result(_PATIENCE_S)
    except TimeoutError:
        pass
    except (BadRequest, StructureError) as err:
        return review_page(
            request, here, sent.member, job_id, problem=sentence(err), status=422
        )
    return here.to(f"series/{job_id}/review#comparison")


def cancel(request: Request, here: Here, sent: PlannersForm, job_id: str) -> Response:
    """Call a comparison off."""
    try:
        request.app.state.measurements.cancel(job_id)
    except WrongState as err:
        return review_page(
            request, here, sent.member, job_id, problem=sentence(err), status=409
        )
    return here.to(f"series/{job_id}/review#comparison")


def as_csv(here: Here, member: Seer) -> Response:
    """All measures as comma-separated values; an infinite distance is empty."""
    with here.service.database.reading() as session:
        rows = session.execute(
            select(Overlap, Job.template_name)
            .join(Job, Job.job_id == Overlap.job_id)
            .order_by(Overlap.id)
        ).all()
    with here.service.database.writing() as session:
        audit.note(session, member.name, "comparisons-export")
    heading = ["series", "template", "at", "who", "structure", "reference", *MEASURES]
    lines = [
        [
            *(row.Overlap.job_id, row.template_name, iso(row.Overlap.at)),
            *(row.Overlap.who, one["structure"], one["reference"]),
            *(one.get(name) for name in MEASURES),
        ]
        for row in rows
        for one in row.Overlap.content
    ]
    return download(table(heading, lines), "text/csv", "overlaps.csv")
