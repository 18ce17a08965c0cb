"""The inbox over HTTP: what waits for a review, in the projects that the asker edits.

Who may not edit a project does not see what waits for it. An item that is let in is
taken in by the catalogue's worker; one that is kept out keeps its files for a week, so
that this can be undone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from theatrum.catalog.errors import NotFound
from theatrum.catalog.ingest import inbox as waiting_room
from theatrum.catalog.ingest.errors import IngestError, NoSuchItem
from theatrum.catalog.ingest.rules import CRITERIA, parse
from theatrum.catalog.tables import InboxItem, Project

from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Right, Writing
from services.catalog.api.tagged import tagged
from services.catalog.api.uploads import check_project
from services.catalog.intake import Order, Orders, new_key

router = APIRouter(prefix="/inbox", tags=["inbox"])
Key = Annotated[str, Path(max_length=64)]
State = Literal["pending", "failed", "rejected", "accepted"]
MOST = 500
"""Items of one answer, and of one decision."""


class Proposal(BaseModel):
    """What an item is said to be."""

    model_config = ConfigDict(extra="forbid")
    # Any: texts and numbers, which the library checks by their names
    proposal: dict[str, str | float | bool | None] = Field(max_length=40)


class Some(BaseModel):
    """Items that are decided together."""

    model_config = ConfigDict(extra="forbid")
    items: list[Annotated[str, Field(max_length=64)]] = Field(
        min_length=1, max_length=MOST
    )


class Rejection(Some):
    """Items that are kept out."""

    reason: str = Field("", max_length=2000)


class Trial(BaseModel):
    """A rule that is only tried."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(max_length=64)
    pattern: str = Field(max_length=500)
    # Any: as a file rule's
    fields: dict[str, Any] = Field(max_length=40)


@router.get("")
def list_items(
    request: Request,
    service: Here,
    right: Writing,
    project: Annotated[str | None, Query(max_length=64)] = None,
    state: State = "pending",
) -> Response:
    """What waits, the oldest first."""
    found = items(service, right, project=project, states=(state,))
    return tagged(request, {"items": found, "next": None})


@router.post("/accept", status_code=202)
def accept_items(
    request: Request, service: Here, right: Writing, body: Some
) -> Response:
    """Let items in; the worker takes them in, one after the other."""
    accept(service, right, body.items)
    return tagged(request, {"items": body.items}, status=202)


@router.post("/reject")
def reject_items(
    request: Request, service: Here, right: Writing, body: Rejection
) -> Response:
    """Keep items out."""
    reject(service, right, body.items, body.reason)
    return tagged(request, {"items": body.items})


@router.post("/try")
def try_rule(request: Request, service: Here, right: Writing, body: Trial) -> Response:
    """What a rule would say of what waits; nothing is changed."""
    check_project(service, right, body.project)
    said = tried(service, right, body.project, body.pattern, body.fields)
    return tagged(request, {"items": said, "next": None})


@router.get("/{key}")
def get_item(request: Request, service: Here, right: Writing, key: Key) -> Response:
    """One item."""
    return tagged(request, _one(service, right, key))


@router.get("/{key}/thumbnail", response_class=Response)
def get_thumbnail(service: Here, right: Writing, key: Key) -> Response:
    """An item's picture, as the process that looked at it drew it."""
    return picture(service, right, key)


@router.patch("/{key}")
def edit_item(
    request: Request, service: Here, right: Writing, key: Key, body: Proposal
) -> Response:
    """Say what an item is; "" or null takes a word away."""
    edit(service, right, key, body.proposal)
    return tagged(request, _one(service, right, key))


@router.post("/{key}/restore")
def restore_item(request: Request, service: Here, right: Writing, key: Key) -> Response:
    """Undo a rejection."""
    restore(service, right, [key])
    return tagged(request, _one(service, right, key))


