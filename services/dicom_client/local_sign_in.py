"""Sign-in without a hub: one access token, made at the first start, opens everything.

It lies in the home (`dicom_client/access-token`, 0600). A program sends it
(`Authorization: token ...`); a browser gets a session for it from the sign-in page,
never by an address, which logs and histories keep.
"""

from __future__ import annotations

import html
import secrets
from urllib.parse import parse_qs

from cryptography.fernet import Fernet, InvalidToken
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from hub.home import Home, private_key
from hub.signin import NotSignedInError, Person, SignInNeededError
from services.dicom_client.opening import Service
from services.dicom_client.people import ROLES

_COOKIE = "theatrum-dicom-client"
_LIFE_S = 12 * 3600
_BODY_BYTES = 4096
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="static/pages.css"></head>
<body><main><h1>DICOM segmentation client</h1>
<form method="post" action="login">
<p><label>Access token (the file <code>dicom_client/access-token</code> of the home)
<input type="password" name="token" autocomplete="current-password" required></label>
<p role="alert">{fault}</p>
<p><button>Sign in</button>
</form></main></body></html>
"""


class LocalSignIn:
    """The same answers as the hub's sign-in gives."""

    prefix = "/"

    def __init__(self, service: Service) -> None:
        file = Home(service.home).dicom_client / "access-token"
        self._token = private_key(file, secrets.token_urlsafe(32).encode()).decode()
        # Sessions end with the process.
        self._box = Fernet(Fernet.generate_key())

    async def api(self, request: Request) -> Person:
        """Who asks the API; raises NotSignedInError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() in {"token", "bearer"} and self.is_right(token.strip()):
            return _administrator()
        if request.method in {"GET", "HEAD"} and self._has_session(request):
            return _administrator()
        raise NotSignedInError("send the access token in the Authorization header")

    async def page(self, request: Request) -> Person:
        """Who looks at a page; raises SignInNeededError."""
        if not self._has_session(request):
            raise SignInNeededError
        return _administrator()

    def is_right(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._token.strip().encode())

    def begin(self, answer: Response, request: Request) -> None:
        """Give a browser its session."""
        answer.set_cookie(
            _COOKIE,
            self._box.encrypt(b"signed in").decode(),
            max_age=_LIFE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )

    def _has_session(self, request: Request) -> bool:
        try:
            self._box.decrypt(request.cookies.get(_COOKIE, "").encode(), ttl=_LIFE_S)
        except InvalidToken:
            return False
        return True


def install(app: FastAPI, service: Service) -> None:
    """Add the sign-in page, and have the routes ask it."""
    sign_in = LocalSignIn(service)
    app.state.sign_in = sign_in

    @app.exception_handler(SignInNeededError)
    async def begin(_request: Request, _err: SignInNeededError) -> Response:
        return RedirectResponse("/login", 302)

    @app.get("/login", include_in_schema=False)
    async def ask() -> Response:
        return HTMLResponse(_PAGE.format(fault=""))

    @app.post("/login", include_in_schema=False)
    async def check(request: Request) -> Response:
        body = (await _first_bytes(request)).decode("ascii", "replace")
        (token,) = parse_qs(body).get("token", [""])[:1]
        if not sign_in.is_right(token.strip()):
            fault = html.escape(
                "This is not the access token: copy the whole line of the file."
            )
            return HTMLResponse(_PAGE.format(fault=fault), 403)
        answer = RedirectResponse("/", 303)
        sign_in.begin(answer, request)
        return answer


async def _first_bytes(request: Request) -> bytes:
    """The form, and no more of a body than a form has: anybody may send one."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) >= _BODY_BYTES:
            break
    return bytes(body[:_BODY_BYTES])


def _administrator() -> Person:
    return Person("administrator", "user", frozenset(ROLES))
