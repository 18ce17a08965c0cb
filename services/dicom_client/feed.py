"""Changes as they happen, for pages that stay open: server-sent events.

    event: change    a series' state or history: {"event", "id", "kind", "at", "state"}
    event: progress  how far a step is: {"id", "state", "percent"}
    event: upload    how far an upload is: {"id", "phase", "percent"}

The database is asked once for all listeners of a process, twice a second; each gets the
changes since the event that it saw last (`Last-Event-ID`), so that one who was away
for a moment misses nothing. Progress is told as it is now; it has no history.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Literal

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse

from services.dicom_client import read_models
from services.dicom_client.opening import Service
from services.dicom_client.uploads import Uploads

Kind = Literal["progress", "upload"]
Moving = dict[tuple[Kind, str], tuple[str, int]]
"""Of each series or upload that moves: its state and how far that is, in percent."""

_LOOK_S = 0.5
_ALIVE_S = 15.0


class Feed:
    """The listeners of one process."""

    def __init__(self, service: Service, uploads: Uploads) -> None:
        self._service = service
        self._uploads = uploads
        self._moving: Moving = {}
        self._newest = 0
        self._grown = asyncio.Condition()
        self._looking: asyncio.Task[None] | None = None
        self._listeners = 0

    def answer(self, request: Request) -> StreamingResponse:
        """An answer that goes on until the listener leaves."""
        last = request.headers.get("Last-Event-ID", "")
        return StreamingResponse(
            self._told(int(last) if last.isdigit() else None),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _told(self, last: int | None) -> AsyncIterator[str]:
        self._listeners += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            if last is None:
                last = await _newest(self._service)
            yield f"retry: 2000\nid: {last}\nevent: hello\ndata: {{}}\n\n"
            told: Moving = {}
            while True:
                moving = self._moving
                for key, now in moving.items():
                    if told.get(key) != now:
                        kind, what = key
                        yield f"event: {kind}\ndata: {_moved(kind, what, *now)}\n\n"
                told = moving
                for change in await anyio.to_thread.run_sync(
                    read_models.changes, self._service, last
                ):
                    last = int(change["event"])
                    yield f"id: {last}\nevent: change\ndata: {json.dumps(change)}\n\n"
                if not await self._wait(last, told):
                    yield ": still here\n\n"
        finally:
            self._listeners -= 1

    async def _wait(self, last: int, told: Moving) -> bool:
        try:
            async with asyncio.timeout(_ALIVE_S), self._grown:
                await self._grown.wait_for(
                    lambda: self._newest > last or self._moving != told
                )
        except TimeoutError:
            return False
        return True

    async def _look(self) -> None:
        while self._listeners:
            newest = await _newest(self._service)
            moving = await anyio.to_thread.run_sync(self._look_for_movement)
            if newest != self._newest or moving != self._moving:
                async with self._grown:
                    self._newest, self._moving = newest, moving
                    self._grown.notify_all()
            await asyncio.sleep(_LOOK_S)

    def _look_for_movement(self) -> Moving:
        found: Moving = {
            ("progress", job_id): (state, percent)
            for job_id, state, percent in read_models.moving(self._service)
        }
        for one in self._uploads.newest():
            found["upload", one.id] = (one.phase, one.percent)
        return found


def _moved(kind: Kind, what: str, state: str, percent: int) -> str:
    name = "phase" if kind == "upload" else "state"
    return json.dumps({"id": what, name: state, "percent": percent})


async def _newest(service: Service) -> int:
    return await anyio.to_thread.run_sync(read_models.newest_event, service)
