"""The three ways to run the service, as processes: how they start, answer and end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests import slides
from tests.tile_server.conftest import decoded
from tile_server import tokens
from tile_server.address import tiles_url
from tile_server.tokens import Capability
from tile_server.versions import file_version

STOP_S = 2.0


@contextmanager
def command(
    *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tile_server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def serve_folder(process: subprocess.Popen[str]) -> str:
    """Wait for a folder's service; gives its address."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready "):
            return line.split()[1]
    raise AssertionError(process.communicate()[1])


def get(address: str, **headers: str) -> httpx.Response:
    return httpx.get(address, headers=headers, trust_env=False, timeout=30)


def ends_quietly(process: subprocess.Popen[str]) -> str:
    """Wait for the end, check that it was clean and quick, give what was said."""
    began = time.monotonic()
    _, said = process.communicate(timeout=10)
    assert time.monotonic() - began < STOP_S
    assert process.returncode == 0
    assert "Traceback" not in said
    return said


@pytest.fixture
def folder(made_slides: dict[str, Path], tmp_path: Path) -> Path:
    """A folder with two slides, a hidden one, a link out of it, and no slides."""
    root = tmp_path / "root"
    (root / "sub" / ".hidden").mkdir(parents=True)
    shutil.copy(made_slides["ycbcr"], root / "a.svs")
    shutil.copy(made_slides["deflate"], root / "sub" / "b <i>.tiff")
    shutil.copy(made_slides["ycbcr"], root / "sub" / ".hidden" / "c.svs")
    shutil.copy(made_slides["ycbcr"], root / ".d.svs")
    shutil.copy(made_slides["ycbcr"], tmp_path / "outside.svs")
    (root / "link.svs").symlink_to(tmp_path / "outside.svs")
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "sub" / "notes.txt").write_text("nothing to see")
    slides.write_truncated(root / "cut.svs", slides.YCBCR, 0.5)
    return root


def test_a_folder_is_listed_and_served(folder: Path) -> None:
    with command("serve", str(folder), "--port", "0") as process:
        base = serve_folder(process)
        listed = get(base + "images.json").json()["images"]
        assert [image["name"] for image in listed] == ["a.svs", "sub/b <i>.tiff"]
        for image in listed:
            assert image.keys() >= {"id", "version", "expires", "levels", "mpp_x"}
            tile = get(base + image["tiles"].format(z=0, x=0, y=0).lstrip("/"))
            assert decoded(tile.content).shape[2] == 3
        assert len({image["id"] for image in listed}) == 2

        page = get(base)
        assert page.headers["content-type"].startswith("text/html")
        assert "sub/b &lt;i&gt;.tiff" in page.text
        assert "<i>" not in page.text

        # Found without a restart.
        slides.write_slide(folder / "new.svs", slides.RGB_ODD)
        (folder / "a.svs").unlink()
        listed = get(base + "images.json").json()["images"]
        assert [image["name"] for image in listed] == ["new.svs", "sub/b <i>.tiff"]

        process.send_signal(signal.SIGTERM)
        said = ends_quietly(process)
    for name in ("cut.svs", "in sub: notes.txt", "link.svs", "linked"):
        assert said.count(f"skipped: {name} ") == 1, said
    assert ".d.svs" not in said


def test_a_page_from_elsewhere_gets_no_list(folder: Path) -> None:
    with command("serve", str(folder), "--port", "0") as process:
        base = serve_folder(process)
        for address in ("", "images.json"):
            assert get(base + address, Host="evil.example").status_code == 404
            assert get(base + address, Host="localhost:1").status_code == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_busy_service_stops_within_two_seconds(
    tmp_path: Path, how: signal.Signals
) -> None:
    wide = slides.SlideSpec(width=4000, height=3000, downsamples=(1,))
    slides.write_slide(tmp_path / "big.svs", wide)
    with command("serve", str(tmp_path), "--port", "0") as process:
        base = serve_folder(process)
        (image,) = get(base + "images.json").json()["images"]
        address = image["tiles"].format(z=0, x=0, y=0).encode()
        port = int(base.rstrip("/").rsplit(":", 1)[1])
        waiting = []
        for _ in range(4):
            connection = socket.create_connection(("127.0.0.1", port))
            request = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % address
            connection.sendall(request)
            waiting.append(connection)
        # The answer to a later request says that the earlier ones have arrived.
        assert get(base + "health").status_code == 200
        process.send_signal(how)
        ends_quietly(process)
        for connection in waiting:
            connection.close()


