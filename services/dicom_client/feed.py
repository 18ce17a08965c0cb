"""Changes as they happen, for pages that stay open: server-sent events.

The database is asked once for all listeners of a process, twice a second; each gets the
changes since the event that it saw last (`Last-Event-ID`), so that one who was away
for a moment misses nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse

from services.dicom_client import read_models
from services.dicom_client.opening import Service

_LOOK_S = 0.5
_ALIVE_S = 15.0


class Feed:
    """The listeners of one process."""

    def __init__(self, service: Service) -> None:
        self._service = service
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
            while True:
                for change in await anyio.to_thread.run_sync(
                    read_models.changes, self._service, last
                ):
                    last = int(change["event"])
                    told = json.dumps(change)
                    yield f"id: {last}\nevent: change\ndata: {told}\n\n"
                if not await self._wait(last):
                    yield ": still here\n\n"
        finally:
            self._listeners -= 1

    async def _wait(self, last: int) -> bool:
        try:
            async with asyncio.timeout(_ALIVE_S), self._grown:
                await self._grown.wait_for(lambda: self._newest > last)
        except TimeoutError:
            return False
        return True

    async def _look(self) -> None:
        while self._listeners:
            newest = await _newest(self._service)
            if newest != self._newest:
                async with self._grown:
                    self._newest = newest
                    self._grown.notify_all()
            await asyncio.sleep(_LOOK_S)


async def _newest(service: Service) -> int:
    return await anyio.to_thread.run_sync(read_models.newest_event, service)
