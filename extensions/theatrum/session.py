"""Where this kernel runs, read from its environment in one place.

Three places are told apart. In a hub's single-user server the hub names the user; in a
hub-managed service (Voilà, a grader) it names the service; without a hub neither is
there. Requests that the kernel makes for images go straight to the hub's host and
never through a proxy that `HTTP_PROXY` may name: that one could not reach it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Place = Literal["server", "service", "alone"]

VIEWER_TOKEN = "HTTP_X_THEATRUM_VIEWER_TOKEN"  # noqa: S105 (the variable's name)
"""Set for a dashboard's kernel: the token of the person who looks at the page."""


@dataclass(frozen=True)
class Session:
    """What the environment says about the kernel's surroundings."""

    place: Place
    """A hub user's server, a hub-managed service, or no hub at all."""

    prefix: str | None
    """Path under which the page is served, with both slashes; None where unknown."""

    catalog_url: str | None
    """Address of the catalogue, without a slash at its end; None without a hub."""

    token: str | None
    """The hub token to speak with: the server's own, in a dashboard the viewer's."""

    @property
    def host_url(self) -> str | None:
        """Scheme, host and port of the catalogue: paths from the root start here."""
        if self.catalog_url is None:
            return None
        parts = urlsplit(self.catalog_url)
        return f"{parts.scheme}://{parts.netloc}"


def current_session(environment: Mapping[str, str] | None = None) -> Session:
    """Return the session that an environment describes, by default this process's."""
    env = os.environ if environment is None else environment
    catalog_url = env.get("THEATRUM_CATALOG_URL", "").rstrip("/") or None
    return Session(
        place=_place(env),
        prefix=_prefix(env.get("JUPYTERHUB_SERVICE_PREFIX", "")),
        catalog_url=catalog_url,
        token=env.get("JUPYTERHUB_API_TOKEN") or env.get(VIEWER_TOKEN) or None,
    )


def _place(env: Mapping[str, str]) -> Place:
    if env.get("JUPYTERHUB_USER"):
        return "server"
    if env.get("JUPYTERHUB_SERVICE_NAME"):
        return "service"
    return "alone"


def _prefix(path: str) -> str | None:
    trimmed = path.strip("/")
    if not path:
        return None
    return f"/{trimmed}/" if trimmed else "/"
