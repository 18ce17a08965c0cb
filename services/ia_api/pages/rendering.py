"""How a page leaves: its templates, its headers, and what errors look like.

A part of a page that changes by itself is asked for again by htmx, at the page's own
address. The part carries a digest of what it shows, and where that is still the same
the answer is empty and nothing on the page is touched: no flicker, no lost focus.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hub.forms import is_script
from hub.pages import CONTENT_POLICY
from hub.signin import HubUnreachableError
from services.ia_api import answers
from services.ia_api.errors import IaApiError, NoSuchApp, NoSuchJob
from services.ia_api.handlers import Service
from services.ia_api.pages import wording
from services.ia_api.pages.rights import (
    Member,
    NoSuchPage,
    NotMeant,
    SessionOver,
)
from services.ia_api.transitions import Lost

_HERE = Path(__file__).parent
HUB = Path(__file__).parents[3] / "hub" / "static"
STATIC = {
    file.name: file
    for file in (
        HUB / "pages.css",
        _HERE / "static" / "copy.js",
        _HERE / "static" / "live.js",
        HUB / "vendor" / "htmx.min.js",
    )
}
"""What the pages load; nothing comes from anywhere else."""

STATUS: dict[type[Exception], tuple[int, str]] = {
    **answers.TABLE,
    NotMeant: (403, "Load the page anew, and do it there."),
    Lost: (409, "Look at the job again: it changed meanwhile."),
    HubUnreachableError: (503, "Try again: the hub does not answer."),
}
_ABSENT = (NoSuchPage, NoSuchJob, NoSuchApp)


class Pages:
    """The templates with what all of them need; one for the life of the service."""

    def __init__(self, service: Service, prefix: str, base_url: str) -> None:
        """`prefix`: where the service is, with a slash at its end."""
        self.service = service
        self.prefix = prefix
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            clock=wording.clock,
            iso=wording.iso,
            duration=wording.duration,
            octets=wording.octets,
        )
        self._environment.globals.update(
            prefix=prefix,
            base_url=base_url,
            state_word=wording.state,
            event_word=wording.event,
            step_words=wording.STEPS,
            code_words=wording.CODES,
            input_words=wording.INPUTS,
            action_words=wording.ACTIONS,
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
        *,
        status: int = 200,
        **facts: Any,  # Any: what the template shows
    ) -> Response:
        """A whole page."""
        return HTMLResponse(self._text(template, member, facts), status)

    def live(
        self,
        request: Request,
        member: Member,
        template: str,
        part: str,
        *,
        every_s: int | None,
        status: int = 200,
        **facts: Any,  # Any: what the template shows
    ) -> Response:
        """A page with a part that follows what happens; or only that part.

        `every_s` None: nothing more will happen to it.
        """
        inner = self._text(part, member, facts)
        digest = hashlib.sha256(f"{every_s}{inner}".encode()).hexdigest()[:16]
        if is_script(request) and request.query_params.get("seen") == digest:
            return Response(status_code=204)
        around = {
            "inner": Markup(inner),  # noqa: S704 - made by a template of ours
            "digest": digest,
            "every_s": every_s,
            "address": _address(request),
        }
        live = self._text("_live.html", member, around)
        if is_script(request):
            return HTMLResponse(live)
        shown = Markup(live)  # noqa: S704 - made by a template of ours
        return self.page(member, template, status=status, live=shown, **facts)

    def _text(self, template: str, member: Member, facts: dict[str, Any]) -> str:
        return self._environment.get_template(template).render(member=member, **facts)


def _address(request: Request) -> str:
    kept = request.url.remove_query_params(["seen", "done"])
    return f"{kept.path}?{kept.query}" if kept.query else kept.path


def _mark(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


class PageRoute(APIRoute):
    """A route that people's browsers ask: errors are pages, headers are strict."""

    def get_route_handler(
        self,
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                answer = await handler(request)
            except SessionOver:
                # The page loads itself anew, and begins the sign-in by that.
                answer = Response(status_code=401, headers={"HX-Refresh": "true"})
            except (IaApiError, HubUnreachableError) as err:
                answer = _told(err)
            except RequestValidationError:
                answer = _error(400, "Change the address: a part of it is wrong.", "")
            answer.headers.setdefault("Cache-Control", "no-store")
            answer.headers["Content-Security-Policy"] = CONTENT_POLICY
            answer.headers["Referrer-Policy"] = "no-referrer"
            answer.headers["X-Content-Type-Options"] = "nosniff"
            answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
            return answer

        return guarded


def _told(err: Exception) -> Response:
    if isinstance(err, _ABSENT):
        # The same to the letter, whatever is absent and whoever asks.
        return _error(404, "There is nothing here, or you may not see it.", "")
    for kind in type(err).__mro__:
        if kind in STATUS:
            status, title = STATUS[kind]
            return _error(status, title, str(err))
    return _error(500, "Tell the administrator.", "")


def _error(status: int, title: str, detail: str) -> Response:
    said = f"<p>{html.escape(wording.sentence(detail))}</p>" if detail else ""
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{status} - Theatrum</title></head><body>"
        f"<h1>{html.escape(title)}</h1>{said}</body></html>",
        status,
    )
