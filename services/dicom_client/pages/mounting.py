"""Puts the pages beside the API."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from fastapi import FastAPI

from hub.home import Home, private_key
from services.dicom_client.actions import Actions
from services.dicom_client.opening import Service
from services.dicom_client.pages import (
    audit_page,
    dashboard,
    measuring,
    node_pages,
    previewing,
    rating,
    rule_pages,
    series_acts,
    setting_pages,
    statistics_page,
    template_import,
    template_pages,
    upload_pages,
)
from services.dicom_client.pages.rendering import Pages, page_router

# Before the acts, whose address takes any name: reviews and comparisons.
_PARTS = (
    dashboard,
    upload_pages,
    previewing,
    rating,
    measuring,
    series_acts,
    template_import,
    template_pages,
    rule_pages,
    node_pages,
    setting_pages,
    statistics_page,
    audit_page,
)


def install(
    app: FastAPI,
    service: Service,
    prefix: str,
    table: Mapping[type[Exception], tuple[int, str]],
) -> None:
    """Add the pages below `prefix`; `table` says how errors are answered."""
    key = private_key(
        Home(service.home).dicom_client / "pages.key", secrets.token_bytes(32)
    )
    app.state.pages = Pages(
        service,
        Actions(service.jobs, service.keeper),
        prefix,
        os.environ.get("JUPYTERHUB_BASE_URL", ""),
        table,
        key,
    )
    for part in _PARTS:
        router = page_router()
        part.add_routes(router)
        app.include_router(router, prefix=prefix.rstrip("/"))
