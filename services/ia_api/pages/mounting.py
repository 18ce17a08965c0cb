"""Puts the pages beside the addresses of the pathology server."""

from __future__ import annotations

import os

from fastapi import FastAPI

from hub.signin import SignIn
from services.ia_api.handlers import Service
from services.ia_api.pages.acts import acts
from services.ia_api.pages.front import front
from services.ia_api.pages.rendering import Pages


def install(app: FastAPI) -> None:
    """Add the pages to the service's application, which has its sign-in already."""
    service: Service = app.state.service
    sign_in: SignIn = app.state.sign_in
    base_url = os.environ.get("JUPYTERHUB_BASE_URL", "/")
    app.state.pages = Pages(service, sign_in.prefix, base_url)
    for router in (front, acts):
        app.include_router(router, prefix=sign_in.prefix.rstrip("/"))
