"""What a planner does with series on the pages.

POST /series/{id}/retry | cancel | override | ignore | consider | pause | resume |
     give-up | template | upload | delivery
POST /start           several series with a template
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Request, Response

from services.dicom_client.errors import (
    BadRequest,
    DicomClientError,
    NoSuchThing,
    WrongState,
)
from services.dicom_client.intake import read_headers
from services.dicom_client.models import Job
from services.dicom_client.pages.dashboard import series_list, series_page
from services.dicom_client.pages.rendering import Here, Pages, sentence
from services.dicom_client.pages.rights import PlannersForm, Sent
from services.dicom_client.rules import choose
from services.dicom_client.transitions import Lost

_AT_ONCE = 200
"""Series that are started together."""


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/start", start, methods=["POST"])
    router.add_api_route("/series/{job_id}/{act}", change, methods=["POST"])


def change(
    request: Request, here: Here, sent: PlannersForm, job_id: str, act: str
) -> Response:
    """Do something with a series, and go to the series that came of it."""
    do = _acts(here, sent, job_id).get(act)
    if do is None:
        raise NoSuchThing("there is no such act")
    try:
        result = do()
    except (BadRequest, WrongState, Lost, NoSuchThing) as err:
        return series_page(
            request, here, sent.member, job_id, problem=sentence(err), status=409
        )
    return here.to(f"series/{result}?done={act}")


def _acts(here: Pages, sent: Sent, job_id: str) -> dict[str, Callable[[], str]]:
    """The acts by their names; each gives the id of the job to look at next."""
    actions, who = here.actions, sent.member.name
    plain = {
        "retry": actions.retry,
        "cancel": actions.cancel,
        "ignore": actions.ignore,
        "consider": actions.consider,
        "pause": actions.pause,
        "resume": actions.resume,
        "give-up": actions.give_up,
    }
    acts: dict[str, Callable[[], str]] = {
        name: partial(_plainly, do, job_id, who) for name, do in plain.items()
    }
    chosen = sent.fields.text("template", 128)
    token = sent.fields.text("token", 200)
    acts["template"] = lambda: actions.choose_template(job_id, chosen, who).job_id
    acts["override"] = lambda: _override(here, job_id, who)
    acts["upload"] = lambda: (
        actions.upload_found(job_id, token, who).job_id
        if token
        else actions.upload_again(job_id, who).job_id
    )
    target = sent.fields.text("target", 64)
    is_there = sent.fields.text("delivered") == "yes"
    acts["delivery"] = lambda: (
        actions.settle_delivery(job_id, target, who, delivered=is_there).job_id
    )
    return acts


def _plainly(do: Callable[[str, str], Job], job_id: str, who: str) -> str:
    return do(job_id, who).job_id


def _override(here: Pages, job_id: str, who: str) -> str:
    """Let a held series through, with the template that the rules choose."""
    service = here.service
    headers = read_headers(service.jobs.files_of(service.jobs.get(job_id)))
    if not headers:
        raise NoSuchThing("the images of this series are not there any more")
    choice = choose(service.keeper.rules()[1], headers[0])
    return here.actions.override(job_id, choice, who).job_id


def start(request: Request, here: Here, sent: PlannersForm) -> Response:
    """Give all the series that are ticked a template; each is told of by itself."""
    template = sent.fields.text("template", 128)
    ids = sent.fields.every("series")[:_AT_ONCE]
    told: list[tuple[str, str]] = []
    for job_id in ids:
        try:
            here.actions.choose_template(job_id, template, sent.member.name)
        except (DicomClientError, Lost) as err:
            told.append((job_id, sentence(err)))
        else:
            told.append((job_id, ""))
    if not ids:
        told.append(("", "Tick the series that are to be started first."))
    empty = dict.fromkeys(("state", "modality", "template", "source"), "")
    return series_list(request, here, sent.member, empty, started=told)
