"""A service to ask by DICOMweb, on its own port and through the fast lane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from dicomweb_client.api import DICOMwebClient

from tests.tile_server.conftest import Server, serve
from tile_server import running, tokens
from tile_server.lane import Limits
from tile_server.service import TileSettings

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"


@dataclass(frozen=True)
class Service:
    """A running service and one of its ports."""

    server: Server
    port: int

    def address(self, path: Path, **changes: Any) -> str:
        """Where a slide's studies begin; `changes` are those of its capability."""
        token = self.server.seal(path, **changes)
        base = self.server.settings.base
        return f"http://127.0.0.1:{self.port}{base}dicomweb/{token}"

    def client(self, path: Path, **changes: Any) -> DICOMwebClient:
        return DICOMwebClient(self.address(path, **changes))

    def get(self, address: str, **headers: str) -> httpx.Response:
        return self.server.client.get(address, headers=headers)


def services(lane: bool, **settings: Any) -> Iterator[Service]:
    sockets = running.listen(0)
    besides = running.Besides(lane=sockets, limits=Limits())
    chosen = TileSettings(tokens.new_key(), "/hub-prefix/services/tiles/", **settings)
    quick = sockets[0].getsockname()[1]
    for server in serve(chosen, besides=besides):
        plain = server.client.base_url.port
        assert plain is not None
        yield Service(server, quick if lane else plain)


def place_of(found: dict[str, Any]) -> tuple[str, str, str]:
    """The study, series and instance of an answer to a search."""
    study, series, instance = (
        str(found[tag]["Value"][0]) for tag in (STUDY, SERIES, INSTANCE)
    )
    return study, series, instance


def way(found: dict[str, Any]) -> str:
    """The address of an instance below a slide's."""
    study, series, instance = place_of(found)
    return f"/studies/{study}/series/{series}/instances/{instance}"
