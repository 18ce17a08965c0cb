"""The service about itself: whether it is well, and what it is set to."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from theatrum.catalog.errors import NotConnected

from services.catalog import engine_state
from services.catalog.api import limits
from services.catalog.api.exports import DRAWN_BYTES, STREAMED_BYTES
from services.catalog.api.here import Here, Service
from services.catalog.api.listing import MOST
from services.catalog.api.rights import (
    SCOPES,
    Administering,
    refuse_but_administrators,
)
from services.catalog.api.tagged import tagged

router = APIRouter(tags=["about"])
SHOWN: Final = (
    "home", "mode", "base_url", "database_url", "tile_life_s", "catalog_engine",
    "catalog_engine_workers", "catalog_sources", "catalog_upload_bytes",
)  # fmt: skip
"""Settings that concern the catalogue; those of other services are theirs to show."""
PACKAGES: Final = (
    "theatrum", "fastapi", "sqlalchemy", "dask", "distributed", "xarray", "zarr",
    "numpy", "nibabel", "pydicom",
)  # fmt: skip
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):\S+@")


@router.get(
    "/healthz",
    responses={
        200: {"description": "It answers, and so does its database"},
        503: {"description": "Its database does not answer"},
    },
)
def get_health(service: Here) -> dict[str, str]:
    """Whether the service and its database answer; nobody has to sign in for this."""
    try:
        with service.database.reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as err:
        raise NotConnected("the catalogue's database does not answer") from err
    return {"status": "ok"}


@router.get("/config", responses={304: {"description": "As it was"}})
def get_config(request: Request, service: Here, right: Administering) -> Response:
    """What the service is set to, without secrets; for administrators of the hub."""
    refuse_but_administrators(right.person)
    return tagged(request, config(service))


# Any: JSON
def config(service: Service) -> dict[str, Any]:
    """What the service is set to; passwords in addresses are stars."""
    chosen = service.settings.model_dump(mode="json")
    return {
        "settings": {name: plain(chosen[name]) for name in SHOWN},
        "database": service.database.engine.dialect.name,
        "engine": {
            "address": service.settings.catalog_engine,
            "workers_wished": engine_state.wished(service.home),
        },
        "roles": {role: sorted(carried) for role, carried in SCOPES.items()},
        "limits": {
            "rows_of_a_page": MOST,
            "streamed_bytes": STREAMED_BYTES,
            "drawn_bytes": DRAWN_BYTES,
            "requests": {
                name: {"burst": rate.burst, "per_s": rate.per_s}
                for name, rate in _RATES.items()
            },
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }


_RATES: Final[Mapping[str, limits.Rate]] = {
    "read": limits.READ, "write": limits.WRITE, "export": limits.EXPORT,
}  # fmt: skip


def plain(value: Any) -> Any:
    """A setting as it may be shown: passwords within addresses are stars."""
    return _PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
