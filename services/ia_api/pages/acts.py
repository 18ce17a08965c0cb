"""What an administrator can do on the pages; each act is in the audit log.

POST /jobs/{id}/retry | cancel | supersede
GET  /connection, POST /connection
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from services.ia_api import audit, jobs
from services.ia_api.errors import BadInvocation, IaApiError
from services.ia_api.pages import readings
from services.ia_api.pages.connection import Trial, trial
from services.ia_api.pages.front import Here, job_page
from services.ia_api.pages.rendering import PageRoute, Pages
from services.ia_api.pages.rights import Actor, Form, Looker, Member, NoSuchPage
from services.ia_api.pages.wording import sentence
from services.ia_api.transitions import Lost

acts = APIRouter(include_in_schema=False, route_class=PageRoute)

Act = Literal["retry", "cancel", "supersede"]


@acts.post("/jobs/{job_id}/{act}")
def change(
    request: Request, here: Here, member: Actor, _form: Form, job_id: str, act: Act
) -> Response:
    """Do something with a job, and go to the job that came of it."""
    store = here.service.store
    job = store.get(job_id)
    try:
        _check(here, job_id, act)
        if act == "cancel":
            jobs.cancel(store, job_id)
            result_id = job_id
        else:
            call = jobs.retry if act == "retry" else jobs.supersede
            result_id = call(store, job_id)
    except (BadInvocation, Lost) as err:
        _note(here, member.name, act, job.app, f"refused: {type(err).__name__}", job_id)
        return job_page(
            request, here, member, job_id, problem=sentence(str(err)), status=409
        )
    outcome = "done" if result_id == job_id else f"as {result_id}"
    _note(here, member.name, act, job.app, outcome, job_id)
    done = "anew" if act == "retry" and result_id != job_id else act
    return RedirectResponse(f"{here.prefix}jobs/{result_id}?done={done}", 303)


def _check(here: Pages, job_id: str, act: Act) -> None:
    """Raise BadInvocation for what cannot be done, before half of it is."""
    store = here.service.store
    possible = readings.choices(store, store.get(job_id))
    if not getattr(possible, act):
        raise BadInvocation(
            possible.why_not or "the job is no longer in a state for that"
        )


def _note(
    here: Pages, who: str, act: str, app: str, outcome: str, job_id: str | None
) -> None:
    told = audit.line(who, act, app=app, outcome=outcome, job_id=job_id)
    audit.note(here.service.store.database, told)


@acts.get("/connection")
def connection(here: Here, member: Looker) -> Response:
    """The form of a trial call."""
    if not member.acts:
        raise NoSuchPage("there is no such page")
    return _connection(here, member, "", None)


@acts.post("/connection")
def try_connection(here: Here, member: Actor, form: Form) -> Response:
    """Call a pathology server once, with a token that is kept nowhere."""
    url = form.get("url", "").strip()[:2048]
    token = form.get("token", "").strip()
    try:
        found = trial(here.service.servers, url, token)
    except IaApiError as err:
        found = Trial(url, problem=sentence(str(err)))
    _note(here, member.name, "connection-test", "", found.outcome, None)
    return _connection(here, member, url, found)


def _connection(here: Pages, member: Member, url: str, found: Trial | None) -> Response:
    return here.page(
        member,
        "connection.html",
        tab="connection",
        origins=here.service.settings.allow_callback,
        url=url,
        trial=found,
    )
