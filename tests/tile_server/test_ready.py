"""Liveness says that the loop turns, readiness that work is taken."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.tile_server.conftest import Server, serve
from tests.tile_server.test_commands import get
from tile_server import running, tokens
from tile_server.service import TileSettings


def test_a_full_queue_is_alive_and_not_ready(
    made_slides: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, gate = threading.Event(), threading.Event()

    def waiting(*_: object) -> None:
        began.set()
        assert gate.wait(20)
        raise ValueError("nobody looks at this picture")

    # Work that lasts as long as this test wants it to.
    monkeypatch.setattr("tile_server.handlers.small_picture", waiting)
    watched = running.listen(0)
    base = f"http://127.0.0.1:{watched[0].getsockname()[1]}"
    settings = TileSettings(tokens.new_key(), most_waiting=1)
    for server in serve(settings, besides=running.Besides(metrics=watched)):
        ready(server, base, 200)
        token = server.seal(made_slides["ycbcr"])
        with ThreadPoolExecutor(1) as threads:
            picture = threads.submit(server.get, token, "thumbnail")
            assert began.wait(10)
            ready(server, base, 503)
            assert "theatrum_tiles_ready 0.0" in get(base + "/metrics").text
            assert "theatrum_tiles_work_under_way 1.0" in get(base + "/metrics").text
            assert get(base + "/live").json() == {"status": "ok"}
            refused = server.get(token, "3/0/0")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            stored = server.get(token, "4/1/1")
            assert stored.status_code == 200
            gate.set()
            assert picture.result(10).status_code == 500
        ready(server, base, 200)
        assert server.get(token, "3/0/0").status_code == 200


def ready(server: Server, base: str, status: int) -> None:
    """Both addresses of readiness answer with a status."""
    own: httpx.Response = server.client.get("/ready")
    assert (own.status_code, get(base + "/ready").status_code) == (status, status)
    if status == 503:
        assert own.headers["retry-after"] == "1"
        assert own.headers["content-type"] == "application/problem+json"
