"""Callback tokens: issued for one application, living for a time, revocable.

A token is missing, unknown, revoked or expired: 401. It is another application's: 403.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from .clock import Clock


@dataclass(frozen=True)
class Token:
    """One token.

    Attributes
    ----------
    application_id
        The only application whose results it opens.
    expires_s
        On the server's clock, seconds since the epoch.
    """

    value: str
    application_id: str
    expires_s: float


class Tokens:
    """All tokens of a server; any thread may use it."""

    def __init__(self, clock: Clock, *, lifetime_s: float = 3600.0) -> None:
        self.lifetime_s = lifetime_s
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._revoked: set[str] = set()

    def issue(self, application_id: str, *, lifetime_s: float | None = None) -> str:
        """Issue a token; without a lifetime, the server's own is taken."""
        life_s = self.lifetime_s if lifetime_s is None else lifetime_s
        # The prefix lets a test search files and logs for any token at all.
        value = f"sps-token-{secrets.token_urlsafe(24)}"
        with self._lock:
            self._tokens[value] = Token(
                value, application_id, self._clock.now_s() + life_s
            )
        return value

    def revoke(self, value: str) -> None:
        with self._lock:
            self._revoked.add(value)

    def revoke_all(self) -> None:
        """Make every token that was issued so far worthless."""
        with self._lock:
            self._revoked.update(self._tokens)

    @property
    def issued(self) -> tuple[str, ...]:
        """Every token ever issued, for a search where none should be."""
        with self._lock:
            return tuple(self._tokens)

    def refusal(self, authorization: str, application_id: str | None) -> int | None:
        """The status that refuses this Authorization header, or None.

        `application_id` is None on routes that belong to no application.
        """
        scheme, _, value = authorization.partition(" ")
        with self._lock:
            token = self._tokens.get(value.strip())
            revoked = token is not None and token.value in self._revoked
        if scheme.lower() != "bearer" or token is None or revoked:
            return 401
        if token.expires_s <= self._clock.now_s():
            return 401
        if application_id is not None and token.application_id != application_id:
            return 403
        return None
