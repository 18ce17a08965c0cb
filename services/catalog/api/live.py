"""What changes, told as it happens: over a WebSocket, or as server-sent events.

A subscriber names topics: `project/3` for all that happens in a project, `image/ID` or
`batch/ID` for what is about one thing. Told is which row and which of its columns,
never their contents: who wants these asks, with the rights of that moment. Who may see
a topic is checked when it is subscribed to, and again every few seconds.

    -> {"command": "subscribe", "topics": ["project/3"]}
    <- {"subscribed": ["project/3"]}
    <- {"seq": 17, "topic": "image/abc", "kind": "image", "op": "create", "id": "abc",
        "project": 3, "changed": [], "at": "2026-03-01T12:00:00+00:00"}
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy import ColumnElement, func, or_, select
from theatrum.catalog.errors import CatalogError, NotFound
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.tables import Event

from hub.durable.database import Database
from hub.signin import HubUnreachableError, NotSignedInError, SignIn
from services.catalog.api import rights
from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Reading, Right

log = logging.getLogger(__name__)
router = APIRouter(tags=["live"])

LOOK_S = 0.25
"""Between looks at the feed, while somebody listens."""
CHECK_S = 5.0
"""Between looks at whether a subscriber may still see what they listen to."""
QUEUED = 1000
"""Events that a slow subscriber may be behind; then they are told to come again."""
MOST_TOPICS = 100
_TOPIC = re.compile(r"(project|image|batch|run)/[0-9a-z]{1,16}")
_RESOURCES = {
    "project": "projects",
    "image": "images",
    "batch": "batches",
    "run": "runs",
}


# Any here: JSON
@dataclass(eq=False)
class Listener:
    """One subscriber: what they listen to, and what waits for them."""

    topics: set[str] = field(default_factory=set)
    waiting: asyncio.Queue[dict[str, Any]] = field(
        default_factory=lambda: asyncio.Queue(QUEUED)
    )
    late: bool = False

    def offer(self, event: dict[str, Any]) -> None:
        """Queue an event that is about one of the topics."""
        own = {event["topic"], f"project/{event['project']}"}
        if not own & self.topics:
            return
        try:
            self.waiting.put_nowait(event)
        except asyncio.QueueFull:
            self.late = True


class Feed:
    """One look at the database for all subscribers of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._seq = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        """A subscriber for as long as the block lasts."""
        listener = Listener()
        if self._task is None:
            self._seq = await run_in_threadpool(self._newest)
            self._task = asyncio.create_task(self._follow())
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    def since(self, seq: int, topics: set[str], most: int) -> list[dict[str, Any]]:
        """The first events after one, as far as they are about the topics."""
        projects = [
            int(key)
            for kind, _, key in (topic.partition("/") for topic in topics)
            if kind == "project"
        ]
        about = or_(Event.topic.in_(topics), Event.project_id.in_(projects))
        return self._after(seq, most, about)

    async def _follow(self) -> None:
        while True:
            try:
                events = await run_in_threadpool(self._after, self._seq, QUEUED)
            except Exception as err:
                log.warning("the feed cannot be read: %s", type(err).__name__)
                events = []
            for event in events:
                self._seq = event["seq"]
                for listener in self._listeners:
                    listener.offer(event)
            if len(events) < QUEUED:
                await asyncio.sleep(LOOK_S)

    def _newest(self) -> int:
        with self._database.reading() as session:
            return session.scalar(select(func.max(Event.seq))) or 0

    def _after(
        self, seq: int, most: int, about: ColumnElement[bool] | None = None
    ) -> list[dict[str, Any]]:
        query = select(Event).where(Event.seq > seq).order_by(Event.seq).limit(most)
        if about is not None:
            query = query.where(about)
        with self._database.reading() as session:
            return [_said(event) for event in session.scalars(query)]


def _said(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "topic": event.topic,
        "kind": event.kind,
        "op": event.op,
        "id": event.object_id,
        "project": event.project_id,
        "changed": event.changed,
        "at": event.at.isoformat(),
    }


def allowed(service: Service, right: Right, topics: Sequence[str]) -> set[str]:
    """The topics, where the asker may see them all; raises NotFound."""
    if len(topics) > MOST_TOPICS:
        raise NotFound(f"listen to {MOST_TOPICS} topics at most")
    backend = right.backend(service)
    for topic in topics:
        kind, _, key = topic.partition("/")
        if not _TOPIC.fullmatch(topic) or (kind == "project" and not key.isdigit()):
            raise NotFound(f"there is no topic {topic!r} that you may see")
        if not backend.rows(Spec(_RESOURCES[kind], (Q(id=key),), limit=1)):
            raise NotFound(f"there is no topic {topic!r} that you may see")
    return set(topics)


