"""How a page leaves: its templates, its headers, and what errors look like.

A part of a page that changes by itself is asked for again by htmx when the feed of
changes (server-sent events) tells of one. The part carries a digest of what it shows,
and where that is still the same the answer is empty and nothing on the page is
touched: no flicker, no lost focus.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hub.pages import CONTENT_POLICY
from hub.signin import NotSignedInError, SignInNeededError
from services.dicom_client.actions import Actions
from services.dicom_client.opening import Service
from services.dicom_client.pages import wording
from services.dicom_client.pages.rights import Member, NotMeant, SessionOver, is_script

_HERE = Path(__file__).parent
HUB = Path(__file__).parents[3] / "hub" / "static"
STATIC = {
    file.name: file
    for file in (
        HUB / "pages.css",
        HUB / "theatrum.svg",
        _HERE / "static" / "series.css",
        _HERE / "static" / "live.js",
        _HERE / "static" / "forms.js",
        _HERE / "static" / "upload.js",
        HUB / "vendor" / "htmx.min.js",
    )
}
"""What the pages load; nothing comes from anywhere else."""

_BESIDES: dict[type[Exception], tuple[int, str]] = {
    NotMeant: (403, "Load the page anew, and do it there."),
}


class Pages:
    """The templates with what all of them need; one for the life of the service."""

    def __init__(
        self,
        service: Service,
        actions: Actions,
        prefix: str,
        base_url: str,
        table: Mapping[type[Exception], tuple[int, str]],
        key: bytes,
    ) -> None:
        """`prefix`: where the service is, with a slash at its end."""
        self.service = service
        self.actions = actions
        self.prefix = prefix
        self.key = key
        self.statuses = {**table, **_BESIDES}
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "html"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            clock=wording.clock,
            day=wording.day,
            person=wording.person,
            iso=wording.iso,
            duration=wording.duration,
            size=wording.size,
            pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
            hexcolour=wording.hex_colour,
        )
        self._environment.globals.update(
            prefix=prefix,
            base_url=base_url,
            state_word=wording.state,
            event_word=wording.event,
            code_words=wording.CODES,
            act_words=wording.ACTS,
            zone=wording.zone,
            static={
                name: f"{prefix}static/{name}?v={_mark(STATIC[name])}"
                for name in STATIC
            },
        )

    def page(
        self,
        member: Member,
        template: str,
        /,
        *,
        status: int = 200,
        **facts: Any,  # Any: what the template shows
    ) -> Response:
        """A whole page."""
        return HTMLResponse(self.text(template, member, **facts), status)

    def live(
        self,
        request: Request,
        member: Member,
        template: str,
        part: str,
        /,
        *,
        follow: str,
        every_s: int = 0,
        form: str = "",
        seen: str = "",
        status: int = 200,
        **facts: Any,  # Any: what the template shows
    ) -> Response:
        """A page with a part that follows what happens; or only that part.

        `follow` is a series' id, `*` for all series, `uploads` for these, or empty
        where nothing more happens.
        `form` names the form that is sent again for a part that no address tells.
        """
        inner = self.text(part, member, **facts)
        digest = hashlib.sha256(f"{follow}{every_s}{inner}".encode()).hexdigest()[:16]
        if is_script(request) and digest in {request.query_params.get("seen"), seen}:
            return Response(status_code=204)
        live = self.text(
            "_live.html",
            member,
            inner=Markup(inner),  # noqa: S704 - made by a template of ours
            digest=digest,
            follow=follow,
            every_s=every_s,
            form=form,
            address=_address(request),
        )
        if is_script(request):
            return HTMLResponse(live)
        shown = Markup(live)  # noqa: S704 - made by a template of ours
        return self.page(member, template, status=status, live=shown, **facts)

    def text(
        self,
        template: str,
        member: Member | None,
        /,
        **facts: Any,  # Any: what the template shows
    ) -> str:
        return self._environment.get_template(template).render(member=member, **facts)

    def to(self, path: str) -> Response:
        """Go on at another page after a form was taken."""
        return RedirectResponse(f"{self.prefix}{path}", 303)

    def failure(self, err: Exception) -> tuple[int, str, str]:
        """An error as status, what to do, and what was wrong."""
        for kind in type(err).__mro__:
            if kind in self.statuses:
                return *self.statuses[kind], sentence(err)
        raise err

    def error(self, status: int, title: str, detail: str = "") -> Response:
        return HTMLResponse(
            self.text("error.html", None, status=status, heading=title, detail=detail),
            status,
        )


def sentence(err: Exception) -> str:
    """An error's message as a sentence; the name of a setting stays as it is."""
    text = str(err).strip().rstrip(".")
    if text.partition(" ")[0].rstrip(",:").isalpha():
        text = f"{text[:1].upper()}{text[1:]}"
    return f"{text}." if text else ""


def _address(request: Request) -> str:
    kept = request.url.remove_query_params(["seen", "done"])
    return f"{kept.path}?{kept.query}" if kept.query else kept.path


def _mark(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


class PageRoute(APIRoute):
    """A route that people's browsers ask: errors are pages."""

    def get_route_handler(
        self,
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            pages: Pages = request.app.state.pages
            try:
                answer = await handler(request)
            except SessionOver:
                # The page loads itself anew, and begins the sign-in by that.
                answer = Response(status_code=401, headers={"HX-Refresh": "true"})
            except (SignInNeededError, NotSignedInError):
                raise
            except RequestValidationError:
                answer = pages.error(400, "Change the address: a part of it is wrong.")
            except tuple(pages.statuses) as err:
                answer = pages.error(*pages.failure(err))
            answer.headers.setdefault("Cache-Control", "no-store")
            answer.headers["Content-Security-Policy"] = CONTENT_POLICY
            answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
            return answer

        return guarded


def page_router() -> APIRouter:
    return APIRouter(include_in_schema=False, route_class=PageRoute)


def _here(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


Here = Annotated[Pages, Depends(_here)]


def download(text: str | bytes, kind: str, name: str) -> Response:
    """A file to keep; `name` is ours and tells nothing of a patient."""
    return Response(
        text,
        media_type=kind,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def static_file(name: str) -> Response:
    """One of the pages' own files; their addresses change with their content."""
    return FileResponse(
        STATIC[name], headers={"Cache-Control": "private, max-age=31536000, immutable"}
    )
