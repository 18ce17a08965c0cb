"""Who may look at the pages and who may act, and that an act is meant.

A person's notebooks and other people's dashboards are of the same origin as these
pages, so a session cookie alone proves little. Therefore a page is only given to a
browser that navigates to it (Fetch Metadata, where the browser sends it), and what
changes something, or is fetched by a script, carries a token that is in the page: an
HMAC of the session by a key that no browser has.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from hub.signin import Person, SignIn, SignInNeededError
from hub.wiring import IA_API_ADMINS, IA_API_PHI, IA_API_VIEWERS
from services.ia_api.errors import BadInvocation, IaApiError, TooLarge

HEADER = "X-XSRF-Token"
FIELD = "_xsrf"
_FORM_BYTES = 32 << 10
_FORM_TIMEOUT_S = 10.0


class NoSuchPage(IaApiError):
    """There is no such page, or this person may not see it."""


class NotMeant(IaApiError):
    """The request came from another page than ours, or from one that is out of date."""


class SessionOver(IaApiError):
    """A script of an open page asks, and its person is not signed in any more."""


@dataclass(frozen=True)
class Member:
    """A person who may look at the pages."""

    name: str
    acts: bool
    sees_slides: bool
    """Whether slide ids may be shown, of apps that may ask for patient data."""
    xsrf: str


def member_of(person: Person, xsrf: str) -> Member:
    """What a person may do here; raises NoSuchPage for one who may nothing."""
    if not person.groups & {IA_API_ADMINS, IA_API_VIEWERS}:
        raise NoSuchPage("there is no such page")
    return Member(
        name=person.name,
        acts=IA_API_ADMINS in person.groups,
        sees_slides=IA_API_PHI in person.groups,
        xsrf=xsrf,
    )


def xsrf_of(session: str, secret: str) -> str:
    """The token of a session's pages."""
    key = hashlib.sha256(b"pages" + secret.encode()).digest()
    return hmac.new(key, session.encode(), hashlib.sha256).hexdigest()


def _own_xsrf(request: Request) -> str:
    session = request.cookies.get(os.environ["JUPYTERHUB_CLIENT_ID"], "")
    return xsrf_of(session, os.environ["JUPYTERHUB_API_TOKEN"])


def _is_same(given: str, own: str) -> bool:
    return hmac.compare_digest(given.encode(), own.encode())


async def _looking(request: Request) -> Member:
    own = _own_xsrf(request)
    meant = _is_same(request.headers.get(HEADER, ""), own)
    sign_in: SignIn = request.app.state.sign_in
    try:
        person = await sign_in.page(request)
    except SignInNeededError as err:
        if is_script(request):
            raise SessionOver("sign in again") from err
        raise
    member = member_of(person, own)
    if not meant and request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise NotMeant("open the page by its address")
    return member


async def _acting(request: Request) -> Member:
    sign_in: SignIn = request.app.state.sign_in
    try:
        person = await sign_in.page(request)
    except SignInNeededError as err:
        # The flow comes back by GET, and what was to be done would be lost unsaid.
        raise NotMeant("you are no longer signed in") from err
    member = member_of(person, _own_xsrf(request))
    if not member.acts:
        raise NoSuchPage("there is no such page")
    return member


Looker = Annotated[Member, Depends(_looking)]
"""Whoever looks at a page."""


async def _form(
    request: Request, member: Annotated[Member, Depends(_acting)]
) -> dict[str, str]:
    fields = dict(parse_qsl((await _body(request)).decode("utf-8", "replace")))
    if not _is_same(fields.pop(FIELD, ""), member.xsrf):
        raise NotMeant("the form does not come from a page of this session")
    return fields


Actor = Annotated[Member, Depends(_acting)]
"""Whoever sends a form, and may."""
Form = Annotated[dict[str, str], Depends(_form)]
"""The fields of a form that comes from one of our own pages."""


def is_script(request: Request) -> bool:
    """Whether an open page asks for a part of itself."""
    return request.headers.get("HX-Request") == "true"


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_FORM_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > _FORM_BYTES:
                    raise TooLarge(f"a form may have {_FORM_BYTES} bytes")
    except TimeoutError as err:
        raise BadInvocation("the form did not come in time") from err
    return bytes(body)