@router.get("/events", response_class=StreamingResponse)
async def get_events(
    request: Request,
    service: Here,
    right: Reading,
    topics: Annotated[str, Query(max_length=4000, description="With commas between")],
) -> StreamingResponse:
    """What happens about the topics, as server-sent events.

    Who comes again with `Last-Event-ID` is told what they missed.
    """
    wanted = await run_in_threadpool(allowed, service, right, topics.split(","))
    last = request.headers.get("Last-Event-ID", "")
    feed: Feed = request.app.state.feed

    async def told() -> AsyncIterator[str]:
        async with feed.listening() as listener:
            listener.topics = wanted
            yield ": listening\n\n"
            sent = int(last) if last.isdigit() else None
            more = True
            while more and sent is not None:
                missed = await run_in_threadpool(feed.since, sent, wanted, QUEUED)
                for one in missed:
                    sent = one["seq"]
                    yield _event(one)
                more = len(missed) == QUEUED
            async for event in _followed(listener, service, right):
                if event is None:
                    yield ": still here\n\n"
                elif sent is None or event["seq"] > sent:
                    yield _event(event)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(told(), 200, headers, "text/event-stream")


def _event(event: dict[str, Any]) -> str:
    return f"id: {event['seq']}\nevent: change\ndata: {json.dumps(event)}\n\n"


async def _followed(
    listener: Listener, service: Service, right: Right
) -> AsyncIterator[dict[str, Any] | None]:
    """What comes for a listener; None now and then. Ends where a right ended."""
    loop = asyncio.get_running_loop()
    check = loop.time() + CHECK_S
    while not listener.late:
        event: dict[str, Any] | None = None
        with suppress(TimeoutError):
            left = max(0.0, check - loop.time())
            event = await asyncio.wait_for(listener.waiting.get(), left)
        if event is not None:
            yield event
            continue
        try:
            await run_in_threadpool(allowed, service, right, sorted(listener.topics))
        except CatalogError:
            return
        check = loop.time() + CHECK_S
        yield None


@router.websocket("/ws")
async def listen(socket: WebSocket) -> None:
    """What happens, for programs and pages; see the module's text."""
    service: Service = socket.app.state.service
    feed: Feed = socket.app.state.feed
    right = await _asker(socket)
    if right is None:
        # Nothing was said yet: the answer to the handshake is 403.
        await socket.close(1008)
        return
    await socket.accept()

    def allow(topics: Sequence[str]) -> set[str]:
        return allowed(service, right, topics)

    async with feed.listening() as listener:
        sending = asyncio.create_task(_send(socket, listener, service, right))
        try:
            await _take(
                socket, lambda topics: allowed(service, right, topics), listener
            )
        except WebSocketDisconnect:
            pass
        finally:
            sending.cancel()


async def _asker(socket: WebSocket) -> Right | None:
    """Who connects; a page of another origin is nobody (CWE-1385)."""
    origin = socket.headers.get("Origin")
    if origin and urlsplit(origin).netloc != socket.headers.get("Host"):
        return None
    sign_in: SignIn = socket.app.state.sign_in
    try:
        person = await sign_in.connection(socket)
    except (NotSignedInError, HubUnreachableError):
        return None
    return Right(person, rights.READ) if rights.carried(person, rights.READ) else None


async def _take(
    socket: WebSocket,
    allow: Callable[[Sequence[str]], set[str]],
    listener: Listener,
) -> None:
    """Carry out what the subscriber says, until they go."""
    while True:
        try:
            said = json.loads(await socket.receive_text())
            command, topics = said["command"], [str(one) for one in said["topics"]]
        except (ValueError, KeyError, TypeError):
            await socket.send_json(
                {"error": 'say {"command": "subscribe", "topics": ["project/1"]}'}
            )
            continue
        if command == "subscribe":
            try:
                fresh = await run_in_threadpool(allow, topics)
            except CatalogError as err:
                await socket.send_json({"error": str(err), "topics": topics})
                continue
            if len(listener.topics | fresh) > MOST_TOPICS:
                await socket.send_json({"error": f"{MOST_TOPICS} topics at most"})
                continue
            listener.topics |= fresh
            await socket.send_json({"subscribed": sorted(listener.topics)})
        elif command == "leave":
            listener.topics -= set(topics)
            await socket.send_json({"subscribed": sorted(listener.topics)})
        else:
            await socket.send_json({"error": "a command is subscribe or leave"})


async def _send(
    socket: WebSocket, listener: Listener, service: Service, right: Right
) -> None:
    async for event in _followed(listener, service, right):
        if event is not None:
            await socket.send_json(event)
    await socket.close(1008 if not listener.late else 1013)