def test_a_taken_port_is_said_to_be(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command("serve", str(tmp_path), "--port", port) as process:
            _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"Port {port} cannot be used" in said
    assert "Traceback" not in said


def test_a_folder_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with command("serve", str(tmp_path / "gone")) as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "is not a folder" in said


def test_beside_a_kernel_it_serves_until_its_input_ends(
    made_slides: dict[str, Path],
) -> None:
    key = tokens.new_key()
    path = made_slides["ycbcr"]
    with command("beside-kernel") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tokens.encode_key(key) + "\n")
        process.stdin.flush()
        port = json.loads(process.stdout.readline())["port"]
        capability = Capability(str(path), file_version(path), False, 2**33)
        address = tiles_url("/", tokens.seal(key, capability)).format(z=4, x=1, y=1)
        answer = get(f"http://127.0.0.1:{port}{address}")
        assert answer.status_code == 200
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        # An interrupted cell interrupts the kernel's whole process group.
        process.send_signal(signal.SIGINT)
        assert get(f"http://127.0.0.1:{port}{address}").status_code == 200
        process.stdin.close()
        process.stdin = None
        ends_quietly(process)


def test_beside_a_kernel_it_ends_when_it_is_told_to() -> None:
    with command("beside-kernel") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tokens.encode_key(tokens.new_key()) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["port"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_beside_a_kernel_it_refuses_to_start_without_a_key() -> None:
    with command("beside-kernel") as process:
        _, said = process.communicate("no key\n", timeout=20)
    assert process.returncode == 2
    assert "must be a key" in said
    assert "no key" not in said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_in_a_hub_it_serves_under_its_prefix(
    made_slides: dict[str, Path], tmp_path: Path
) -> None:
    key, port, path = tokens.new_key(), free_port(), made_slides["single"]
    environment = {
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
        "JUPYTERHUB_SERVICE_PREFIX": "/hub-prefix/services/tiles/",
        "THEATRUM_TILE_KEY": tokens.encode_key(key),
        "THEATRUM_TILE_CACHE": str(tmp_path / "cache"),
        "THEATRUM_TILE_CACHE_BYTES": "1000000",
    }
    capability = Capability(str(path), file_version(path), False, 2**33)
    base = environment["JUPYTERHUB_SERVICE_PREFIX"]
    template = tiles_url(base, tokens.seal(key, capability))
    with command("hub", environment=environment) as process:
        deadline = time.monotonic() + 20
        while True:
            try:
                health = get(f"http://127.0.0.1:{port}{base}health")
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
        assert health.json() == {"status": "ok"}
        tile = get(f"http://127.0.0.1:{port}" + template.format(z=0, x=0, y=0))
        assert tile.status_code == 200
        process.send_signal(signal.SIGTERM)
        ends_quietly(process)
    assert any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"THEATRUM_TILE_KEY": ""}, "THEATRUM_TILE_KEY"),
        ({"THEATRUM_TILE_KEY": "c2hvcnQ="}, "bytes"),
        ({"JUPYTERHUB_SERVICE_URL": "http://127.0.0.1"}, "port"),
        ({"JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:x"}, "settings are wrong"),
        ({"THEATRUM_TILE_CACHE_BYTES": "lots"}, "THEATRUM_TILE_CACHE_BYTES"),
    ],
)
def test_wrong_settings_of_a_hub_are_refused_with_their_name(
    wrong: dict[str, str], word: str
) -> None:
    right = {
        "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:1",
        "JUPYTERHUB_SERVICE_PREFIX": "/services/tiles/",
        "THEATRUM_TILE_KEY": tokens.encode_key(tokens.new_key()),
    }
    with command("hub", environment=right | wrong) as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert word in said
    assert "Traceback" not in said


def test_a_picture_is_imported_once_for_all_processes(tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    root.mkdir()
    Image.fromarray(slides.picture(900, 700)).save(root / "a.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {"THEATRUM_TILE_CACHE": str(cache), "TMPDIR": str(elsewhere)}
    arguments = ["serve", str(root), "--port=0", "--workers=2"]
    with command(*arguments, environment=environment) as process:
        base = serve_folder(process)
        (image,) = get(f"{base}images.json").json()["images"]
        tile = base + image["tiles"].format(z=0, x=0, y=0).lstrip("/")
        assert get(tile).status_code == 200
        (copy,) = (cache / "imports").iterdir()
        assert copy.stat().st_size > 0
        assert [file for file in elsewhere.rglob("*") if file.is_file()] == []
        process.send_signal(signal.SIGTERM)
        ends_quietly(process)
