"""Hub sign-in for a stand-alone Voilà, and the viewer's name in the kernel.

Voilà runs a kernel for each page view, as the service. So that a dashboard shows
what *this* person may see, their own token for this service travels to the kernel
as the variable `HTTP_X_THEATRUM_VIEWER_TOKEN`; it is good for the catalogue only
(`oauth_client_allowed_scopes` of the service).

This leans on a class of JupyterHub that is not public: a test covers it, and the
hub's version is pinned.
"""

from __future__ import annotations

import os
from typing import Any

from jupyterhub.singleuser.extension import JupyterHubIdentityProvider
from jupyterhub.utils import url_path_join

VIEWER_HEADER = "X-Theatrum-Viewer-Token"


class DashboardIdentityProvider(JupyterHubIdentityProvider):  # type: ignore[misc]
    """The hub's sign-in under Voilà's routes."""

    # Any: Voilà passes traitlets' arguments on.
    def __init__(self, **arguments: Any) -> None:
        # Voilà gives its own sign-in's settings, which the hub's replaces.
        arguments.pop("token", None)
        arguments.pop("login_handler_class", None)
        super().__init__(**arguments)
        # Kernels inherit our environment: they speak for the viewer, not for us.
        _ = self.hub_auth.api_token
        os.environ.pop("JUPYTERHUB_API_TOKEN", None)

    def get_handlers(self) -> list[tuple[Any, ...]]:
        """The sign-in's routes, below the service's prefix, as Voilà expects."""
        prefix = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
        return [
            (url_path_join(prefix, route), *rest)
            for route, *rest in super().get_handlers()
        ]

    # Any: a Tornado handler and the hub's user, both of untyped packages.
    async def get_user(self, handler: Any) -> Any:
        """Who is looking; their token replaces whatever such header was sent."""
        user = await super().get_user(handler)
        token = self.hub_auth.get_token(handler) if user else None
        handler.request.headers[VIEWER_HEADER] = token or ""
        return user
