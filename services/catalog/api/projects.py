"""Projects: who begins one, and which groups have which role in it."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from theatrum.catalog.errors import NotAllowed, NotFound
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Base, Project, ProjectGroup

from services.catalog.api.here import Here
from services.catalog.api.rights import (
    Administering,
    Reading,
    Right,
    Writing,
    may_make_projects,
)
from services.catalog.api.tagged import tagged
from services.catalog.errors import ConflictError

log = logging.getLogger(__name__)
router = APIRouter(prefix="/projects", tags=["projects"])
Name = Annotated[str, Path(max_length=64)]
Role = Literal["viewer", "editor", "maintainer"]


class NewProject(BaseModel):
    """A project to begin; who begins it maintains it."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    title: str = Field("", max_length=255)
    description: str = Field("", max_length=100_000)
    licence: str | None = Field(None, max_length=255)
    doi: str | None = Field(None, max_length=255)


class ChangedProject(BaseModel):
    """What a maintainer may change."""

    model_config = ConfigDict(extra="forbid")
    title: str | None = Field(None, max_length=255)
    description: str | None = Field(None, max_length=100_000)
    licence: str | None = Field(None, max_length=255)
    doi: str | None = Field(None, max_length=255)
    visibility: Literal["private", "internal", "public"] | None = None
    shows_label: bool | None = None


class Share(BaseModel):
    """A role for a hub group, or for a person as `@name`."""

    model_config = ConfigDict(extra="forbid")
    role: Role


@router.post("", status_code=201)
def make_project(
    request: Request, service: Here, right: Writing, body: NewProject
) -> Response:
    """Begin a project; for members of the group `researchers`."""
    if not may_make_projects(right.person):
        raise NotAllowed("researchers begin projects: ask who runs the hub")
    with recording(service.database, right.person.name) as book:
        taken = select(Project.id).where(Project.name == body.name)
        if book.session.scalar(taken) is not None:
            raise ConflictError(f"the name {body.name!r} is taken: choose another")
        project = book.project(**body.model_dump())
        own = ProjectGroup(group=f"@{right.person.name}", role="maintainer")
        project.groups.append(own)
    row = right.backend(service).rows(Spec("projects", (Q(name=body.name),)))[0]
    return tagged(request, row, status=201)


@router.patch("/{key}")
def change_project(
    request: Request,
    service: Here,
    right: Administering,
    key: int,
    body: ChangedProject,
) -> Response:
    """Change what a project says of itself, and who may look at it."""
    said = body.model_dump(exclude_unset=True)
    backend = right.backend(service)
    return tagged(request, backend.change("projects", str(key), said))


@router.delete("/{key}", status_code=204)
def delete_project(service: Here, right: Administering, key: int) -> None:
    """Delete a project in which no image is any more, with all that was said in it."""
    _maintained(service, right, key)
    backend = right.backend(service)
    left = backend.count(Spec("images", (Q(project_id=key),)))
    if left:
        raise ConflictError(
            f"{left} images are in this project: delete these first, or keep it"
        )
    with service.database.writing() as session:
        forget(session, key)
    log.info("%s deleted the project %d", right.person.name, key)


@router.get("/{key}/roles")
def list_roles(request: Request, service: Here, right: Reading, key: int) -> Response:
    """Which groups and persons have which role."""
    with service.database.reading() as session:
        project = _seen(service, right, key)
        rows = session.scalars(
            select(ProjectGroup)
            .where(ProjectGroup.project_id == project)
            .order_by(ProjectGroup.group)
        )
        roles = [{"group": one.group, "role": one.role} for one in rows]
    return tagged(request, {"items": roles, "next": None})


@router.put("/{key}/roles/{group}", status_code=204)
def share(
    service: Here,
    right: Administering,
    key: int,
    group: Annotated[str, Path(max_length=255)],
    body: Share,
) -> None:
    """Give a group, or a person as `@name`, a role."""
    _maintained(service, right, key)
    with recording(service.database, right.person.name) as book:
        known = book.session.get(ProjectGroup, (key, group))
        if known is None:
            book.session.add(ProjectGroup(project_id=key, group=group, role=body.role))
        else:
            known.role = body.role


@router.delete("/{key}/roles/{group}", status_code=204)
def unshare(
    service: Here,
    right: Administering,
    key: int,
    group: Annotated[str, Path(max_length=255)],
) -> None:
    """Take a group's or a person's role away; the last maintainer stays."""
    _maintained(service, right, key)
    with recording(service.database, right.person.name) as book:
        known = book.session.get(ProjectGroup, (key, group))
        if known is None:
            raise NotFound(f"{group} has no role in this project")
        if known.role == "maintainer":
            others = select(ProjectGroup.group).where(
                ProjectGroup.project_id == key,
                ProjectGroup.role == "maintainer",
                ProjectGroup.group != group,
            )
            if book.session.scalar(others) is None:
                raise ConflictError(
                    "a project needs a maintainer: make somebody else one first"
                )
        book.session.delete(known)


def forget(session: Session, key: int) -> None:
    """Delete a project's rows, what points at others first, and its feed with them."""
    for table in reversed(Base.metadata.sorted_tables):
        if "project_id" in table.c:
            session.execute(delete(table).where(table.c.project_id == key))
    session.execute(delete(Project).where(Project.id == key))


def _seen(service: Here, right: Right, key: int) -> int:
    rows = right.backend(service).rows(Spec("projects", (Q(id=key),)))
    if not rows:
        raise NotFound("there is no such project that you may see")
    return int(rows[0]["id"])


def _maintained(service: Here, right: Right, key: int) -> None:
    """Raise NotFound or NotAllowed where the asker does not maintain the project."""
    backend = right.backend(service)
    rows = backend.rows(Spec("projects", (Q(id=key),)))
    if not rows:
        raise NotFound("there is no such project that you may see")
    if rows[0]["name"] not in (backend.writable or ()):
        raise NotAllowed("this is for the project's maintainers")
