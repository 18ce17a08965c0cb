"""The pages to look at, below the service's own address.

/                 apps with their addresses, queue, workers, disk
/jobs             the list of jobs; `state`, `app`, `since`, `before`, `after`
/jobs/{id}        one job: history, attempts, steps, what can be done
/throughput       jobs per hour and how long they ran; `app`, `hours`
/audit            who asked for what; /audit.csv the same as a table
/settings         what is chosen
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from services.ia_api import audit, jobs
from services.ia_api.app import app_url
from services.ia_api.apps import App
from services.ia_api.handlers import Service
from services.ia_api.jobs import Wanted
from services.ia_api.models import Audit, Job
from services.ia_api.pages import charts, readings, wording
from services.ia_api.pages.chosen import chosen, shown
from services.ia_api.pages.readings import Cursor, Since, Sought
from services.ia_api.pages.rendering import STATIC, PageRoute, Pages
from services.ia_api.pages.rights import Looker, Member, NoSuchPage
from services.ia_api.states import ACTIVE, ENDED, STATES, State

front = APIRouter(include_in_schema=False, route_class=PageRoute)

_GROUPS: dict[str, tuple[State, ...]] = {
    "active": tuple(one for one in STATES if one in ACTIVE),
    "ended": tuple(one for one in STATES if one in ENDED),
}
Which = Literal[
    "",
    "active",
    "ended",
    "received",
    "queued",
    "running",
    "retry_wait",
    "waiting_auth",
    "succeeded",
    "cancelled",
    "superseded",
    "deleted_by_user",
    "dead",
]
Text = Annotated[str, Query(max_length=128)]


def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


Here = Annotated[Pages, Depends(_pages)]


@front.get("/")
def overview(request: Request, here: Here, member: Looker) -> Response:
    """What there is and how it is doing."""
    service = here.service
    return here.live(
        request,
        member,
        "overview.html",
        "overview_live.html",
        every_s=5,
        tab="overview",
        apps=[(app, _shown_url(service, app, member)) for app in service.apps.values()],
        depths=readings.depths(service.store),
        figures=jobs.figures(service.store),
        workers=jobs.workers(service.store),
        failed=jobs.count(
            service.store,
            Wanted(states=("dead",), since=readings.moment("day")),
        ),
        settings=service.settings,
        alive_after=_alive_after(service),
    )


def _shown_url(service: Service, app: App, member: Member) -> str:
    """The address to paste; its secret segment is for those who register apps."""
    url = app_url(service, app)
    secret = service.settings.path_secret.get_secret_value()
    return url if member.acts or not secret else url.replace(secret, "…")


def _alive_after(service: Service) -> float:
    """A heartbeat later than this is of a worker that lives."""
    return time.time() - 2 * service.settings.lease_s


@front.get("/jobs")
def job_list(
    request: Request,
    here: Here,
    member: Looker,
    state: Which = "",
    app: Text = "",
    since: Since = "",
    before: Text = "",
    after: Text = "",
) -> Response:
    """Jobs, newest first, a page at a time."""
    store = here.service.store
    states = _GROUPS.get(state) or ((state,) if state else ())
    wanted = Wanted(
        states=states,  # type: ignore[arg-type]
        app=app or None,
        since=readings.moment(since),
    )
    found = readings.listing(
        store,
        wanted,
        before=Cursor.read(before) if before else None,
        after=Cursor.read(after) if after else None,
    )
    return here.live(
        request,
        member,
        "jobs.html",
        "jobs_live.html",
        # Only the newest page changes under the reader's eyes.
        every_s=None if before or after else 3,
        tab="jobs",
        listing=found,
        count=jobs.count(store, wanted),
        chosen={"state": state, "app": app, "since": since},
        states=STATES,
        apps=here.service.apps,
    )


@front.get("/jobs/{job_id}")
def one_job(
    request: Request, here: Here, member: Looker, job_id: str, done: Text = ""
) -> Response:
    """All that is known of a job, and what can be done with it."""
    return job_page(request, here, member, job_id, done=done)


def job_page(
    request: Request,
    here: Pages,
    member: Member,
    job_id: str,
    *,
    done: str = "",
    problem: str = "",
    status: int = 200,
) -> Response:
    """The page of a job; `done` and `problem` say what came of an act."""
    store = here.service.store
    job = store.get(job_id)
    row = jobs.one(store, job_id)
    history = jobs.events(store, job_id)
    app = here.service.apps.get(job.app)
    moves = job.state in ACTIVE or job.closed is None
    return here.live(
        request,
        member,
        "job.html",
        "job_live.html",
        every_s=2 if moves else None,
        status=status,
        tab="jobs",
        job=row,
        closed=job.closed,
        history=history,
        steps=readings.steps(history),
        attempts=readings.attempts(history),
        choices=readings.choices(store, job),
        siblings=readings.siblings(store, job),
        most_attempts=store.settings.attempts,
        app=app,
        asked=_asked(job),
        parameters=_parameters(app),
        slide_id=_slide_id(job, app, member),
        api_version=job.api_version,
        done=done,
        problem=problem,
    )


def _asked(job: Job) -> list[tuple[str, str]]:
    """What the request says, in numbers: marks of a slide are shown on the slide."""
    given = job.input_json or {}
    kind = str(given.get("type", ""))
    found = [("Input", wording.INPUTS.get(kind, kind) or "–")]
    content = given.get("content")
    if isinstance(content, dict):
        polygons = content.get("polygons")
        if isinstance(polygons, list):
            found.append(("Areas", str(len(polygons))))
        polygon = content.get("polygon")
        if isinstance(polygon, dict) and isinstance(polygon.get("points"), list):
            found.append(("Points of the polygon", str(len(polygon["points"]))))
    return found


def _parameters(app: App | None) -> list[tuple[str, str]]:
    """The parameters of the app's node: those of the settings, else the defaults."""
    if app is None:
        return []
    properties = app.node.parameters.get("properties", {})
    given = app.settings.parameters
    return [
        (name, shown(given.get(name, entry.get("default"))))
        for name, entry in properties.items()
    ]


