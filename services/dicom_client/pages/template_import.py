"""Templates from elsewhere: our own JSON, and Eclipse's structure templates.

POST /templates/import     a template that was exported as JSON: a file, or pasted
GET  /templates/eclipse    the file to upload
POST /templates/eclipse    what is in it, each with the server's most similar structures
POST /templates/eclipse/make    what a person made of it
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from fastapi import APIRouter, Response

from services.dicom_client import eclipse
from services.dicom_client.errors import BadRequest, DicomClientError
from services.dicom_client.pages.rendering import Here, Pages, sentence
from services.dicom_client.pages.rights import Editor, EditorsForm, Member
from services.dicom_client.pages.template_pages import (
    Offered,
    offered,
    properties,
    put,
)
from services.dicom_client.templates import (
    INTERPRETED_TYPES,
    BadTemplate,
    GeneratedRoi,
    Model,
    RoiProperties,
    Template,
    template_from_json,
)

EMPTY, SKIP = "empty", "skip"


@dataclass(frozen=True)
class Row:
    """One structure of the file, as it is reviewed."""

    name: str
    properties: RoiProperties
    likely: tuple[Offered, ...]
    chosen: str
    """The key of a structure of the server, or `empty`, or `skip`."""


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/templates/import", take_json, methods=["POST"])
    router.add_api_route("/templates/eclipse", upload_form, methods=["GET"])
    router.add_api_route("/templates/eclipse", upload, methods=["POST"])
    router.add_api_route("/templates/eclipse/make", make, methods=["POST"])


def take_json(here: Here, sent: EditorsForm) -> Response:
    """Put an exported template into force."""
    content = sent.fields.files.get("file") or sent.fields.text("json", 4 << 20)
    try:
        try:
            said = json.loads(content)
        except ValueError as err:
            raise BadTemplate(f"this is no JSON: {err}") from err
        version = put(here, template_from_json(said), sent.member)
    except BadTemplate as err:
        return here.page(
            sent.member,
            "templates.html",
            status=422,
            tab="templates",
            templates=here.service.keeper.templates(),
            problem=sentence(err),
        )
    return here.to(f"templates/{version.digest}")


def upload_form(here: Here, member: Editor) -> Response:
    return _upload(here, member, "")


def _upload(here: Pages, member: Member, problem: str) -> Response:
    return here.page(
        member,
        "eclipse.html",
        status=422 if problem else 200,
        tab="templates",
        problem=problem,
    )


def upload(here: Here, sent: EditorsForm) -> Response:
    """Show what is in the file, to be looked through."""
    try:
        title, structures = eclipse.read(sent.fields.file("file"))
    except (BadTemplate, BadRequest) as err:
        return _upload(here, sent.member, sentence(err))
    try:
        catalogue, problem = offered(here), ""
    except DicomClientError as err:
        catalogue = []
        problem = (
            f"The server's catalogue cannot be read: {sentence(err)} Structures can "
            "only be made empty now."
        )
    by_name = {one.structure.name: one for one in reversed(catalogue)}
    rows = []
    for one in structures:
        likely = tuple(by_name[name] for name in eclipse.suggestions(one.name, by_name))
        chosen = likely[0].key if likely else EMPTY
        rows.append(Row(one.name, one.properties, likely, chosen))
    return _review(here, sent.member, title, rows, catalogue, problem)


def _review(
    here: Pages,
    member: Member,
    title: str,
    rows: list[Row],
    catalogue: list[Offered],
    problem: str,
) -> Response:
    return here.page(
        member,
        "eclipse_review.html",
        tab="templates",
        title=title,
        rows=rows,
        catalogue=catalogue,
        types=INTERPRETED_TYPES,
        empty=EMPTY,
        skip=SKIP,
        problem=problem,
    )


def make(here: Here, sent: EditorsForm) -> Response:
    """Make a template of what was reviewed."""
    fields = sent.fields
    marks = fields.every("row")
    wanted = {mark: fields.text(f"source-{mark}") for mark in marks}
    needed = set(wanted.values()) - {EMPTY, SKIP}
    catalogue = {one.key: one for one in offered(here)} if needed else {}
    rows = [
        Row(
            fields.text(f"name-{mark}", 64),
            replace(properties(fields, mark), label=fields.text(f"label-{mark}", 64)),
            (catalogue[wanted[mark]],) if wanted[mark] in catalogue else (),
            wanted[mark],
        )
        for mark in marks
    ]
    try:
        version = put(here, _template(fields.text("name", 128), rows), sent.member)
    except BadTemplate as err:
        listed = list(catalogue.values()) or _catalogue(here)
        return _review(
            here, sent.member, fields.text("name", 128), rows, listed, sentence(err)
        )
    return here.to(f"templates/{version.digest}")


def _catalogue(here: Pages) -> list[Offered]:
    try:
        return offered(here)
    except DicomClientError:
        # The page says what is wrong with the template; the rest can be done later.
        return []


def _template(name: str, rows: list[Row]) -> Template:
    models: dict[int, Model] = {}
    made = []
    for row in rows:
        if row.chosen == SKIP:
            continue
        if row.chosen == EMPTY:
            label = row.properties.label or row.name
            made.append(GeneratedRoi(label, replace(row.properties, label=None)))
            continue
        if not row.likely:
            raise BadTemplate(f"{row.name}: choose a structure of the server again")
        source = row.likely[0]
        number = source.model.model_id
        model = models.get(number, replace(source.model, structures=()))
        structure = replace(source.structure, properties=row.properties)
        models[number] = replace(model, structures=(*model.structures, structure))
    return Template(name, tuple(models.values()), tuple(made), "From Eclipse")
