"""The servers that the benchmark compares: how each is started and asked for a tile.

All listen on loopback, run on one core where there are several, and end with the
benchmark. A peer that is not installed is `Missing`, which says its name.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import psutil
import tifffile

from tile_server.ladder import Rung
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide

HERE = Path(__file__).resolve().parent
Place = tuple[int, int]
_READY_S = 30.0


class Missing(Exception):
    """A peer is not installed; the message names it."""


@dataclass(frozen=True)
class Slide:
    """The slide all servers serve, with what is needed to address its tiles."""

    path: Path
    pyramid: Pyramid

    @property
    def tile(self) -> int:
        return self.pyramid.ladder.tile


@dataclass(frozen=True)
class Target:
    """A running server.

    Attributes
    ----------
    name
        For the table.
    port
        On loopback.
    address
        The path of a tile of a rung.
    pids
        Its processes; their children count as well.
    files
        What is put out of the system's memory before a cold slice.
    """

    name: str
    port: int
    address: Callable[[Rung, Place], str]
    pids: tuple[int, ...]
    files: tuple[Path, ...]


@contextmanager
def ours(slide: Slide, folder: Path) -> Iterator[list[Target]]:
    """Our service's two listeners, one process."""
    only = folder / "ours"
    only.mkdir()
    # The same file, so that all servers find it in memory or none.
    os.link(slide.path, only / slide.path.name)
    with folder_service(only) as (ports, images, pid):
        template = images[0]["tiles"]
        ladder = slide.pyramid.ladder

        def address(rung: Rung, place: Place) -> str:
            return str(template.format(z=ladder.z(rung), x=place[0], y=place[1]))

        yield [
            Target("our fast lane", ports["lane"], address, (pid,), (slide.path,)),
            Target("our Tornado", ports["ready"], address, (pid,), (slide.path,)),
        ]


@contextmanager
def folder_service(
    root: Path,
    *,
    pinned: bool = True,
    workers: int = 1,
) -> Iterator[tuple[dict[str, int], list[dict[str, Any]], int]]:
    """Our service of a folder: its ports by name, its images, and its process.

    Further workers have their metrics on the ports after the first one's.
    """
    command = [sys.executable, "-m", "tile_server", "serve", str(root)]
    options = ["--port", "0", "--lane-port", "0", f"--workers={workers}"]
    options += ["--metrics-port", str(_free_port())]
    started = _running([*command, *options], stdout=subprocess.PIPE, pinned=pinned)
    with started as process:
        assert process.stdout is not None
        ports = {}
        for line in process.stdout:
            name, _, address = line.strip().partition(" ")
            if address.startswith("http"):
                ports[name] = int(address.rstrip("/").rsplit(":", 1)[1])
            if name == "ready":
                break
        images = json.loads(_get(ports["ready"], "/images.json"))["images"]
        yield ports, images, process.pid


@contextmanager
def static_files(
    slide: Slide, folder: Path, rung: Rung, places: list[Place]
) -> Iterator[list[Target]]:
    """nginx with the stored tiles as files: the limit."""
    root = folder / "static"
    files = []
    for x, y in places:
        tile = slide.pyramid.stored_tile(rung, x, y)
        assert tile is not None
        file = root / str(x) / f"{y}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tile.body)
        files.append(file)
    port = _free_port()
    # Run by root, nginx changes its account, which cannot look into our folder.
    server = f"root {root}; types {{ image/jpeg jpg; }}"
    with _nginx(folder / "nginx-static", port, f"location / {{ {server} }}") as pid:

        def address(_: Rung, place: Place) -> str:
            return f"/{place[0]}/{place[1]}.jpg"

        yield [Target("nginx, static files", port, address, (pid,), tuple(files))]


@contextmanager
def iipsrv(slide: Slide, folder: Path) -> Iterator[list[Target]]:
    """iipsrv behind nginx; IIPSRV names another build than Debian's."""
    program = os.environ.get("IIPSRV") or "/usr/lib/iipimage-server/iipsrv.fcgi"
    if not Path(program).exists():
        raise Missing("iipsrv (Debian: iipimage-server, or name it in IIPSRV)")
    port, inner = _free_port(), _free_port()
    environment = {"VERBOSITY": "0", "LOGFILE": str(folder / "iipsrv.log")}
    with _running([program, "--bind", f"127.0.0.1:{inner}"], environment) as process:
        _wait_for(inner, process)
        passed = (
            f"location / {{ fastcgi_pass 127.0.0.1:{inner}; "
            "fastcgi_param QUERY_STRING $query_string; "
            "fastcgi_param REQUEST_METHOD $request_method; }"
        )
        with _nginx(folder / "nginx-iipsrv", port, passed) as pid:
            with tifffile.TiffFile(slide.path) as tiff:
                # It counts every page, label and thumbnail too, from the last one.
                sizes = [page.keyframe.shape[1::-1] for page in tiff.pages]

            def address(rung: Rung, place: Place) -> str:
                page = sizes.index((rung.width, rung.height))
                resolution = len(sizes) - 1 - page
                number = place[1] * rung.columns + place[0]
                return f"/?FIF={slide.path}&JTL={resolution},{number}"

            pids = (process.pid, pid)
            yield [Target("iipsrv", port, address, pids, (slide.path,))]


