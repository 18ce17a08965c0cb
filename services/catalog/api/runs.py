"""Single runs over HTTP: what happens during one, as it happens; stopped, done again.

`GET .../events` is a list, or with `Accept: text/event-stream` a stream that ends when
the run does; who comes again with `Last-Event-ID` is told what they missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from theatrum.catalog.engine.ledger import FINAL
from theatrum.catalog.engine.single import again_run, cancel_run
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Batch, RunEvent

from hub.durable.database import Database
from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Cancelling, Reading, Right, Running
from services.catalog.api.tagged import encoded, tagged
from services.catalog.api.work import Key, local, one_run
from services.catalog.errors import ConflictError
from services.catalog.going_on import BY_SERVICE, want_again

router = APIRouter(prefix="/runs", tags=["work"])

LOOK_S: Final = 0.5
"""Between looks for what happened, while somebody listens."""
QUIET_S: Final = 5.0
"""After which a listener to whom nothing is told is told that one is still here."""
AT_ONCE: Final = 1000
STREAM: Final = "text/event-stream"


@router.get(
    "/{key}/events",
    responses={
        200: {"content": {STREAM: {}}, "description": "A list, or a stream"},
        304: {"description": "As it was"},
    },
)
def get_run_events(
    request: Request,
    service: Here,
    right: Reading,
    key: Key,
    after: Annotated[
        int, Query(ge=-1, le=2**31 - 1, description="Events after this one")
    ] = -1,
) -> Response:
    """What happened during a run, in order; as a stream where `Accept` asks for one."""
    run = one_run(service, right, key)
    if STREAM in request.headers.get("Accept", ""):
        last = request.headers.get("Last-Event-ID", "")
        begin = int(last) if last.isdigit() and len(last) < 10 else after
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            _stream(service, right, run["id"], begin), 200, headers, STREAM
        )
    rows = events_of(service.database, run["id"], after)
    return tagged(request, {"state": run["state"], "items": rows, "next": None})


@router.post("/{key}/cancel", status_code=202)
def cancel_one(
    request: Request, service: Here, right: Cancelling, key: Key
) -> Response:
    """Stop one run; the others of its batch go on."""
    run = one_run(service, right, key)
    cancel_run(local(service, right), run["id"])
    if run["state"] == "waiting":  # nobody works on it: what follows is to be skipped
        _go_on(service, right, run)
    return tagged(request, one_run(service, right, key), status=202)


@router.post("/{key}/retry", status_code=202)
def retry_one(request: Request, service: Here, right: Running, key: Key) -> Response:
    """Do once more a run that failed or was cancelled, and what follows on it."""
    run = one_run(service, right, key)
    with service.database.reading() as session:
        batch = session.get(Batch, run["batch_id"] or "")
        if batch is not None and batch.engine.get("by") != BY_SERVICE:
            raise ConflictError("this run is of a notebook's batch: retry it there")
    again_run(local(service, right), run["id"])
    _go_on(service, right, run)
    return tagged(request, one_run(service, right, key), status=202)


# Any here: a run's row, JSON
def _go_on(service: Service, right: Right, run: dict[str, Any]) -> None:
    with recording(service.database, right.person.name) as book:
        want_again(book, run["batch_id"])


def events_of(database: Database, run_id: str, after: int) -> list[dict[str, Any]]:
    """The first events of a run after one."""
    query = select(RunEvent).where(RunEvent.run_id == run_id, RunEvent.seq > after)
    with database.reading() as session:
        return [
            {
                "seq": row.seq,
                "at": row.at,
                "kind": row.kind,
                "level": row.level,
                "percent": row.percent,
                "message": row.message,
                "data": row.data,
            }
            for row in session.scalars(query.order_by(RunEvent.seq).limit(AT_ONCE))
        ]


async def _stream(
    service: Service, right: Right, run_id: str, sent: int
) -> AsyncIterator[bytes]:
    """What happened and happens, until the run ends or is no longer the asker's."""
    loop = asyncio.get_running_loop()
    yield b": listening\n\n"
    told = loop.time()
    while True:
        # The state is read before the events: what ends it is among them.
        try:
            run = await run_in_threadpool(one_run, service, right, run_id)
        except CatalogError:
            return
        while True:
            rows = await run_in_threadpool(events_of, service.database, run_id, sent)
            for row in rows:
                sent, told = row["seq"], loop.time()
                yield _event(row["kind"], row, sent)
            if len(rows) < AT_ONCE:
                break
        if run["state"] in FINAL:
            yield _event("end", {"state": run["state"]})
            return
        if loop.time() - told > QUIET_S:
            told = loop.time()
            yield b": still here\n\n"
        await asyncio.sleep(LOOK_S)


def _event(kind: str, said: dict[str, Any], seq: int | None = None) -> bytes:
    head = f"event: {kind}\n" + (f"id: {seq}\n" if seq is not None else "")
    return head.encode() + b"data: " + encoded(said) + b"\n\n"
