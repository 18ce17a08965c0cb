"""The commands of `python -m tile_server`: serve, hub and beside-kernel."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from tile_server import cross_origin, running, tokens, workers
from tile_server.folder import SlideFolder, folder_routes
from tile_server.probing import Prober, ProbeSettings
from tile_server.readers.imports import IMPORTS
from tile_server.service import TileSettings
from tile_server.workers import Worker

_MOST_WORKERS = 64


class CannotStart(Exception):
    """The command cannot run as it was given; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    # Its remarks on odd files name the file, and names of slides stay out of the log.
    logging.getLogger("tifffile").setLevel(logging.ERROR)
    # Likewise values of a header, which can be a patient's.
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")
    options = _parser().parse_args(arguments)
    try:
        if options.command == "serve":
            return _serve(options)
        if options.command == "hub":
            return _hub(options, os.environ)
        _beside_kernel(os.environ)
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tile_server", description="Slides as map tiles over HTTP."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the slides of a folder")
    serve.add_argument("folder", type=Path, metavar="DIR")
    serve.add_argument(
        "--port", type=int, default=8090, help="0 picks a free one (default: 8090)"
    )
    hub = commands.add_parser("hub", help="run as a service of JupyterHub")
    for command in (serve, hub):
        _add_listeners(command, os.environ)
    commands.add_parser("beside-kernel", help="run beside a notebook's kernel")
    return parser


def _add_listeners(command: argparse.ArgumentParser, names: Mapping[str, str]) -> None:
    command.add_argument(
        "--lane-port",
        type=int,
        default=names.get("THEATRUM_TILE_LANE_PORT") or None,
        metavar="N",
        help="also answer through the fast lane, on this port; the service's own port "
        "gives it to the lane (default: no lane)",
    )
    command.add_argument(
        "--metrics-port",
        type=int,
        default=names.get("THEATRUM_TILE_METRICS_PORT") or None,
        metavar="N",
        help="answer /metrics, /live and /ready on this port of loopback; further "
        "workers take the ports after it (default: none)",
    )
    command.add_argument(
        "--workers",
        type=int,
        default=names.get("THEATRUM_TILE_WORKERS") or 1,
        metavar="N",
        help="processes that share the work (default: 1)",
    )
    command.add_argument(
        "--cors",
        default=names.get("THEATRUM_TILE_CORS", ""),
        metavar="ORIGINS",
        help="origins whose pages may read the answers, with spaces between them, such "
        "as 'https://viewer.example'; * is all of them (default: none)",
    )


def _serve(options: argparse.Namespace) -> int:
    root: Path = options.folder
    if not root.is_dir():
        raise CannotStart(f"{root} is not a folder: name one that holds slides.")
    listening = _workers(options, options.port)
    chosen = _with_origins(_settings(tokens.new_key(), os.environ), options.cors)
    with _with_folder(chosen) as settings:
        return _serve_folder(root, settings, listening)


def _serve_folder(root: Path, settings: TileSettings, listening: list[Worker]) -> int:
    def work(worker: Worker) -> None:
        with Prober(settings.probe) as prober:
            folder = SlideFolder(root, prober)
            count = len(folder.images(_progress))

            def started(_: running.Stop) -> None:
                if worker.number == 0:
                    sys.stdout.write(f"{count} slides\n{_addresses(worker)}")
                    sys.stdout.flush()

            running.run(
                settings,
                worker.plain,
                routes=folder_routes(folder),
                started=started,
                prober=prober,
                besides=_besides(worker),
            )

    return workers.run(listening, work)


@contextmanager
def _with_folder(settings: TileSettings) -> Iterator[TileSettings]:
    """Settings with a folder for the cache, which all processes share.

    One that nobody named goes when the service ends.
    """
    with ExitStack() as passing:
        folder = settings.cache_folder
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="theatrum-tiles-")
            folder = Path(passing.enter_context(made))
        probe = replace(settings.probe or ProbeSettings(), imports=folder / IMPORTS)
        yield replace(settings, cache_folder=folder, probe=probe)


def _addresses(worker: Worker) -> str:
    """What to tell of a service that has started; its own address comes last."""
    lines = []
    for name, sockets in (
        ("metrics", worker.metrics),
        ("lane", worker.lane),
        ("ready", worker.plain or worker.lane),
    ):
        for one in sockets:
            lines.append(f"{name} http://127.0.0.1:{one.getsockname()[1]}/\n")
    return "".join(lines)


