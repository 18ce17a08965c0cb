"""Who may call, how often, and how much: before a body is looked into."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import OrderedDict

from fastapi import Request

from services.ia_api.errors import BadInvocation, Busy, NoSuchApp, NotAllowed, TooLarge
from services.ia_api.origins import caller, is_in
from services.ia_api.settings import ServiceSettings

BODY_TIMEOUT_S = 10.0
"""For the whole of a body: one that dribbles in is not waited for."""
_MOST_CALLERS = 10_000


class Rate:
    """A bucket of requests for each caller, that fills again over a minute."""

    def __init__(self, per_minute: int) -> None:
        self._size = float(per_minute)
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> None:
        """Count a request; raises Busy where there were too many."""
        now = time.monotonic()
        with self._lock:
            left, at = self._left.pop(who, (self._size, now))
            left = min(self._size, left + (now - at) * self._size / 60)
            self._left[who] = (max(0.0, left - 1), now)
            if len(self._left) > _MOST_CALLERS:
                self._left.popitem(last=False)
        if left < 1:
            raise Busy("too many requests came within a minute")


class Guard:
    """The doorkeeper of the web server."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._rates = {
            False: Rate(settings.invocations_per_minute),
            True: Rate(settings.notifications_per_minute),
        }

    def address(self, request: Request) -> str:
        """The caller's address, allowed or not."""
        peer = request.client.host if request.client else ""
        return caller(
            peer,
            request.headers.get("X-Forwarded-For"),
            self._settings.trusted_proxies,
        )

    def caller(self, request: Request) -> str:
        """The caller's address; NotAllowed where it is in none of the networks."""
        address = self.address(request)
        allowed = self._settings.allow_clients
        if allowed and not is_in(address, allowed):
            raise NotAllowed("this network may not call the service")
        return address

    def count(self, who: str, *, notification: bool) -> None:
        """Count a request of a caller; raises Busy."""
        self._rates[notification].take(who)

    def secret(self, given: str) -> None:
        """Raise NoSuchApp where the address does not hold the secret segment."""
        wanted = self._settings.path_secret.get_secret_value()
        if not secrets.compare_digest(given.encode(), wanted.encode()):
            raise NoSuchApp("there is nothing at this address")

    async def body(self, request: Request) -> bytes:
        """The body, refused while it comes where it is too large or too slow."""
        most = self._settings.body_bytes
        length = request.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > most:
            raise TooLarge(f"a body may have {most} bytes")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise TooLarge(f"a body may have {most} bytes")
        except TimeoutError as err:
            raise BadInvocation("the body did not come in time") from err
        return bytes(body)
