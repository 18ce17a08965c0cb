"""Pathology servers as one process knows them: connections, agreed versions, the list.

The version is asked for at the first contact with a callback address and kept for an
hour (section 1.4 of the interface's description).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from services.ia_api import versions
from services.ia_api.errors import NotAllowed
from services.ia_api.origins import is_listed
from services.ia_api.pathology_server import (
    Callback,
    Credentials,
    PathologyServer,
    Transport,
    TransportSettings,
)
from services.ia_api.settings import ServiceSettings
from services.ia_api.versions import Version

Answer = TypeVar("Answer")

VERSION_LIFE_S = 3600.0
_BESIDE = 64
"""Questions that are asked beside other work at once: as many as connections."""


@dataclass(frozen=True)
class Patience:
    """How long this process waits for a pathology server, in seconds.

    `read_s` is for each piece of an answer, so that a long download is no long wait;
    `callback_read_s` of the settings is the most of it.
    """

    connect_s: float = 6.0
    read_s: float = 30.0


class Servers:
    """Gives the client of a callback address; safe to share between threads."""

    def __init__(
        self, settings: ServiceSettings, patience: Patience, *, listed: bool = True
    ) -> None:
        """`listed` False: in a worker, whose jobs were checked at the door.

        Only a worker has the site's credentials: at the door they would open to
        whoever sends any text as a token.
        """
        self._settings = settings
        self._listed = listed
        self._range = (
            versions.parse(settings.api_version_min),
            versions.parse(settings.api_version_max),
        )
        own = settings.credentials
        self.transport = Transport(
            TransportSettings(
                software_version=settings.software_version,
                ca_bundle=settings.ca_bundle,
                verify=settings.verify_tls,
                connect_timeout_s=patience.connect_s,
                read_timeout_s=patience.read_s,
                rewrites=settings.rewrite_callbacks,
                credentials=Credentials(own.user, own.password.get_secret_value())
                if own and not listed
                else None,
            )
        )
        self._lock = threading.Lock()
        self._versions: dict[str, tuple[float, Version]] = {}
        self._threads = ThreadPoolExecutor(_BESIDE, "callback")

    @property
    def newest(self) -> Version:
        """What this service was tested with, and states of itself."""
        return self._range[1]

    @property
    def oldest(self) -> Version:
        return self._range[0]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.transport.close()

    def beside(self, ask: Callable[[], Answer]) -> Future[Answer]:
        """Ask a pathology server something while the caller does something else."""
        return self._threads.submit(ask)

    def check(self, url: str) -> None:
        """Raise NotAllowed for an address that is not on the list."""
        if self._listed and not is_listed(url, self._settings.allow_callback):
            raise NotAllowed(
                "callbackInfo.url is not at one of the servers of allow_callback"
            )

    def known(self, url: str) -> Version | None:
        """The version that was agreed on with a server, without asking."""
        with self._lock:
            noted = self._versions.get(url)
        return noted[1] if noted and noted[0] > time.monotonic() else None

    def at(self, url: str, application_id: str, token: str) -> PathologyServer:
        """The client of a callback, with the version agreed on.

        Raises NotAllowed, VersionTooOld, and what the first contact raises.
        """
        self.check(url)
        callback = Callback(url, application_id, token)
        version = self.known(url)
        if version is None:
            said = PathologyServer(self.transport, callback, self.oldest).info()
            version = versions.negotiate(said, *self._range)
            with self._lock:
                self._versions[url] = (time.monotonic() + VERSION_LIFE_S, version)
        return PathologyServer(self.transport, callback, version)