def _workers(
    options: argparse.Namespace, port: int, host: str = "127.0.0.1"
) -> list[Worker]:
    """The workers that were asked for, each with its listening sockets."""
    count, lane, metrics = options.workers, options.lane_port, options.metrics_port
    if not 1 <= count <= _MOST_WORKERS:
        raise CannotStart(f"--workers must be from 1 to {_MOST_WORKERS}.")
    lane_only = lane == port and port != 0
    several = count > 1
    plain_number, lane_number = port, lane
    found: list[Worker] = []
    for number in range(count):
        plain: list[socket.socket] = []
        quick: list[socket.socket] = []
        if not lane_only:
            plain = _listen(plain_number, host, shared=several)
            plain_number = plain[0].getsockname()[1]
        if lane_number is not None:
            quick = _listen(lane_number, host, shared=several)
            lane_number = quick[0].getsockname()[1]
        watch = [] if metrics is None else _listen(metrics and metrics + number)
        found.append(Worker(number, plain, quick, watch))
    return found


def _besides(worker: Worker) -> running.Besides:
    return running.Besides(
        lane=worker.lane, metrics=worker.metrics, parent=worker.parent
    )


def _progress(files: list[Path]) -> Iterable[Path]:
    """Show how far the first look has come; only where somebody looks."""
    terminal = Console(stderr=True)
    quiet = not terminal.is_terminal
    return track(files, "slides", console=terminal, transient=True, disable=quiet)


def _hub(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Read what the hub sets for its services, and serve."""
    missing = [
        name
        for name in (
            "JUPYTERHUB_SERVICE_URL",
            "JUPYTERHUB_SERVICE_PREFIX",
            "THEATRUM_TILE_KEY",
        )
        if not environment.get(name)
    ]
    if missing:
        raise CannotStart(f"The hub has to set {', '.join(missing)} for this service.")
    try:
        key = tokens.decode_key(environment["THEATRUM_TILE_KEY"])
        address = urlsplit(environment["JUPYTERHUB_SERVICE_URL"])
        host, port = address.hostname or "127.0.0.1", address.port
    except ValueError as error:
        raise CannotStart(f"The hub's settings are wrong: {error}.") from error
    if not port:
        raise CannotStart("JUPYTERHUB_SERVICE_URL has to name a port.")
    base = environment["JUPYTERHUB_SERVICE_PREFIX"]
    settings = _with_origins(_settings(key, environment), options.cors)
    settings = replace(settings, base=base)

    def work(worker: Worker) -> None:
        running.run(settings, worker.plain, besides=_besides(worker))

    listening = _workers(options, port, host)
    with _with_folder(settings) as settings:
        return workers.run(listening, work)


def _beside_kernel(environment: Mapping[str, str]) -> None:
    """Serve one notebook's slides until its kernel closes our standard input.

    Interrupting a cell sends SIGINT to the kernel's whole process group; tiles have to
    outlive that, so only the end of input, or SIGTERM, stops this.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        key = tokens.decode_key(sys.stdin.readline())
    except ValueError as error:
        raise CannotStart(f"The first line of input must be a key: {error}.") from None
    descriptor = sys.stdin.fileno()
    sockets = _listen(0)
    number = sockets[0].getsockname()[1]

    def started(stop: running.Stop) -> None:
        def wait_for_the_end() -> None:
            # Not through sys.stdin: Python could not end while a thread has its lock.
            while os.read(descriptor, 4096):
                pass
            stop()

        threading.Thread(target=wait_for_the_end, daemon=True).start()
        sys.stdout.write(json.dumps({"port": number}) + "\n")
        sys.stdout.flush()

    # A notebook's page has another port, and perhaps another name, than these tiles.
    settings = _with_origins(
        _settings(key, environment), environment.get("THEATRUM_TILE_CORS", "")
    )
    settings = replace(settings, resource_policy="cross-origin")
    running.run(settings, sockets, signals=(signal.SIGTERM,), started=started)


def _listen(
    port: int, host: str = "127.0.0.1", *, shared: bool = False
) -> list[socket.socket]:
    try:
        return running.listen(port, host, shared=shared)
    except (OSError, OverflowError) as error:
        raise CannotStart(f"Port {port} cannot be used: {error}.") from error


def _settings(key: bytes, environment: Mapping[str, str]) -> TileSettings:
    """Settings with the tile cache that the environment names."""
    settings = TileSettings(key)
    folder = environment.get("THEATRUM_TILE_CACHE")
    if folder:
        settings = replace(settings, cache_folder=Path(folder))
    size = environment.get("THEATRUM_TILE_CACHE_BYTES")
    if size:
        if not size.isdecimal():
            raise CannotStart("THEATRUM_TILE_CACHE_BYTES must be a number of bytes.")
        settings = replace(settings, cache_bytes=int(size))
    return settings


def _with_origins(settings: TileSettings, text: str) -> TileSettings:
    """Settings for pages of the origins that `text` lists; raises CannotStart."""
    try:
        origins = cross_origin.parse_origins(text)
    except ValueError as error:
        raise CannotStart(f"--cors (THEATRUM_TILE_CORS): {error}.") from error
    if not origins:
        return settings
    # Whoever may read a tile may also show it.
    return replace(settings, cors_origins=origins, resource_policy="cross-origin")


if __name__ == "__main__":
    sys.exit(main())