def _slide_id(job: Job, app: App | None, member: Member) -> str | None:
    """The pathology server's id of the slide; None for those who may not see it."""
    allowed = app is not None and app.settings.phi and member.sees_slides
    return job.slide_id if allowed else None


@front.get("/throughput")
def throughput(
    here: Here,
    member: Looker,
    app: Text = "",
    hours: Literal["24", "72", "168"] = "24",
) -> Response:
    """How many jobs ended, hour by hour, and how long they ran."""
    found = readings.hours(here.service.store, int(hours), app=app or None)
    return here.page(
        member,
        "throughput.html",
        tab="throughput",
        hours=found,
        endings=readings.ENDINGS,
        counts=charts.ended_per_hour(found),
        lengths=charts.durations(found),
        chosen={"app": app, "hours": hours},
        apps=here.service.apps,
    )


def _sought(
    action: Text = "",
    app: Text = "",
    caller: Text = "",
    job: Text = "",
    since: Since = "",
) -> Sought:
    return Sought(action, app, caller, job, readings.moment(since))


@front.get("/audit")
def audit_log(
    request: Request,
    here: Here,
    member: Looker,
    sought: Annotated[Sought, Depends(_sought)],
    since: Since = "",
    below: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
) -> Response:
    """Who asked for what, and what became of it."""
    rows, older = readings.audit_page(here.service.store, sought, below=below)
    return here.page(
        member,
        "audit.html",
        tab="audit",
        rows=rows,
        older=older,
        first=below is None,
        sought=sought,
        since=since,
        actions=readings.audit_actions(here.service.store),
        apps=here.service.apps,
        query=request.url.remove_query_params(["below"]).query,
    )


@front.get("/audit.csv")
def audit_csv(
    here: Here, member: Looker, sought: Annotated[Sought, Depends(_sought)]
) -> Response:
    """The audit log as comma-separated values, all that is sought."""
    store = here.service.store
    audit.note(store.database, audit.line(member.name, "audit-export", outcome="sent"))
    return StreamingResponse(
        _csv(readings.audit_lines(store, sought)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="ia-api-audit.csv"'},
    )


def _csv(lines: Iterator[Audit]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "at", "caller", "action", "app", "outcome", "job"])
    for line in lines:
        told = (line.caller, line.action, line.app, line.outcome, line.job_id or "")
        writer.writerow([line.id, wording.iso(line.at), *map(cell, told)])
        if text.tell() > 1 << 16:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


@front.get("/settings")
def settings(here: Here, member: Looker) -> Response:
    """What is chosen; secrets say only whether they are set."""
    service = here.service
    return here.page(
        member,
        "settings.html",
        tab="settings",
        rows=chosen(service.settings),
        apps=[(app, _parameters(app)) for app in service.apps.values()],
        database="SQLite" if service.store.database.is_sqlite else "PostgreSQL",
    )


@front.get("/static/{name}")
def static(name: str) -> Response:
    """The pages' own files; their addresses change with their content."""
    file = STATIC.get(name)
    if file is None:
        raise NoSuchPage("there is no such file")
    return FileResponse(
        file, headers={"Cache-Control": "private, max-age=31536000, immutable"}
    )
