"""The lane behind the hub's own proxy, in both of its forms."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hub import proxy
from tests.tile_server.conftest import serve
from tile_server import running, tokens
from tile_server.service import TileSettings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextmanager
def proxied(choice: str, target: int) -> Iterator[httpx.Client]:
    port = free_port()
    command = [
        *proxy.command(choice),
        *("--ip", "127.0.0.1", "--port", str(port)),
        *("--api-ip", "127.0.0.1", "--api-port", str(free_port())),
        *("--default-target", f"http://127.0.0.1:{target}"),
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": "for this test"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < deadline
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


def choices() -> list[str]:
    script = Path(sys.executable).with_name("configurable-http-proxy")
    found = ["python"] if script.exists() else []
    return [*found, *(["node"] if proxy.node_proxy() and shutil.which("node") else [])]


@pytest.mark.parametrize("choice", choices())
def test_all_of_the_service_comes_through_the_proxy_and_the_lane(
    made_slides: dict[str, Path], choice: str
) -> None:
    lane = running.listen(0)
    settings = TileSettings(tokens.new_key(), "/services/tiles/")
    for server in serve(settings, besides=running.Besides(lane=lane)):
        token = server.seal(made_slides["ycbcr"])
        with proxied(choice, lane[0].getsockname()[1]) as client:
            for _ in range(2):
                for rest in ("4/1/1", "4/15/10", "2/0/0", "view.json", "9/9/9"):
                    wanted = server.get(token, rest)
                    seen = client.get(f"/services/tiles/s/{token}/{rest}")
                    assert seen.status_code == wanted.status_code
                    assert seen.content == wanted.content
                    # The proxy in Python adds ETags of its own.
                    for name in ("cache-control", "content-type"):
                        assert seen.headers.get(name) == wanted.headers.get(name)
            tile = f"/services/tiles/s/{token}/4/1/1"
            etag = server.get(token, "4/1/1").headers["etag"]
            again = client.get(tile, headers={"If-None-Match": etag})
            assert again.status_code == 304
            assert client.head(tile).status_code == 200
