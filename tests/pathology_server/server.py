"""The server itself: its state, and the way of a request through it.

A request is recorded, meets its fault, is matched to a route that its version has, is
authorised, and only then answered. All state is in memory and goes with the server.
"""

from __future__ import annotations

import itertools
import json
import ssl
import threading
from collections.abc import Iterable
from types import TracebackType
from urllib.parse import parse_qsl

from . import routes
from .callbacks import HANDLERS, Call, Refused
from .clock import Clock
from .faults import Delay, DropAfter, Fault, FaultPlan, Passes, Reset, Status
from .record import Exchange, Record, body_hash
from .results import Results
from .slides import Json, Slide, Verdict, phi_values
from .tokens import Tokens
from .versions import OLDEST, Version, parse_version, version_text
from .wire import Reply, Request, Wire

BASE_PATH = "/SectraPathologyServer/external/imageanalysis/v1"
USER = "ia-service"
PASSWORD = "ia-service-password"


class PathologyServer:
    """A pathology server on a socket of this machine.

        with PathologyServer([synthetic_slide("sl-1")]) as server:
            httpx.get(f"{server.url}/info", ...)

    Parameters
    ----------
    slides
        What it holds; `add` adds more.
    api_version
        Endpoints and fields newer than it are not there.
    strict
        Refuse what the real server may let pass: see the README.
    conflict_status
        The answer to a stale version, which is not public.
    latency_s
        Waited before every callback is looked at.
    token_lifetime_s
        Of callback tokens, on the server's clock.
    attachment_upload
        Whether attachments may be uploaded (an invention of this server).
    object_context
        Tell an application's context as an object instead of a text of JSON.
    trailing_slash
        Hand out the callback address with a slash at its end.
    keep_requests
        How many requests are remembered; all of them by default.
    tls
        Serve https with this context, which holds a certificate.
    """

    def __init__(
        self,
        slides: Iterable[Slide] = (),
        *,
        api_version: str = "1.10",
        strict: bool = True,
        conflict_status: int = 409,
        latency_s: float = 0.0,
        token_lifetime_s: float = 3600.0,
        attachment_upload: bool = False,
        object_context: bool = False,
        trailing_slash: bool = False,
        keep_requests: int | None = None,
        software_version: str = "4.2.0.22617",
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.api_version: Version = parse_version(api_version)
        if self.api_version < OLDEST:
            raise ValueError(f"versions before {version_text(OLDEST)} are not known")
        self.strict = strict
        self.conflict_status = conflict_status
        self.latency_s = latency_s
        self.attachment_upload = attachment_upload
        self.object_context = object_context
        self.trailing_slash = trailing_slash
        self.software_version = software_version
        self.clock = clock or Clock()
        self.tokens = Tokens(self.clock, lifetime_s=token_lifetime_s)
        self.slides: dict[str, Slide] = {}
        self.results = Results(self.api_version)
        self.faults = FaultPlan()
        self.record = Record(keep=keep_requests)
        self.users = {USER: PASSWORD}
        self.token_users = {USER}
        self.sessions = {"user-session-0001"}
        self.warnings: list[str] = []
        self._applications: dict[str, Json] = {}
        self._quality: dict[str, Json] = {}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._wire = Wire(
            self._answer,
            before=lambda _request: self.latency_s,
            host=host,
            port=port,
            tls=tls,
        )
        self._scheme = "http" if tls is None else "https"
        self._host = host
        self.add(*slides)

    def __enter__(self) -> PathologyServer:
        self._wire.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wire.__exit__(kind, error, trace)

    @property
    def origin(self) -> str:
        """Scheme, host and port: what an application's allow-list names."""
        return f"{self._scheme}://{self._host}:{self._wire.port}"

    @property
    def url(self) -> str:
        """The callback address, without a slash at its end."""
        return f"{self.origin}{BASE_PATH}"

    def add(self, *slides: Slide) -> None:
        with self._lock:
            for slide in slides:
                self.slides[slide.slide_id] = slide
                if slide.quality is not None:
                    quality: Json = {"status": slide.quality, "versionId": "1"}
                    self._quality[slide.slide_id] = quality

    def remove_slide(self, slide_id: str) -> None:
        with self._lock:
            del self.slides[slide_id]

    def case(self, accession_number: str, issuer: str | None) -> list[Slide]:
        """The slides of a case; raises the 404 where there is none."""
        with self._lock:
            found = [
                slide
                for slide in self.slides.values()
                if slide.accession_number == accession_number
                and issuer in {None, slide.phi.get("accessionNumberIssuer")}
            ]
        if not found:
            raise Refused(404, "no such case")
        return found

    def quality_of(self, slide: Slide) -> Json | None:
        with self._lock:
            held = self._quality.get(slide.slide_id)
            return None if held is None else dict(held)

    def set_quality(self, slide_id: str, status: Verdict) -> None:
        """Change the verdict, as a route or a user does; its version rises."""
        with self._lock:
            held = self._quality[slide_id]
            version = str(int(held["versionId"]) + 1)
            self._quality[slide_id] = {"status": status, "versionId": version}

    def add_application(self, application_id: str, registration: Json) -> None:
        """Register an application, as the administrator's page does."""
        with self._lock:
            self._applications[application_id] = registration

    def knows(self, application_id: str) -> bool:
        with self._lock:
            return application_id in self._applications

    def application_body(self, application_id: str) -> Json:
        with self._lock:
            held = self._applications[application_id]
        context = held.get("context") or {}
        return {
            "applicationId": application_id,
            "displayName": held.get("displayName", application_id),
            "manufacturer": held.get("manufacturer", "unknown"),
            "context": context if self.object_context else json.dumps(context),
        }

    def registered_context(self, application_id: str) -> Json | None:
        with self._lock:
            return self._applications.get(application_id, {}).get("context")

    def callback_info(self, application_id: str, **token: float | None) -> Json:
        """Address and a fresh token, as they stand in an invocation."""
        return {
            "url": self.url + ("/" if self.trailing_slash else ""),
            "token": self.tokens.issue(application_id, **token),
        }

    def warn(self, text: str) -> None:
        with self._lock:
            self.warnings.append(text)

    def secrets(self) -> list[str]:
        """Every token and patient-like text: none may be left in a file or a log."""
        with self._lock:
            slides = list(self.slides.values())
        texts = [text for slide in slides for text in phi_values(slide)]
        return [*self.tokens.issued, *texts]

    def _answer(self, request: Request) -> Reply:
        number = next(self._numbers)
        path = request.raw_path.removeprefix(BASE_PATH)
        below = request.raw_path.startswith(f"{BASE_PATH}/")
        query = tuple(parse_qsl(request.raw_query, keep_blank_values=True))
        found = routes.find(request.method, path, self.api_version) if below else 404
        names = found.names if isinstance(found, routes.Found) else {}
        route = found.route.name if isinstance(found, routes.Found) else ""
        slide_id = names.get("slideId") or _slide_in(route, request.body)
        fault = self.faults.take(routes.ALIASES.get(route, route), slide_id)
        reason = ""
        try:
            reply = self._judged(request, found, dict(reversed(query)), fault)
        except Refused as refused:
            reason = str(refused)
            reply = Reply(
                refused.status, {"Content-Type": "text/plain"}, f"{reason}\n".encode()
            )
        if not isinstance(fault, Passes | Status | Delay):
            reply.fault = fault
        if isinstance(fault, Delay):
            reply.delay_s = fault.seconds
        self.record.add(
            Exchange(
                number=number,
                time_s=self.clock.now_s(),
                method=request.method,
                path=path,
                query=query,
                headers=request.headers,
                body_sha256=body_hash(request.body),
                body_bytes=len(request.body),
                route=route,
                application_id=names.get("applicationId"),
                slide_id=slide_id,
                result_id=int(names["resultId"]) if "resultId" in names else None,
                status=None if isinstance(fault, Reset | DropAfter) else reply.status,
                reason=reason,
                fault="" if isinstance(fault, Passes) else type(fault).__name__,
            )
        )
        return reply

    def _judged(
        self,
        request: Request,
        found: routes.Found | int,
        query: dict[str, str],
        fault: Fault,
    ) -> Reply:
        if isinstance(found, int):
            raise Refused(found, "no such method here" if found == 405 else "not here")
        if isinstance(fault, Status):
            wait_s = fault.retry_after_s
            headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
            if fault.location is not None:
                headers["Location"] = fault.location
            return Reply(fault.code, headers, fault.text.encode())
        if isinstance(fault, Reset):
            return Reply(503)
        self._authorise(request, found)
        declared = self._declared(request, found.route)
        call = Call(request, found.route.name, found.names, query, declared)
        return HANDLERS[found.route.name](self, call)

    def _authorise(self, request: Request, found: routes.Found) -> None:
        if found.route.access != "bearer":
            return
        application_id = found.names.get("applicationId")
        header = request.headers.get("authorization", "")
        status = self.tokens.refusal(header, application_id)
        if status is not None:
            raise Refused(status, "the token does not open this")
        if application_id is not None and not self.knows(application_id):
            raise Refused(404, "no such application")

    def _declared(self, request: Request, route: routes.Route) -> Version:
        said = request.headers.get("x-sectra-apiversion")
        if said is None and not (self.strict and route.declares):
            return OLDEST
        try:
            declared = parse_version(said or "")
        except ValueError as error:
            raise Refused(400, f"X-Sectra-ApiVersion: {error}") from error
        # The first question is asked before the client can know the server's version.
        if declared > self.api_version and route.name != "info":
            self.warn(
                f"{request.method} {request.raw_path}: declares {said}, but this server"
                f" is of version {version_text(self.api_version)}"
            )
        return declared


def _slide_in(route: str, body: bytes) -> str | None:
    """The slide of a result's body, so that faults and records may name it."""
    if route not in {
        "results.create",
        "results.update",
        "hooks.create",
        "hooks.update",
    }:
        return None
    try:
        told = json.loads(body)
    except ValueError:
        return None
    slide_id = told.get("slideId") if isinstance(told, dict) else None
    return slide_id if isinstance(slide_id, str) else None
