"""Who may look at the pages and who may act, and that an act is meant (`hub.forms`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from hub.forms import (
    FIELD,
    FormTooLarge,
    FormTooSlow,
    body_of,
    is_meant,
    is_same,
    is_script,
    own_xsrf,
)
from hub.signin import Person, SignIn, SignInNeededError
from hub.wiring import IA_API_ADMINS, IA_API_PHI, IA_API_VIEWERS
from services.ia_api.errors import BadInvocation, IaApiError, TooLarge


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


async def _looking(request: Request) -> Member:
    own = own_xsrf(request)
    sign_in: SignIn = request.app.state.sign_in
    try:
        person = await sign_in.page(request)
    except SignInNeededError as err:
        if is_script(request):
            raise SessionOver("sign in again") from err
        raise
    member = member_of(person, own)
    if not is_meant(request, own):
        raise NotMeant("open the page by its address")
    return member


async def _acting(request: Request) -> Member:
    sign_in: SignIn = request.app.state.sign_in
    try:
        person = await sign_in.page(request)
    except SignInNeededError as err:
        # The flow comes back by GET, and what was to be done would be lost unsaid.
        raise NotMeant("you are no longer signed in") from err
    member = member_of(person, own_xsrf(request))
    if not member.acts:
        raise NoSuchPage("there is no such page")
    return member


Looker = Annotated[Member, Depends(_looking)]
"""Whoever looks at a page."""


async def _form(
    request: Request, member: Annotated[Member, Depends(_acting)]
) -> dict[str, str]:
    fields = dict(parse_qsl((await _body(request)).decode("utf-8", "replace")))
    if not is_same(fields.pop(FIELD, ""), member.xsrf):
        raise NotMeant("the form does not come from a page of this session")
    return fields


Actor = Annotated[Member, Depends(_acting)]
"""Whoever sends a form, and may."""
Form = Annotated[dict[str, str], Depends(_form)]
"""The fields of a form that comes from one of our own pages."""


async def _body(request: Request) -> bytes:
    try:
        return await body_of(request)
    except FormTooLarge as err:
        raise TooLarge(str(err)) from err
    except FormTooSlow as err:
        raise BadInvocation(str(err)) from err
