"""Slides of every kind that is made in code, and a service on a real socket."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tornado.routing import URLSpec

from tests import slides
from tile_server import running, tokens
from tile_server.address import slide_url
from tile_server.service import TileSettings
from tile_server.tokens import Capability
from tile_server.versions import file_version

SPECS = {
    "ycbcr": slides.YCBCR,
    "rgb_odd": slides.RGB_ODD,
    "whole_streams": slides.WHOLE_STREAMS,
    "single": slides.SINGLE,
    "deflate": slides.DEFLATE,
    "sparse": slides.SPARSE,
}


@pytest.fixture(scope="session")
def made_slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One written slide for each of `SPECS`; nobody may change them."""
    folder = tmp_path_factory.mktemp("slides")
    return {
        name: slides.write_slide(folder / f"{name}.tiff", spec)
        for name, spec in SPECS.items()
    }


@dataclass(frozen=True)
class Server:
    """A running tile service and a client of it."""

    settings: TileSettings
    client: httpx.Client

    def seal(self, path: Path, **changes: Any) -> str:
        """A token for a file, valid for an hour unless `changes` say otherwise."""
        capability = Capability(
            str(path), file_version(path), False, int(time.time()) + 3600
        )
        return tokens.seal(self.settings.key, replace(capability, **changes))

    def get(self, token: str, rest: str, **headers: str) -> httpx.Response:
        """GET an address below a token's prefix."""
        address = slide_url(self.settings.base, token) + rest
        return self.client.get(address, headers=headers)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A service under a hub's kind of prefix, in a thread of its own."""
    yield from serve(TileSettings(tokens.new_key(), "/hub-prefix/services/tiles/"))


def serve(
    settings: TileSettings,
    *,
    besides: running.Besides | None = None,
    routes: Sequence[URLSpec] = (),
) -> Iterator[Server]:
    """Run a service, with further `routes`, while the generator is held."""
    sockets = running.listen(0)
    started = threading.Event()
    stops: list[Callable[[], None]] = []

    def on_start(stop: Callable[[], None]) -> None:
        stops.append(stop)
        started.set()

    thread = threading.Thread(
        target=running.run,
        args=(settings, sockets),
        kwargs={
            "signals": (),
            "started": on_start,
            "besides": besides,
            "routes": routes,
        },
    )
    thread.start()
    assert started.wait(10)
    base = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
            yield Server(settings, client)
    finally:
        stops[0]()
        thread.join(10)
    assert not thread.is_alive()


def decoded(body: bytes) -> slides.Pixels:
    """A picture as a browser decodes it, without any knowledge of the slide."""
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
