"""Who one is here, and what one may do where."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from hub.scopes import CATALOG
from services.catalog.api.here import Here
from services.catalog.api.rights import Reading, carried, may_make_projects
from services.catalog.api.tagged import tagged

router = APIRouter(tags=["me"])


@router.get("/me")
def get_me(request: Request, service: Here, right: Reading) -> Response:
    """Your name and groups, your token's scopes, and the projects for each of them."""
    with service.database.reading() as session:
        projects = {
            scope: sorted(right.projects(session, scope))
            for scope in CATALOG
            if carried(right.person, scope)
        }
    return tagged(
        request,
        {
            "name": right.person.name,
            "kind": right.person.kind,
            "groups": sorted(right.person.groups),
            "projects": projects,
            "may_begin_projects": may_make_projects(right.person),
        },
    )
