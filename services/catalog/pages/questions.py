"""The page of saved queries: a question of the front page, kept for all who may see it.

Kept, it stands in the front page's menu, has an address of its own, and downloads what
it finds at that moment. What is taken away can be brought back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select
from theatrum.catalog.errors import BadQuery, CatalogError, NotFound
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Project, SavedQuery
from theatrum.catalog.writing import create

from hub.forms import own_xsrf
from hub.signin import Person
from services.catalog.api import listing, rights, work
from services.catalog.api.here import Here, Service
from services.catalog.errors import ConflictError
from services.catalog.pages import browse
from services.catalog.pages.acting import Actor, Fields, Form, Looker, one
from services.catalog.pages.downloads import TITLES
from services.catalog.pages.rendering import page

router = APIRouter(include_in_schema=False)
SAID = {
    "kept": "The question is kept",
    "removed": "The question is taken away",
    "restored": "The question is back",
}


@router.get("/questions")
def questions_page(request: Request, service: Here, visitor: Looker) -> Response:
    """The saved queries that the visitor may change; a form for the address's words."""
    return _page(request, service, visitor, dict(request.query_params))


@router.post("/questions")
def act(request: Request, service: Here, visitor: Actor, form: Form) -> Response:
    """Keep a question, take one away, or bring it back."""
    right = rights.Right(visitor, rights.WRITE)
    what, _, key = one(form, "act").partition(":")
    words = dict(parse_qsl(one(form, "words")))
    try:
        if what == "keep":
            _keep(service, right, words, form)
            done, more = "kept", ""
        elif what == "restore":
            _remove(service, right, key, back=True)
            done, more = "restored", ""
        elif what == "remove":
            _remove(service, right, key)
            done, more = "removed", f"&_undo={key}"
        else:
            raise BadQuery("there is no such act")
    except CatalogError as err:
        return _page(request, service, visitor, words, form=form, problem=str(err))
    return RedirectResponse(f"{service.prefix}questions?_done={done}{more}", 303)


def _page(
    request: Request,
    service: Service,
    visitor: Person,
    words: dict[str, str],
    *,
    form: Fields | None = None,
    problem: str = "",
) -> Response:
    done, undo = words.pop("_done", ""), words.pop("_undo", "")
    backend = rights.Right(visitor, rights.READ).backend(service)
    try:
        browse.refuse_unknown(words)
        count = backend.count(_spec(words)) if words else 0
    except CatalogError as err:
        detail = f"This cannot be kept: {err}"
        return page(service, visitor, "absent.html", status=400, detail=detail)
    right = rights.Right(visitor, rights.WRITE)
    with service.database.reading() as session:
        projects = sorted(right.projects(session))
    mine = Q(project__name__in=tuple(projects))
    rows = backend.rows(Spec("saved_queries", (mine,), order=("title",), limit=200))
    named = {row["id"]: row["name"] for row in backend.rows(Spec("projects"))}
    return page(
        service,
        visitor,
        "questions.html",
        status=409 if problem else 200,
        xsrf=own_xsrf(request),
        rows=[row | {"project": named.get(row["project_id"], "")} for row in rows],
        asked=words,
        words=urlencode(words),
        count=count,
        projects=projects,
        kinds=TITLES,
        typed={name: values[0] for name, values in (form or {}).items()},
        problem=problem,
        done=SAID.get(done, ""),
        undo=undo[:64],
    )


def _spec(words: Mapping[str, str]) -> Spec:
    asked = {name: value for name, value in words.items() if value}
    asked.pop("cursor", None)
    return replace(listing.spec_of("images", asked.items()), limit=None)


def _keep(
    service: Service, right: rights.Right, words: Mapping[str, str], form: Fields
) -> None:
    title = one(form, "title")
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:64]
    project = one(form, "project")
    if not slug:
        raise BadQuery("Give the question a title, with letters or digits.")
    known = Q(slug=slug, project__name=project)
    if right.backend(service).count(Spec("saved_queries", (known,))):
        raise ConflictError(
            f"{project} has a question {slug} already: name it otherwise."
        )
    # Any: the columns of a saved query
    said: dict[str, Any] = {
        "project": project,
        "slug": slug,
        "title": title,
        "description": one(form, "description"),
        "spec": _spec(words).to_json(),
    }
    if one(form, "what") in TITLES:
        said["parameters"] = {"what": {"default": one(form, "what")}}
    create(work.local(service, right), "saved_queries", said)


def _remove(
    service: Service, right: rights.Right, key: str, *, back: bool = False
) -> None:
    """Take a saved query away, or bring it back; raises NotFound."""
    with recording(service.database, right.person.name) as book:
        query = (
            select(SavedQuery)
            .join(Project, Project.id == SavedQuery.project_id)
            .where(
                SavedQuery.id == key,
                Project.name.in_(right.projects(book.session)),
            )
        )
        row = book.session.scalar(query)
        if row is None or (row.deleted_at is not None) is not back:
            raise NotFound("there is no such question that you may change")
        if back:
            book.change(row, deleted_at=None)
        else:
            book.delete(row)
