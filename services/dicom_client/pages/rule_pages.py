"""Rules: what chooses a template for a series, and what they say of one.

GET  /rules             the rules in force, or a version; the editor
POST /rules             `act`: check, try (dry run on a series) or save
POST /rules/import      rules of DRAW's clients (v1, v2) or of ours, into the editor
GET  /rules.json        for export
GET  /rules/tags        elements of the DICOM dictionary, as help
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse
from pydicom._dicom_dict import DicomDictionary

from services.dicom_client.api_setup import told_of
from services.dicom_client.errors import BadRequest, DicomClientError, NoSuchThing
from services.dicom_client.intake import read_headers
from services.dicom_client.pages import readings
from services.dicom_client.pages.rendering import Here, Pages, download, sentence
from services.dicom_client.pages.rights import Chooser, Editor, EditorsForm, Member
from services.dicom_client.rules import (
    BadRule,
    Rule,
    choose,
    rules_from_json,
    rules_from_v1,
    rules_from_v2,
    rules_to_json,
)
from services.dicom_client.rules.conditions import OPERATORS, ORDERED, PRESENCE, TEXTUAL
from services.dicom_client.rules.values import kind_of

_TEXT_BYTES = 4 << 20
_MOST_TAGS = 20
_PRESENT = ", ".join(PRESENCE)
_EQUAL = "eq, ne, in"


@dataclass(frozen=True)
class Help:
    """What may be written for elements of some value representations (PS3.5, 6.2)."""

    kind: str
    representations: str
    operators: str
    form: str
    example: str


HELP: dict[str, Help] = {
    "number": Help(
        "Numbers",
        "DS, IS, FL, FD, SL, SS, UL, US, SV, UV",
        f"{_EQUAL}, {', '.join(ORDERED)}, {_PRESENT}",
        "a number; between takes a list of two",
        '{"tag": "SliceThickness", "op": "between", "value": [1, 3]}',
    ),
    "date": Help(
        "Dates",
        "DA",
        f"{_EQUAL}, {', '.join(ORDERED)}, {_PRESENT}",
        "YYYYMMDD, as 20240131",
        '{"tag": "StudyDate", "op": "ge", "value": "20240131"}',
    ),
    "time": Help(
        "Times",
        "TM",
        f"{_EQUAL}, {', '.join(ORDERED)}, {_PRESENT}",
        "HHMMSS, as 134500; what is left out is zero",
        '{"tag": "StudyTime", "op": "lt", "value": "12"}',
    ),
    "moment": Help(
        "Dates with times",
        "DT",
        f"{_EQUAL}, {', '.join(ORDERED)}, {_PRESENT}",
        "YYYYMMDDHHMMSS with an offset if there is one, as 20240131134500+0100",
        '{"tag": "AcquisitionDateTime", "op": "gt", "value": "20240131"}',
    ),
    "age": Help(
        "Ages",
        "AS",
        f"{_EQUAL}, {', '.join(ORDERED)}, {_PRESENT}",
        "three digits and D, W, M or Y, as 018Y; compared in days",
        '{"tag": "PatientAge", "op": "ge", "value": "018Y"}',
    ),
    "text": Help(
        "Text",
        "CS, LO, SH, ST, LT, UT, PN, AE, UI and the rest",
        f"{_EQUAL}, {', '.join(TEXTUAL)}; each also as ieq, icontains, ... for either "
        f"case; {_PRESENT}",
        "a text of at most 256 characters; in takes a list",
        '{"tag": "ProtocolName", "op": "icontains", "value": "dibh"}',
    ),
}


@dataclass(frozen=True)
class Element:
    """One element of the dictionary, for the search."""

    tag: str
    keyword: str
    name: str
    vr: str
    help: Help


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/rules", rules, methods=["GET"])
    router.add_api_route("/rules", act, methods=["POST"])
    router.add_api_route("/rules/import", take, methods=["POST"])
    router.add_api_route("/rules/tags", tags, methods=["GET"])
    router.add_api_route("/rules.json", as_json, methods=["GET"])


def rules(
    here: Here,
    member: Chooser,
    version: Annotated[int | None, Query(ge=1, lt=1 << 31)] = None,
) -> Response:
    """The rules in force, or an earlier version to take up again."""
    number, found = here.service.keeper.rules(version)
    if version is not None and number != version:
        raise NoSuchThing("there is no such version of the rules")
    return rule_page(here, member, rules_to_json(found), number=number)


def rule_page(
    here: Pages,
    member: Member,
    text: str,
    *,
    number: int | None = None,
    problem: str = "",
    said: str = "",
    tried: str = "",
    trial: dict[str, Any] | None = None,  # Any: JSON of `told_of`
) -> Response:
    """The editor with a text, and what came of it."""
    service = here.service
    newest, _ = service.keeper.rules()
    try:
        shown = rules_from_json(text)
    except BadRule:
        # The text is shown as it is; the problem says what is wrong with it.
        shown = []
    return here.page(
        member,
        "rules.html",
        status=422 if problem else 200,
        tab="rules",
        text=text,
        rules=shown,
        number=number,
        newest=newest,
        versions=service.keeper.rule_versions(),
        templates={one.template.name for one in service.keeper.templates()},
        series=_series(here, member),
        tried=tried,
        trial=trial,
        problem=problem,
        said=said,
        help=HELP.values(),
        operators=OPERATORS,
    )


def _series(here: Pages, member: Member) -> list[tuple[str, str]]:
    """Series to try rules on; names of patients for those who may see them."""
    told = []
    for one in readings.picks(here.service):
        text = f"{one.modality} of {one.instances} images, {one.job_id}"
        if member.sees:
            facts = here.service.jobs.facts(here.service.jobs.get(one.job_id))
            name = facts.get("PatientName", "").replace("^", " ")
            text = f"{name}: {facts.get('SeriesDescription') or one.modality}, {text}"
        told.append((one.job_id, text))
    return told


def act(here: Here, sent: EditorsForm) -> Response:
    """Check a text, try it on a series, or put it into force."""
    text = sent.fields.text("rules", _TEXT_BYTES)
    series = sent.fields.text("series", 16)
    try:
        found = rules_from_json(text)
        _check_templates(here, found)
        match sent.fields.text("act"):
            case "save":
                number = here.service.keeper.put_rules(found, sent.member.name)
                return rule_page(
                    here,
                    sent.member,
                    rules_to_json(found),
                    number=number,
                    said=f"Version {number} is in force now.",
                )
            case "try":
                trial = _trial(here, sent.member, found, series)
                return rule_page(here, sent.member, text, tried=series, trial=trial)
    except (BadRule, BadRequest, NoSuchThing) as err:
        return rule_page(here, sent.member, text, problem=sentence(err), tried=series)
    said = f"These {len(found)} rules are right. They are not in force yet."
    return rule_page(here, sent.member, rules_to_json(found), said=said)


def _check_templates(here: Pages, found: list[Rule]) -> None:
    known = {one.template.name for one in here.service.keeper.templates()}
    for rule in found:
        if rule.enabled and rule.template not in known:
            raise BadRule(
                f"rule {rule.name!r}: there is no template {rule.template!r}; make it "
                "first, or name one of those there are"
            )


def _trial(
    here: Pages, member: Member, found: list[Rule], series: str
) -> dict[str, Any]:  # Any: JSON
    """What each rule says; values are for those who may see patients."""
    if not series:
        raise BadRequest("choose a series to try the rules on")
    jobs = here.service.jobs
    headers = read_headers(jobs.files_of(jobs.get(series)))
    if not headers:
        raise NoSuchThing("the images of this series are not there any more")
    return told_of(choose(found, headers[0]), values=member.sees)


def take(here: Here, sent: EditorsForm) -> Response:
    """Rules from elsewhere into the editor; nothing comes into force by that."""
    fields = sent.fields
    content = fields.files.get("file") or fields.text("json", _TEXT_BYTES).encode()
    readers = {"v1": rules_from_v1, "v2": rules_from_v2}
    try:
        try:
            said = json.loads(content)
        except ValueError as err:
            raise BadRule(f"this is no JSON: {err}") from err
        reader = readers.get(fields.text("kind"))
        found = reader(said) if reader else rules_from_json(content)
    except (BadRule, DicomClientError) as err:
        number, kept = here.service.keeper.rules()
        return rule_page(
            here,
            sent.member,
            rules_to_json(kept),
            number=number,
            problem=f"Not imported. {sentence(err)}",
        )
    return rule_page(
        here,
        sent.member,
        rules_to_json(found),
        said=f"{len(found)} rules were read. Look at them, try them, then put them "
        "into force: that replaces those which are.",
    )


def as_json(
    here: Here,
    _member: Chooser,
    version: Annotated[int | None, Query(ge=1, lt=1 << 31)] = None,
) -> Response:
    """Rules as a file."""
    number, found = here.service.keeper.rules(version)
    return download(rules_to_json(found), "application/json", f"rules-{number}.json")


def tags(
    here: Here, member: Editor, q: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Elements whose keyword, name or number holds the words."""
    words = q.casefold().split()
    found = [
        one
        for one in _dictionary()
        if words
        and all(
            word in f"{one.keyword} {one.name} {one.tag}".casefold() for word in words
        )
    ]
    found.sort(key=lambda one: (len(one.keyword), one.keyword))
    text = here.text(
        "rule_tags.html", member, found=found[:_MOST_TAGS], more=len(found) > _MOST_TAGS
    )
    return HTMLResponse(text)


@cache
def _dictionary() -> tuple[Element, ...]:
    """PS3.6, without what was retired."""
    return tuple(
        Element(
            f"({tag >> 16:04X},{tag & 0xFFFF:04X})",
            keyword,
            name,
            vr,
            HELP[kind_of(vr, "type")],
        )
        for tag, (vr, _vm, name, retired, keyword) in DicomDictionary.items()
        if keyword and not retired
    )
