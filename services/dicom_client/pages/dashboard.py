"""The list of series and the page of one.

GET  /                the list; `state`, `modality`, `template`, `source`, `before`
POST /search          the list of series of a patient, whose name no address may hold
GET  /series/{id}     one series: time line, preview, findings, what can be done
GET  /static/{name}   the pages' own files
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from services.dicom_client import read_models
from services.dicom_client.errors import NoSuchThing
from services.dicom_client.pages import readings
from services.dicom_client.pages.rendering import STATIC, Here, Pages, static_file
from services.dicom_client.pages.rights import Anybody, Member, Seer, SeersForm
from services.dicom_client.read_models import Filter
from services.dicom_client.states import STATES, WORK

_GROUPS: dict[str, tuple[str, ...]] = {
    "working": WORK,
    "arriving": ("discovered", "stable"),
}
_SLOW_S = 30
"""Besides what the feed tells: figures such as how long ago something was."""
Text = Annotated[str, Query(max_length=128)]


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/", overview, methods=["GET"])
    router.add_api_route("/search", search, methods=["POST"])
    router.add_api_route("/series/{job_id}", one_series, methods=["GET"])
    router.add_api_route("/static/{name}", own_file, methods=["GET"])


def overview(
    request: Request,
    here: Here,
    member: Anybody,
    state: Text = "",
    modality: Text = "",
    template: Text = "",
    source: Text = "",
    before: float | None = None,
) -> Response:
    """Series, newest first; who may not see patients goes to the templates."""
    if not member.sees:
        return RedirectResponse(f"{here.prefix}templates", 302)
    chosen = {
        "state": state,
        "modality": modality,
        "template": template,
        "source": source,
    }
    return series_list(request, here, member, chosen, before=before)


def search(request: Request, here: Here, sent: SeersForm) -> Response:
    """Series of which patient or descriptions hold a text."""
    names = ("state", "modality", "template", "source")
    chosen = {name: sent.fields.text(name, 128) for name in names}
    return series_list(
        request,
        here,
        sent.member,
        chosen,
        text=sent.fields.text("text", 200),
        seen=sent.fields.text("seen"),
    )


def series_list(
    request: Request,
    here: Pages,
    member: Member,
    chosen: dict[str, str],
    *,
    text: str = "",
    before: float | None = None,
    seen: str = "",
    started: list[tuple[str, str]] | None = None,
) -> Response:
    """The page of the list; `started` says what came of a start of several."""
    state = chosen["state"]
    named = (state,) if state in STATES else ()
    wanted = Filter(
        states=_GROUPS.get(state, named),
        modality=chosen["modality"],
        template=chosen["template"],
        source=chosen["source"],
        text=text,
        attention=state == "attention",
        before=before,
    )
    found = read_models.listed(here.service, wanted)
    return here.live(
        request,
        member,
        "series.html",
        "series_live.html",
        follow="" if before else "*",
        every_s=0 if before else _SLOW_S,
        form="search" if text else "",
        seen=seen,
        tab="series",
        rows=found["series"],
        older=found["next"],
        counts=readings.counts(here.service, time.time()),
        facets=readings.facets(here.service),
        states=STATES,
        chosen=chosen,
        filtered=any(chosen.values()) or bool(text),
        text=text,
        first=before is None,
        templates=[one.template.name for one in here.service.keeper.templates()],
        started=started or [],
    )


def one_series(
    request: Request, here: Here, member: Seer, job_id: str, done: Text = ""
) -> Response:
    """All that is known of a series, and what can be done with it."""
    return series_page(request, here, member, job_id, done=done)


def series_page(
    request: Request,
    here: Pages,
    member: Member,
    job_id: str,
    *,
    done: str = "",
    problem: str = "",
    status: int = 200,
) -> Response:
    """The page of a series; `done` and `problem` say what came of an act."""
    service = here.service
    told = read_models.detailed(service, job_id)
    job = service.jobs.get(job_id)
    result = readings.structure_set(service, job_id)
    try:
        readings.images(service, job)
        has_images = True
    except NoSuchThing:
        has_images = False
    return here.live(
        request,
        member,
        "one.html",
        "one_live.html",
        follow=job_id,
        every_s=_SLOW_S if told["ended"] is None else 0,
        status=status,
        tab="series",
        job=told,
        facts=_facts(told["facts"]),
        has_images=has_images,
        now=time.time(),
        names=readings.structures(result),
        drawn=result.stat().st_mtime_ns if result else 0,
        key=member.key(job_id),
        templates=[one.template.name for one in service.keeper.templates()],
        done=done if done in {*told["actions"], *_DONE} else "",
        problem=problem,
    )


_DONE = {
    *("retry", "cancel", "override", "ignore", "consider", "pause", "resume"),
    *("give-up", "template", "upload", "delivery", "rated", "measured"),
}


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What the header says of patient and study, in words."""
    rows = [
        ("Patient id", "PatientID"),
        ("Sex", "PatientSex"),
        ("Study", "StudyDescription"),
        ("Series", "SeriesDescription"),
        ("Protocol", "ProtocolName"),
        ("Body part", "BodyPartExamined"),
        ("Accession number", "AccessionNumber"),
        ("Scanner", "Manufacturer"),
        ("Slice thickness", "SliceThickness"),
    ]
    return [(text, str(facts[name])) for text, name in rows if facts.get(name)]


def own_file(name: str) -> Response:
    if name not in STATIC:
        raise NoSuchThing("there is no such file")
    return static_file(name)
