"""The web server that a pathology server calls: registration, info, invocations.

    GET  {prefix}/apps.json
    GET  {prefix}/apps/{id}                       registration
    GET  {prefix}/apps/{id}/info                  versions
    POST {prefix}/apps/{id}                       create, modify, delete, cancel
    POST {prefix}/apps/{id}/imagenotification     new image files

The prefix is the path of the public address and, where one is set, the secret segment.
Invocations run in threads, those of people apart from notifications, and are answered
by a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from services.ia_api import answers, audit, handlers
from services.ia_api.apps import App, registration
from services.ia_api.errors import Busy, IaApiError, NoSuchApp
from services.ia_api.guard import Guard, Rate
from services.ia_api.handlers import Asked, Service, Turn
from services.ia_api.invocations import Limits, parse

_THREADS = 80
_NOTIFICATION_THREADS = 8
_REFUSALS_PER_MINUTE = 60

log = logging.getLogger("theatrum.ia_api")


def make_app(service: Service, prefix: str = "") -> FastAPI:
    """The service's application; `service` lives as long as it does.

    `prefix`: where the hub's proxy puts it, without a slash at its end.
    """
    app = FastAPI(
        title="Theatrum IA-API",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    front = _Front(service)
    app.state.service = service
    app.state.ready = front.ready
    answers.install(app)
    # Behind a proxy that strips the public path, and behind one that does not.
    public = urlsplit(service.settings.public_url).path.rstrip("/")
    for beginning in sorted({"", prefix, public}):
        app.include_router(front.routes(), prefix=beginning)
    app.add_middleware(
        answers.VersionHeaders,
        default=service.servers.oldest,
        software_version=service.settings.software_version,
    )
    return app


def app_url(service: Service, app: App) -> str:
    """The address that an administrator registers: built here and nowhere else."""
    return f"{service.settings.public_url.rstrip('/')}{_secret(service)}/apps/{app.id}"


def _secret(service: Service) -> str:
    secret = service.settings.path_secret.get_secret_value()
    return f"/{secret}" if secret else ""


class _Front:
    """The routes, with what they share."""

    def __init__(self, service: Service) -> None:
        self._here = service
        self._guard = Guard(service.settings)
        self._told = Rate(_REFUSALS_PER_MINUTE)
        self._limits = Limits(
            depth=service.settings.depth, points=service.settings.points
        )
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._notification_threads = anyio.CapacityLimiter(_NOTIFICATION_THREADS)
        # Held, because a task that nobody holds may vanish while it runs.
        self._late: set[asyncio.Task[Any]] = set()

    def routes(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        secret = "/{secret}" if _secret(self._here) else ""

        def add(
            path: str, call: Callable[..., Awaitable[Response]], method: str
        ) -> None:
            for ending in ("", "/"):
                router.add_api_route(f"{secret}{path}{ending}", call, methods=[method])

        add("/apps.json", self.list_apps, "GET")
        add("/apps/{app_id}", self.register, "GET")
        add("/apps/{app_id}", self.invoke, "POST")
        add("/apps/{app_id}/info", self.info, "GET")
        add("/apps/{app_id}/imagenotification", self.notify, "POST")
        return router

    def ready(self) -> str | None:
        """Why the web server cannot work now; None where it can."""
        try:
            self._here.store.ping()
        except Exception as err:
            # Whatever a driver raises: the question is only whether it works.
            return f"the database does not answer ({type(err).__name__})"
        return None

    async def list_apps(self, request: Request) -> Response:
        """Id, name, input type and URL of each app."""
        self._admit(request)
        self._states(request, None)
        return _json(
            {
                "apps": [
                    {
                        "id": app.id,
                        "name": app.title,
                        "input": app.input,
                        "url": app_url(self._here, app),
                        "notifications": app.settings.notifications is not None,
                    }
                    for app in self._here.apps.values()
                ]
            }
        )

    async def register(self, request: Request, app_id: str) -> Response:
        """What "Retrieve registration info" of the configuration page asks for."""
        self._admit(request)
        app = self._app(app_id)
        self._states(request, None)
        url = app_url(self._here, app)
        return _json(registration(app, url, self._here.settings.manufacturer))

    async def info(self, request: Request, app_id: str) -> Response:
        """The newest version this app was tested with, and its own."""
        self._admit(request)
        self._app(app_id)
        self._states(request, None)
        return _json(
            {
                "apiVersion": str(self._here.servers.newest),
                "softwareVersion": self._here.settings.software_version,
            }
        )

    async def invoke(self, request: Request, app_id: str) -> Response:
        """An invocation by a person in the viewer."""
        return await self._invoke(request, app_id, notification=False)

    async def notify(self, request: Request, app_id: str) -> Response:
        """New image files were imported."""
        return await self._invoke(request, app_id, notification=True)

    async def _invoke(
        self, request: Request, app_id: str, *, notification: bool
    ) -> Response:
        try:
            caller = self._admit(request)
            app = self._app(app_id)
            self._guard.count(caller, notification=notification)
            body = await self._guard.body(request)
            invocation = parse(body, self._limits, notification=notification)
            if notification and invocation.action != "newImageFiles":
                # A person's request counts as one wherever it arrives.
                self._guard.count(caller, notification=False)
        except IaApiError as err:
            await self._refused(request, app_id, err)
            raise
        asked = Asked(
            app=app,
            invocation=invocation,
            caller=caller,
            deadline=time.monotonic() + self._here.settings.answer_deadline_s,
            turn=Turn(),
        )
        apart = invocation.action == "newImageFiles"
        told = await self._in_thread(
            asked, self._notification_threads if apart else self._threads
        )
        self._states(request, invocation.callback_url)
        return _json(told)

    async def _in_thread(self, asked: Asked, threads: anyio.CapacityLimiter) -> Any:
        work = asyncio.create_task(
            anyio.to_thread.run_sync(
                handlers.answer, self._here, asked, limiter=threads
            )
        )
        self._late.add(work)
        work.add_done_callback(self._over)
        left_s = asked.deadline - time.monotonic()
        done, _ = await asyncio.wait({work}, timeout=max(0.0, left_s))
        if not done and asked.turn.abandon():
            raise Busy("the answer was not ready in time")
        return await work

    def _over(self, work: asyncio.Task[Any]) -> None:
        self._late.discard(work)
        if not work.cancelled():
            # Taken note of, also where nobody waits for it any more.
            work.exception()

    async def _refused(self, request: Request, app_id: str, err: IaApiError) -> None:
        """Put what was refused at the door into the log, and the first of a minute
        into the audit log: a flood fills neither database nor disk."""
        known = app_id if app_id in self._here.apps else ""
        code = type(err).__name__
        caller = self._guard.address(request)
        try:
            self._told.take("")
        except Busy:
            return
        log.warning("a request is refused", extra={"caller": caller, "code": code})
        told = audit.line(caller, "refused", app=known, outcome=f"refused: {code}")
        await anyio.to_thread.run_sync(audit.note, self._here.store.database, told)

    def _admit(self, request: Request) -> str:
        caller = self._guard.caller(request)
        self._guard.secret(request.path_params.get("secret", ""))
        return caller

    def _app(self, app_id: str) -> App:
        try:
            return self._here.apps[app_id]
        except KeyError as err:
            raise NoSuchApp("there is no such app") from err

    def _states(self, request: Request, callback_url: str | None) -> None:
        """Which version the answer's header states: the one agreed on, if any."""
        version = (
            self._here.servers.newest
            if callback_url is None
            else self._here.servers.known(callback_url)
        )
        if version is not None:
            request.state.api_version = version


def _json(told: Any) -> Response:
    return JSONResponse(told, headers={"Cache-Control": "no-store"})
