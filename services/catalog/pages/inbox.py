"""The inbox page: what waits, what it is proposed to be, and what becomes of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.tables import FileRule, Project

from hub.forms import own_xsrf
from hub.signin import Person
from services.catalog.api import inbox, rights
from services.catalog.api.here import Here, Service
from services.catalog.pages.acting import Actor, Fields, Form, Looker, one
from services.catalog.pages.rendering import page
from services.catalog.pages.rules import KNOWN

router = APIRouter(include_in_schema=False)
SHOWN = 100
USUAL = ("subject__label", "sample__name", "sample__stain", "experiment__name")
"""Fields that are asked for even where no rule says them."""
SAID = {
    "accept": "let in: they become images in a moment",
    "reject": "kept out",
    "restore": "waiting again",
    "edit": "changed",
    "say": "changed",
}


@router.get("/inbox")
def inbox_page(request: Request, service: Here, visitor: Looker) -> Response:
    """What waits in the projects that the visitor edits."""
    return _page(request, service, visitor)


@router.post("/inbox")
def decide(request: Request, service: Here, visitor: Actor, form: Form) -> Response:
    """Let in, keep out, undo, or change what is proposed."""
    right = rights.Right(visitor, rights.WRITE)
    act, _, key = one(form, "act").partition(":")
    keys = [key] if key else form.get("item", [])
    try:
        if not keys:
            return _page(request, service, visitor, problem="Choose something first.")
        if act in ("accept", "edit", "say"):
            for item in keys:
                _edit(service, right, item, form)
        if act == "say":
            for item in keys:
                said = {one(form, "say.name"): one(form, "say.value")}
                inbox.edit(service, right, item, said)
        if act == "accept":
            inbox.accept(service, right, keys)
        elif act == "reject":
            inbox.reject(service, right, keys, one(form, "reason"))
        elif act == "restore":
            inbox.restore(service, right, keys)
    except CatalogError as err:
        return _page(request, service, visitor, form=form, problem=str(err))
    kept = {"reject": "undo", "say": "chosen"}.get(act)
    more = f"&{kept}={','.join(keys[:SHOWN])}" if kept else ""
    done = act if act in SAID else ""
    address = f"{service.prefix}inbox?done={done}&n={len(keys)}{more}"
    return RedirectResponse(address, 303)


def _page(
    request: Request,
    service: Service,
    visitor: Person,
    *,
    form: Fields | None = None,
    problem: str = "",
) -> Response:
    right = rights.Right(visitor, rights.WRITE)
    words = request.query_params
    with service.database.reading() as session:
        projects = sorted(right.projects(session))
        rows = session.execute(
            select(FileRule, Project.name)
            .join(Project, Project.id == FileRule.project_id)
            .where(Project.name.in_(projects), FileRule.deleted_at.is_(None))
            .order_by(Project.name, FileRule.priority, FileRule.id)
        ).all()
        rules = [{"project": name, "name": row.name} for row, name in rows]
    project = words.get("project") or None
    found = inbox.items(service, right, project=project)
    rejected = inbox.items(service, right, project=project, states=("rejected",))
    done = words.get("done", "")
    number = words.get("n", "")
    return page(
        service,
        visitor,
        "inbox.html",
        status=409 if problem else 200,
        xsrf=own_xsrf(request),
        items=[item | {"fields": _fields(item)} for item in found[:SHOWN]],
        more=max(len(found) - SHOWN, 0),
        rejected=rejected[-SHOWN:][::-1],
        projects=projects,
        project=project,
        known=KNOWN,
        rules=rules,
        problem=problem,
        done=SAID.get(done, ""),
        number=int(number) if number.isdigit() and len(number) < 5 else 0,
        undo=[key for key in words.get("undo", "").split(",") if key],
        chosen=(form or {}).get("item", words.get("chosen", "").split(",")),
        typed={name: values[0] for name, values in (form or {}).items()},
    )


def _fields(item: dict[str, Any]) -> list[tuple[str, str]]:
    """What can be said of an item: what was proposed, and what is asked for mostly."""
    said = {name: str(value) for name, value in item["proposal"].items()}
    return list((dict.fromkeys(USUAL, "") | said).items())


def _edit(service: Service, right: rights.Right, key: str, form: Fields) -> None:
    """Keep what was typed about an item; what is as it was is not written."""
    mark = f"{key}."
    typed: dict[str, str] = {
        name.removeprefix(mark): values[0].strip()
        for name, values in form.items()
        if name.startswith(mark)
    }
    more, value = typed.pop("+name", ""), typed.pop("+value", "")
    if more:
        typed[more] = value
    (item,) = inbox.items(service, right, keys=[key]) or ({"proposal": {}},)
    now = {name: str(told) for name, told in item["proposal"].items()}
    changed = {name: told for name, told in typed.items() if now.get(name, "") != told}
    if changed:
        inbox.edit(service, right, key, changed)
