"""Who looks at a page and who acts, and that an act is meant.

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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from hub.signin import SignInNeededError
from services.dicom_client.errors import BadRequest, DicomClientError, NotAllowed
from services.dicom_client.pages.forms import Fields, parse
from services.dicom_client.people import Right, rights_of

HEADER = "X-XSRF-Token"
FIELD = "_xsrf"
UPLOAD_BYTES = 64 << 20
"""A structure set of hundreds of structures has some 30 MB."""
_TIMEOUT_S = 60.0
# Of the sign-in without a hub (local_sign_in).
_LOCAL_COOKIE = "theatrum-dicom-client"


class NotMeant(DicomClientError):
    """The request came from another page than ours, or from one that is out of date."""

    code = "not-meant"


class SessionOver(DicomClientError):
    """A script of an open page asks, and its person is not signed in any more."""

    code = "session-over"


@dataclass(frozen=True)
class Member:
    """A person who looks at the pages."""

    name: str
    rights: frozenset[Right]
    xsrf: str

    @property
    def sees(self) -> bool:
        return Right.SEE in self.rights

    @property
    def plans(self) -> bool:
        return Right.PLAN in self.rights

    @property
    def edits(self) -> bool:
        return Right.EDIT in self.rights

    @property
    def administers(self) -> bool:
        return Right.ADMINISTER in self.rights

    @property
    def role(self) -> str:
        if self.administers:
            return "administrator"
        names = {
            "planner": self.plans,
            "viewer": self.sees and not self.plans,
            "template editor": self.edits,
        }
        return ", ".join(name for name, has in names.items() if has)

    def key(self, thing: str) -> str:
        """What an address of a picture carries: it is good for this session only."""
        return hmac.new(self.xsrf.encode(), thing.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Sent:
    """A form that comes from one of our own pages, and who sent it."""

    member: Member
    fields: Fields


def is_script(request: Request) -> bool:
    """Whether an open page asks for a part of itself."""
    return request.headers.get("HX-Request") == "true"


async def _member(request: Request) -> Member:
    try:
        person = await request.app.state.sign_in.page(request)
    except SignInNeededError as err:
        if is_script(request):
            raise SessionOver("sign in again") from err
        raise
    rights = rights_of(person)
    if not rights:
        raise NotAllowed(
            "you are in none of the client's groups: ask its administrator"
        )
    cookie = os.environ.get("JUPYTERHUB_CLIENT_ID", _LOCAL_COOKIE)
    session = request.cookies.get(cookie, "")
    key: bytes = request.app.state.pages.key
    own = hmac.new(key, session.encode(), hashlib.sha256).hexdigest()
    return Member(person.name, rights, own)


def _need(member: Member, any_of: tuple[Right, ...]) -> Member:
    if not member.rights & set(any_of):
        raise NotAllowed(
            "your groups do not allow this: ask an administrator of the client for "
            f"the right to {' or '.join(any_of)}"
        )
    return member


def _looking(*any_of: Right) -> Callable[[Request], Awaitable[Member]]:
    async def member(request: Request) -> Member:
        found = _need(await _member(request), any_of)
        meant = is_same(request.headers.get(HEADER, ""), found.xsrf)
        if not meant and request.headers.get("Sec-Fetch-Dest", "document") not in {
            "document",
            "empty" if request.headers.get("Sec-Fetch-Mode") == "navigate" else "",
        }:
            raise NotMeant("open the page by its address")
        return found

    return member


async def _drawing(request: Request) -> Member:
    """A picture on a page: its address carries the key (`previewing`)."""
    return _need(await _member(request), (Right.SEE,))


def _sending(*any_of: Right) -> Callable[[Request], Awaitable[Sent]]:
    async def sent(request: Request) -> Sent:
        try:
            member = _need(await _member(request), any_of)
        except SignInNeededError as err:
            # The flow comes back by GET, and what was to be done would be lost unsaid.
            raise NotMeant("you are no longer signed in") from err
        fields = parse(request.headers.get("Content-Type", ""), await _body(request))
        if not is_same(fields.text(FIELD), member.xsrf):
            raise NotMeant("the form does not come from a page of this session")
        return Sent(member, fields)

    return sent


def _streaming(*any_of: Right) -> Callable[[Request], Awaitable[Member]]:
    async def member(request: Request) -> Member:
        try:
            found = _need(await _member(request), any_of)
        except SignInNeededError as err:
            raise NotMeant("you are no longer signed in") from err
        if not is_same(request.headers.get(HEADER, ""), found.xsrf):
            raise NotMeant("the file does not come from a page of this session")
        return found

    return member


def is_same(given: str, own: str) -> bool:
    """Whether two tokens are one, in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), own.encode())


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > UPLOAD_BYTES:
                    raise BadRequest(
                        f"a form may have {UPLOAD_BYTES >> 20} MiB: choose a smaller "
                        "file"
                    )
    except TimeoutError as err:
        raise BadRequest("the form did not come in time: send it again") from err
    return bytes(body)


# What a route of the pages declares: who looks ...
Anybody = Annotated[Member, Depends(_looking(*Right))]
Seer = Annotated[Member, Depends(_looking(Right.SEE))]
Drawer = Annotated[Member, Depends(_drawing)]
Planner = Annotated[Member, Depends(_looking(Right.PLAN))]
Chooser = Annotated[Member, Depends(_looking(Right.EDIT, Right.PLAN))]
Editor = Annotated[Member, Depends(_looking(Right.EDIT))]
Administrator = Annotated[Member, Depends(_looking(Right.ADMINISTER))]
# ... and who sends a form.
SeersForm = Annotated[Sent, Depends(_sending(Right.SEE))]
PlannersStream = Annotated[Member, Depends(_streaming(Right.PLAN))]
"""Whose request has a body that the route itself reads, piece by piece."""
PlannersForm = Annotated[Sent, Depends(_sending(Right.PLAN))]
EditorsForm = Annotated[Sent, Depends(_sending(Right.EDIT))]
AdministratorsForm = Annotated[Sent, Depends(_sending(Right.ADMINISTER))]
