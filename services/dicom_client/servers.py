"""The segmentation server as all steps share it: its client, tokens and breaker."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx

from hub.durable.database import Database
from services.dicom_client.breaker import CircuitBreaker
from services.dicom_client.draw_server import DrawServer, DrawSettings, Tokens
from services.dicom_client.errors import Transient, Unanswered, Unauthorized
from services.dicom_client.keeping import Keeper
from services.dicom_client.settings import ServiceSettings

# Of these the server cannot have the whole package: it was never sent to its end.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.WriteError,
    httpx.WriteTimeout,
)


class Servers:
    """One client for all threads; made anew where address or tokens were changed."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        settings: Callable[[], ServiceSettings],
    ) -> None:
        self._keeper = keeper
        self._settings = settings
        self._lock = threading.Lock()
        self._made: tuple[DrawSettings, Tokens, DrawServer] | None = None
        self.breaker = CircuitBreaker(database, settings, "draw")

    def server(self) -> DrawServer:
        """The server; Unauthorized where nobody has given a token yet."""
        wanted = self._settings().server.draw()
        tokens = self._keeper.tokens()
        if tokens is None:
            raise Unauthorized("paste the server's access token on the settings page")
        with self._lock:
            if self._made is not None and self._made[:2] == (wanted, tokens):
                return self._made[2]
            # What another thread still uses ends by itself: nothing closes it under
            # its hands.
            server = DrawServer(wanted, tokens, self._renewed)
            self._made = (wanted, tokens, server)
            return server

    def _renewed(self, tokens: Tokens) -> None:
        """Tokens that the server gave for the old ones: kept before they are used."""
        self._keeper.renew_tokens(tokens)
        made = self._made
        if made is not None:
            self._made = (made[0], tokens, made[2])

    def close(self) -> None:
        if self._made is not None:
            self._made[2].close()


def is_unknown(err: Transient) -> bool:
    """Whether the server may hold a package although its upload failed.

    A server that answered with an error says that it does not; a gateway's word, or an
    answer without sense, says nothing.
    """
    if isinstance(err, Unanswered):
        return True
    cause = err.__cause__
    return isinstance(cause, httpx.HTTPError) and not isinstance(cause, _NEVER_SENT)