def items(
    service: Service,
    right: Right,
    *,
    project: str | None = None,
    states: Collection[str] = ("pending", "failed"),
    keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The items that the asker may decide about, the oldest first."""
    coming = {
        one.source for one in Orders(service.home).waiting() if one.kind == "item"
    }
    with service.database.reading() as session:
        names = right.projects(session)
        if project is not None:
            names &= {project}
        query = (
            select(InboxItem, Project.name)
            .join(Project, Project.id == InboxItem.project_id)
            .where(Project.name.in_(names), InboxItem.state.in_(states))
        )
        if keys is not None:
            query = query.where(InboxItem.id.in_(keys))
        order = (InboxItem.created_at, InboxItem.id)
        rows = session.execute(query.order_by(*order).limit(MOST)).all()
        return [_shown(service, row, name, row.id in coming) for row, name in rows]


def accept(service: Service, right: Right, keys: Sequence[str]) -> None:
    """Order items to be taken in; raises NotFound, or IngestError, before any is."""
    orders = Orders(service.home)
    for item in _chosen(service, right, keys, ("pending", "failed")):
        if not item["coming"]:
            orders.put(
                Order(
                    key=new_key(),
                    kind="item",
                    owner=right.person.name,
                    project=item["project"],
                    source=item["id"],
                )
            )


def reject(service: Service, right: Right, keys: Sequence[str], reason: str) -> None:
    """Keep items out, for now with their files; raises what `accept` does."""
    for item in _chosen(service, right, keys, ("pending", "failed")):
        waiting_room.reject(
            service.database,
            item["id"],
            actor=right.person.name,
            reason=reason,
            keep_files=True,
        )


def restore(service: Service, right: Right, keys: Sequence[str]) -> None:
    """Undo rejections; raises NoSuchItem where the files are gone."""
    for item in _chosen(service, right, keys, ("rejected",)):
        waiting_room.restore(service.database, item["id"], actor=right.person.name)


def edit(service: Service, right: Right, key: str, proposal: Mapping[str, Any]) -> None:
    """Say what an item is; raises BadRule for a name that is not known."""
    _chosen(service, right, [key], ("pending", "failed"))
    waiting_room.edit(service.database, key, proposal, actor=right.person.name)


def tried(
    service: Service,
    right: Right,
    project: str,
    pattern: str,
    fields: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Of each item that waits, what a rule would say; raises BadRule.

    Criteria on headers hold only of the modality, all that an item keeps of its header.
    """
    rule = parse("the rule", pattern, fields)
    header_asked = {*fields.get(CRITERIA, {})} - {"modality", "Modality"}
    if header_asked:
        raise IngestError(
            "Only the name and the modality of what waits are known here: leave out "
            f"{', '.join(sorted(header_asked))} to try the rule."
        )
    return [
        {
            "id": item["id"],
            "title": item["title"],
            "fields": rule.fields(item["title"], {"modality": item["modality"]}),
        }
        for item in items(service, right, project=project)
    ]


def picture(service: Service, right: Right, key: str) -> Response:
    """The picture of an item; raises NotFound."""
    _one(service, right, key)
    with service.database.reading() as session:
        folder = session.scalar(select(InboxItem.path).where(InboxItem.id == key))
    path = waiting_room.thumbnail_of(folder or "none")
    if not path.is_file():
        raise NotFound("there is no picture of it")
    headers = {"Cache-Control": "private, max-age=3600"}
    return FileResponse(path, media_type="image/jpeg", headers=headers)


def _one(service: Service, right: Right, key: str) -> dict[str, Any]:
    every = ("pending", "failed", "rejected", "accepted")
    found = items(service, right, states=every, keys=[key])
    if not found:
        raise NotFound("there is no such item that you may decide about")
    return found[0]


def _chosen(
    service: Service, right: Right, keys: Sequence[str], states: Collection[str]
) -> list[dict[str, Any]]:
    """The items, all of which have to be the asker's to decide and in such a state."""
    wanted = list(dict.fromkeys(keys))
    found = {
        one["id"]: one for one in items(service, right, states=states, keys=wanted)
    }
    for key in wanted:
        if key not in found:
            state = _one(service, right, key)["state"]
            raise NoSuchItem(f"Item {key} was {state} already.")
    return [found[key] for key in wanted]


def _shown(
    service: Service, row: InboxItem, project: str, coming: bool
) -> dict[str, Any]:
    has_picture = waiting_room.thumbnail_of(row.path).is_file()
    address = f"{service.api}/inbox/{row.id}/thumbnail"
    return {
        "id": row.id,
        "project": project,
        "title": row.title,
        "modality": row.modality,
        "format": row.format,
        "n_files": row.n_files,
        "size": row.size,
        "proposal": dict(row.proposal),
        "rule": row.rule,
        "findings": list(row.findings),
        "received_from": row.received_from,
        "state": row.state,
        "coming": coming,
        "reason": row.reason,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at,
        "created_at": row.created_at,
        "thumbnail": address if has_picture else None,
    }
