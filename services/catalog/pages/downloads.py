"""The page of downloads: those that are too large to be made while one waits.

A download begins at once where that takes no long time. Else a job makes it: the page
shows how far it is, and gives it out for a week.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from theatrum.catalog.errors import BadQuery, CatalogError
from theatrum.catalog.exchange.exporting import KINDS
from theatrum.catalog.tables import Batch

from services.catalog.api import exports, listing, rights
from services.catalog.api import queries as saved
from services.catalog.api.exports import Wanted
from services.catalog.api.here import Here, Service
from services.catalog.export_jobs import KEPT
from services.catalog.pages import following
from services.catalog.pages.acting import Actor, Form, Looker, one
from services.catalog.pages.rendering import page

router = APIRouter(include_in_schema=False)
TITLES = {
    "originals": "Original files",
    "slices": "Slices",
    "bids": "BIDS data set",
    "bundle": "Bundle",
}


@router.get("/downloads/new")
def download(request: Request, service: Here, visitor: Looker) -> Response:
    """What the address asks, as a zip at once; or the page where it will be."""
    right = rights.Right(visitor, rights.EXPORT)
    try:
        wanted = _wanted(service, right, dict(request.query_params))
        answer = exports.archived(request, service, right, wanted)
    except CatalogError as err:
        detail = f"This cannot be downloaded: {err}."
        return page(service, visitor, "absent.html", status=422, detail=detail)
    if answer.status_code == 202:
        return RedirectResponse(f"{service.prefix}downloads?done=ordered", 303)
    return answer


@router.get("/downloads")
def downloads_page(request: Request, service: Here, visitor: Looker) -> Response:
    """The visitor's large downloads, with how far they are."""
    return _page(request, service, visitor)


@router.post("/downloads")
def cancel(request: Request, service: Here, visitor: Actor, form: Form) -> Response:
    """Stop one, and forget what was made of it."""
    try:
        exports.jobs_of(request).cancel(one(form, "job"), visitor.name)
    except CatalogError as err:
        return _page(request, service, visitor, problem=str(err))
    return RedirectResponse(f"{service.prefix}downloads?done=cancelled", 303)


def _page(
    request: Request, service: Service, visitor: Looker, problem: str = ""
) -> Response:
    jobs = [_told(service, job) for job in exports.jobs_of(request).of(visitor.name)]
    return following.live(
        request,
        service,
        visitor,
        "downloads",
        going=any(job["is_open"] for job in jobs),
        status=409 if problem else 200,
        jobs=[job for job in jobs if job["state"] != "cancelled"],
        problem=problem,
        done=request.query_params.get("done", ""),
    )


def _wanted(service: Service, right: rights.Right, words: dict[str, str]) -> Wanted:
    """What the words ask; `query` names a saved one. Raises CatalogError."""
    slug = words.pop("query", "")
    what = words.pop("what", "originals")
    if slug:
        row = saved.found(right.backend(service), slug, words)
        spec, options = saved.filled(row, words)
        what = options.pop("what", what)
        name = str(row["slug"])
    else:
        options, conditions = exports.split(words)
        spec, name = listing.spec_of("images", conditions.items()), "images"
    if what not in KINDS:
        raise BadQuery(f"one exports {', '.join(KINDS)}")
    return Wanted(spec, what, options if what == "slices" else {}, name)


# Any: what the template shows
def _told(service: Service, job: Batch) -> dict[str, Any]:
    made, whole = job.counts.get("bytes", 0), job.counts.get("of")
    ended = job.ended_at
    return {
        "id": job.id,
        "title": TITLES.get(job.params["what"], job.params["what"]),
        "state": job.state,
        "is_open": job.state in ("queued", "running"),
        "made": made,
        "whole": whole,
        "reason": job.counts.get("reason", ""),
        "created_at": job.created_at,
        "until": ended + KEPT if ended else None,
        "href": f"{service.api}/exports/{job.id}/download"
        if job.state == "succeeded"
        else "",
    }
