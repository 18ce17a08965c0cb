"""Forms of pages that change something by a session, and that they are meant.

A person's notebooks and other people's dashboards are of the same origin as the pages
of the services, so a session cookie alone proves little. Therefore a page with forms is
only given to a browser that navigates to it (Fetch Metadata, where the browser sends
it), and what changes something, or is fetched by a script, carries a token that is in
the page: an HMAC of the session by a key that no browser has.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os

from fastapi import Request

HEADER = "X-XSRF-Token"
FIELD = "_xsrf"
FORM_BYTES = 32 << 10
_FORM_TIMEOUT_S = 10.0


class FormTooLarge(Exception):
    """A form has more bytes than any of our pages makes."""


class FormTooSlow(Exception):
    """A form did not come in time."""


def xsrf_of(session: str, secret: str) -> str:
    """The token of a session's pages."""
    key = hashlib.sha256(b"pages" + secret.encode()).digest()
    return hmac.new(key, session.encode(), hashlib.sha256).hexdigest()


def own_xsrf(request: Request) -> str:
    """The token of the pages of the session that asks."""
    session = request.cookies.get(os.environ["JUPYTERHUB_CLIENT_ID"], "")
    return xsrf_of(session, os.environ["JUPYTERHUB_API_TOKEN"])


def is_same(given: str, own: str) -> bool:
    """Whether a token is the session's, in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), own.encode())


def is_meant(request: Request, own: str) -> bool:
    """Whether a page was asked for by a navigation, or by a script of our own."""
    return (
        is_same(request.headers.get(HEADER, ""), own)
        or request.headers.get("Sec-Fetch-Dest", "document") == "document"
    )


def is_script(request: Request) -> bool:
    """Whether an open page asks for a part of itself."""
    return request.headers.get("HX-Request") == "true"


async def body_of(request: Request) -> bytes:
    """A form's bytes; raises FormTooLarge or FormTooSlow."""
    body = bytearray()
    try:
        async with asyncio.timeout(_FORM_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > FORM_BYTES:
                    raise FormTooLarge(f"a form may have {FORM_BYTES} bytes")
    except TimeoutError as err:
        raise FormTooSlow("the form did not come in time") from err
    return bytes(body)
