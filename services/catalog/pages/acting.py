"""Who may act on the pages: by a session, with the token of a page of ours.

See `hub.forms` for why a session alone is not enough.
"""

from __future__ import annotations

from typing import Annotated, cast
from urllib.parse import parse_qs

from fastapi import Depends, Request
from theatrum.catalog.errors import CatalogError, NotAllowed

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
from services.catalog.api.limits import WRITE
from services.catalog.errors import TooLargeError

Fields = dict[str, list[str]]


async def _looking(request: Request) -> Person:
    sign_in = cast(SignIn, request.app.state.sign_in)
    try:
        person = await sign_in.page(request)
    except SignInNeededError as err:
        if is_script(request):
            # The hub's sign-in is no part of our page.
            raise NotAllowed("you are no longer signed in: open the page anew") from err
        raise
    if not is_meant(request, own_xsrf(request)):
        raise NotAllowed("open the page by its address")
    return person


async def _acting(request: Request) -> Person:
    sign_in = cast(SignIn, request.app.state.sign_in)
    try:
        person = await sign_in.page(request)
    except SignInNeededError as err:
        # The flow comes back by GET, and what was to be done would be lost unsaid.
        raise NotAllowed("you are no longer signed in: open the page again") from err
    request.app.state.service.limiter.take(person.name, WRITE)
    return person


Actor = Annotated[Person, Depends(_acting)]
"""Whoever sends a form."""


async def _form(request: Request, _person: Actor) -> Fields:
    try:
        body = await body_of(request)
    except FormTooLarge as err:
        raise TooLargeError(str(err)) from err
    except FormTooSlow as err:
        raise CatalogError(str(err)) from err
    text = body.decode("utf-8", "replace")
    fields = parse_qs(text, keep_blank_values=True, max_num_fields=2000)
    given = fields.pop(FIELD, [""])[0]
    if not is_same(given, own_xsrf(request)):
        raise NotAllowed("the form does not come from a page of this session")
    return fields


Looker = Annotated[Person, Depends(_looking)]
"""Whoever looks at a page that holds forms."""
Form = Annotated[Fields, Depends(_form)]
"""The fields of a form that comes from one of our own pages."""


def one(fields: Fields, name: str) -> str:
    """A field's first value, without the space around it; "" where there is none."""
    return fields.get(name, [""])[0].strip()
