"""Who is asking: hub sign-in for the FastAPI services.

A program sends its hub token (`Authorization: token ...`). A browser gets a session
of the service by the hub's OAuth flow (RFC 6749 with PKCE, RFC 7636), begun only by
the navigation to a page: image and fetch requests never begin one, so that parallel
requests cannot collide. A session reads; whoever changes something sends a token,
so that no page of another origin, and no notebook output, acts in a person's name.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from jupyterhub.services.auth import HubOAuth
from starlette.requests import HTTPConnection
from tornado.web import HTTPError

_FLOW_LIFE_S = 600


class NotSignedInError(Exception):
    """No valid token or session came with the request."""


class HubUnreachableError(Exception):
    """The hub, which knows who people are, does not answer."""


class SignInNeededError(Exception):
    """A person's browser asked for a page without a session: begin the flow."""


@dataclass(frozen=True)
class Person:
    """Who is asking: a person, or a service with an account at the hub."""

    name: str
    kind: str
    groups: frozenset[str]
    # What the token may be used for, as the hub expanded it: a person can ask the hub
    # for a token that may do less than they may.
    scopes: frozenset[str] = frozenset()


class SignIn:
    """The hub's sign-in for one service; its state is the hub's and the cookies'."""

    def __init__(self) -> None:
        # Rights change without a restart: what the hub said is kept only briefly.
        self._hub = HubOAuth(cache_max_age=10)
        self.prefix = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
        secret = hashlib.sha256(b"session" + self._hub.api_token.encode()).digest()
        self._box = Fernet(urlsafe_b64encode(secret))
        self._cookie = self._hub.oauth_client_id

    def install(self, app: FastAPI) -> None:
        """Add the sign-in flow to the application, for `Asker` and `Visitor`."""
        app.state.sign_in = self
        app.add_api_route(
            f"{self.prefix}oauth_callback", self.finish, include_in_schema=False
        )

        @app.exception_handler(SignInNeededError)
        async def begin(request: Request, _err: SignInNeededError) -> Response:
            return self.begin(request)

    async def api(self, request: Request) -> Person:
        """Who asks the API; raises NotSignedInError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() in {"token", "bearer"} and token:
            return await self._person(token.strip())
        if request.method in {"GET", "HEAD"}:
            return await self._session(request)
        raise NotSignedInError("send the hub token in the Authorization header")

    async def connection(self, connection: HTTPConnection) -> Person:
        """Who opens a connection that only listens; raises NotSignedInError.

        Pages of other origins can open WebSockets with a person's cookies: whoever
        calls this looks at the Origin first.
        """
        scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
        if scheme.lower() in {"token", "bearer"} and token:
            return await self._person(token.strip())
        return await self._session(connection)

    async def page(self, request: Request) -> Person:
        """Who looks at a page; raises SignInNeededError."""
        try:
            return await self._session(request)
        except NotSignedInError as err:
            raise SignInNeededError from err

    def begin(self, request: Request) -> Response:
        """Send the browser to the hub, and back to the page that it asked for."""
        verifier, challenge, method = self._hub.generate_pkce_code_challenge()
        state = secrets.token_urlsafe(16)
        answer = RedirectResponse(
            self._hub.login_url
            + "&"
            + urlencode(
                {
                    "state": state,
                    "code_challenge": challenge,
                    "code_challenge_method": method,
                }
            ),
            302,
        )
        target = request.url.path
        if request.url.query:
            target = f"{target}?{request.url.query}"
        flow = json.dumps({"state": state, "target": target, "verifier": verifier})
        # One cookie for each flow: two tabs that sign in at once both arrive.
        self._set(answer, request, self._flow_cookie(state), flow, _FLOW_LIFE_S)
        return answer

    async def finish(
        self, request: Request, state: str = "", code: str = ""
    ) -> Response:
        """The browser comes back from the hub with a code for a token."""
        flow = self._open(request, self._flow_cookie(state), _FLOW_LIFE_S)
        if not flow or not code:
            return RedirectResponse(self.prefix, 302)
        noted = json.loads(flow)
        if not secrets.compare_digest(noted["state"], state):
            return RedirectResponse(self.prefix, 302)
        token = await self._hub.token_for_code(
            code, code_verifier=noted["verifier"], sync=False
        )
        answer = RedirectResponse(noted["target"], 302)
        answer.delete_cookie(self._flow_cookie(state), path=self.prefix)
        self._set(answer, request, self._cookie, token, None)
        return answer

    def _flow_cookie(self, state: str) -> str:
        return f"{self._cookie}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"

    async def _session(self, request: HTTPConnection) -> Person:
        token = self._open(request, self._cookie, None)
        if not token:
            raise NotSignedInError("sign in at the hub, or send a hub token")
        return await self._person(token)

    async def _person(self, token: str) -> Person:
        try:
            # Any: the hub's user model, a plain dictionary.
            model: dict[str, Any] | None = await self._hub.user_for_token(
                token, sync=False
            )
        except HTTPError as err:
            # An invalid token is no error here: this is a hub that does not answer.
            raise HubUnreachableError("the hub does not answer") from err
        if not model or not self._hub.check_scopes(self._hub.access_scopes, model):
            raise NotSignedInError("this token gives no access here")
        return Person(
            name=model["name"],
            kind=model["kind"],
            groups=frozenset(model.get("groups", ())),
            scopes=frozenset(model.get("scopes", ())),
        )

    def _set(
        self,
        answer: Response,
        request: Request,
        name: str,
        value: str,
        life_s: int | None,
    ) -> None:
        forwarded = request.headers.get("X-Forwarded-Proto", request.url.scheme)
        answer.set_cookie(
            name,
            self._box.encrypt(value.encode()).decode(),
            max_age=life_s,
            path=self.prefix,
            httponly=True,
            samesite="lax",
            secure=forwarded.split(",")[0].strip() == "https",
        )

    def _open(self, request: HTTPConnection, name: str, life_s: int | None) -> str:
        try:
            sealed = request.cookies.get(name, "").encode()
            return self._box.decrypt(sealed, ttl=life_s).decode()
        except InvalidToken:
            return ""


async def _asker(request: Request) -> Person:
    sign_in: SignIn = request.app.state.sign_in
    return await sign_in.api(request)


async def _visitor(request: Request) -> Person:
    sign_in: SignIn = request.app.state.sign_in
    return await sign_in.page(request)


# What a route declares: who asks the API, or which person looks at a page.
Asker = Annotated[Person, Depends(_asker)]
Visitor = Annotated[Person, Depends(_visitor)]
