"""What the routes share: the catalogue, its clock and who may ask how often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session
from theatrum.catalog.apart import Apart

from hub.durable.database import Database
from hub.home import Home
from hub.settings import Settings
from services.catalog.api.limits import Limiter
from tile_server.probing import Prober


@dataclass(frozen=True)
class Service:
    """One value, made at the start and read by every route."""

    database: Database
    settings: Settings
    tile_key: bytes
    prober: Prober
    apart: Apart = field(default_factory=Apart)
    limiter: Limiter = field(default_factory=Limiter)

    @property
    def prefix(self) -> str:
        return f"{self.settings.base_url}services/catalog/"

    @property
    def api(self) -> str:
        return f"{self.prefix}api/v1"

    @property
    def tiles_base(self) -> str:
        return f"{self.settings.base_url}services/tiles/"

    @property
    def home(self) -> Home:
        return Home(self.settings.home)

    @property
    def cases(self) -> Path:
        return self.home.images / "cases"

    @property
    def cache(self) -> Path:
        return self.home.cache / "thumbnails"


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]


def _session(service: Here) -> Iterator[Session]:
    with service.database.reading() as session:
        yield session


Reader = Annotated[Session, Depends(_session)]
"""A session that reads; what is written goes through `theatrum.catalog.record`."""