@contextmanager
def deep_zoom(
    slide: Slide, _: Path, *, size: int, overlap: int
) -> Iterator[list[Target]]:
    """openslide's Deep Zoom under gunicorn, in four threads."""
    python = _peers_python("gunicorn", "openslide")
    port = _free_port()
    command = [python, "-m", "gunicorn", "--threads=4", f"--bind=127.0.0.1:{port}"]
    options = ["--log-level=error", "--no-control-socket", "deep_zoom_app:application"]
    environment = {
        "SLIDE": str(slide.path),
        "TILE": str(size),
        "OVERLAP": str(overlap),
    }
    if (
        "control-socket"
        not in subprocess.run(  # newer versions open one
            [python, "-m", "gunicorn", "--help"],
            capture_output=True,
            text=True,
            check=False,
            cwd=HERE,
        ).stdout
    ):
        options.remove("--no-control-socket")
    with _running([*command, *options], environment) as process:
        _wait_for(port, process)
        full = slide.pyramid.ladder.rungs[0]
        top = (max(full.width, full.height) - 1).bit_length()

        def address(rung: Rung, place: Place) -> str:
            x, y = (one * slide.tile // size for one in place)
            return f"/{top - rung.k}/{x}_{y}.jpeg"

        name = f"openslide Deep Zoom {size}/{overlap}"
        yield [Target(name, port, address, (process.pid,), (slide.path,))]


@contextmanager
def large_image(slide: Slide, _: Path) -> Iterator[list[Target]]:
    """large_image's tile server as it is shipped, asked for JPEG."""
    python = _peers_python("large_image", "tornado")
    port = _free_port()
    command = [python, "large_image_app.py", str(slide.path), str(port)]
    with _running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline() or "{}")
        if not found:
            raise Missing("large_image (it cannot open this slide)")

        def address(rung: Rung, place: Place) -> str:
            x, y = (one * slide.tile // found["tile"] for one in place)
            z = found["levels"] - 1 - rung.k
            return f"/tile?z={z}&x={x}&y={y}&encoding=JPEG"

        name = f"large_image, {found['name']}"
        yield [Target(name, port, address, (process.pid,), (slide.path,))]


def processes(target: Target) -> list[psutil.Process]:
    """The server's processes with all their children."""
    found = []
    for pid in target.pids:
        try:
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def open_for(path: Path) -> Slide:
    """The slide, open until the benchmark ends."""
    return Slide(path, Pyramid(open_slide(path)))


def _peers_python(*modules: str) -> str:
    """The Python that has the peers: PEERS_PYTHON, or our own."""
    python = os.environ.get("PEERS_PYTHON") or sys.executable
    asked = subprocess.run(
        [python, "-c", f"import {', '.join(modules)}"], capture_output=True, check=False
    )
    if asked.returncode:
        raise Missing(f"{modules[0]} (name a Python that has it in PEERS_PYTHON)")
    return python


@contextmanager
def _nginx(folder: Path, port: int, location: str) -> Iterator[int]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise Missing("nginx")
    folder.mkdir()
    account = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"""{account} daemon off; worker_processes 1; pid {folder}/pid;
        error_log {folder}/error.log; events {{ worker_connections 1024; }}
        http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
          client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
          fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d;
          scgi_temp_path {folder}/e;
          server {{ listen 127.0.0.1:{port}; {location} }} }}"""
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with _running([*command, "-e", str(folder / "error.log")]) as process:
        _wait_for(port, process)
        yield process.pid


@contextmanager
def _running(
    command: list[str],
    environment: dict[str, str] | None = None,
    stdout: int | None = subprocess.DEVNULL,
    *,
    pinned: bool = True,
) -> Iterator[subprocess.Popen[str]]:
    """A server, on the first core where it is `pinned`, ended with its children."""
    core = ["taskset", "-c", "0"] if pinned and shutil.which("taskset") else []
    process = subprocess.Popen(
        [*core, *command],
        env={**os.environ, **(environment or {})},
        cwd=HERE,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"{process.args} (it does not start)") from None


def _get(port: int, path: str) -> bytes:
    opener = build_opener(ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=_READY_S) as answer:
        return bytes(answer.read())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def kept_bytes(metrics_port: int) -> float:
    """How much of our service's memory is tiles that it keeps."""
    text = _get(metrics_port, "/metrics").decode()
    name = "theatrum_tiles_kept_in_memory_bytes "
    return next(
        float(line.removeprefix(name))
        for line in text.splitlines()
        if line.startswith(name)
    )


def forget(files: tuple[Path, ...]) -> None:
    """Put files out of the system's memory."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def check(target: Target, rung: Rung, place: Place) -> int:
    """Ask once, so that a peer that fails says so before the race; gives the bytes."""
    try:
        body = _get(target.port, target.address(rung, place))
    except OSError as error:
        raise Missing(f"{target.name} (it answers {error})") from error
    if not body.startswith(b"\xff\xd8"):
        raise Missing(f"{target.name} (what it gives is no JPEG)")
    return len(body)
