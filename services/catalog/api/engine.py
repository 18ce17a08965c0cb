"""The engine over HTTP: where batches are done, how busy and how large that is.

Maintainers of a project look at it. Its size is the administrators', for it takes from
the machine that all share.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from theatrum.catalog.errors import NotAllowed
from theatrum.catalog.query.spec import Q, Spec

from services.catalog import engine_state
from services.catalog.api.here import Here, Service
from services.catalog.api.rights import (
    Administering,
    Right,
    administers,
    refuse_but_administrators,
)
from services.catalog.api.tagged import tagged
from services.catalog.errors import ConflictError

log = logging.getLogger(__name__)
router = APIRouter(prefix="/engine", tags=["engine"])


class Size(BaseModel):
    """How large the engine shall be."""

    model_config = ConfigDict(extra="forbid")
    workers: int = Field(ge=1, le=engine_state.MOST_WORKERS, description="Processes")


@router.get("", responses={304: {"description": "As it was"}})
def get_engine(request: Request, service: Here, right: Administering) -> Response:
    """Where batches are done: address, workers, memory, tasks; for maintainers."""
    with service.database.reading() as session:
        maintains = bool(right.projects(session))
    if not maintains and not administers(right.person):
        raise NotAllowed("the engine is shown to maintainers of a project")
    return tagged(request, _told(service, right))


@router.post("/scale", status_code=202)
def scale_engine(
    request: Request, service: Here, right: Administering, body: Size
) -> Response:
    """Give the cluster another number of workers, now and from now on."""
    refuse_but_administrators(right.person)
    address = service.settings.catalog_engine
    if not engine_state.is_scalable(address):
        raise ConflictError(
            f"{address} is not ours to scale: start or stop workers where it runs, or "
            "name another engine in the setting catalog_engine"
        )
    engine_state.wish(service.home, body.workers, right.person.name)
    log.info("%s wishes for %d workers", right.person.name, body.workers)
    return tagged(request, _told(service, right), status=202)


# Any: JSON
def _told(service: Service, right: Right) -> dict[str, Any]:
    settings = service.settings
    clusters = engine_state.states(service.home)
    backend = right.backend(service)
    waiting = {
        state: backend.count(Spec("batches", (Q(state=state),)))
        for state in ("queued", "running", "waiting")
    }
    wanted = engine_state.wished(service.home) or settings.catalog_engine_workers
    return {
        "address": settings.catalog_engine,
        "scalable": engine_state.is_scalable(settings.catalog_engine),
        "workers_wanted": wanted or os.cpu_count() or 1,
        "state": "working" if clusters else "idle",
        "workers": sum(len(one.get("workers", ())) for one in clusters),
        "threads": _sum(clusters, "threads"),
        "memory_bytes": _sum(clusters, "memory_bytes"),
        "memory_limit_bytes": _sum(clusters, "memory_limit_bytes"),
        "tasks": _tasks(clusters),
        "clusters": [
            {name: value for name, value in one.items() if name not in ("at", "batch")}
            | {"since": datetime.fromtimestamp(one["since"], UTC)}
            for one in clusters
        ],
        "batches": waiting,
    }


def _sum(clusters: list[dict[str, Any]], name: str) -> int:
    return sum(int(one.get(name, 0)) for one in clusters)


def _tasks(clusters: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in clusters:
        for state, count in one.get("tasks", {}).items():
            found[state] = found.get(state, 0) + int(count)
    return found
