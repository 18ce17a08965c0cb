"""The commands of `python -m tile_server`: serve, hub and beside-kernel."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from tile_server import running, tokens
from tile_server.folder import SlideFolder, folder_routes
from tile_server.probing import Prober
from tile_server.service import TileSettings


class CannotStart(Exception):  # noqa: N818 - the name says what is the matter
    """The command cannot run as it was given; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    # Its remarks on odd files name the file, and names of slides stay out of the log.
    logging.getLogger("tifffile").setLevel(logging.ERROR)
    options = _parser().parse_args(arguments)
    try:
        if options.command == "serve":
            _serve(options.folder, options.port)
        elif options.command == "hub":
            _hub(os.environ)
        else:
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
    commands.add_parser("hub", help="run as a service of JupyterHub")
    commands.add_parser("beside-kernel", help="run beside a notebook's kernel")
    return parser


def _serve(root: Path, port: int) -> None:
    if not root.is_dir():
        raise CannotStart(f"{root} is not a folder: name one that holds slides.")
    sockets = _listen(port)
    number = sockets[0].getsockname()[1]

    def started(_: running.Stop) -> None:
        sys.stdout.write(f"{count} slides\nready http://127.0.0.1:{number}/\n")
        sys.stdout.flush()

    settings = _settings(tokens.new_key(), os.environ)
    with Prober(settings.probe) as prober:
        folder = SlideFolder(root, prober)
        count = len(folder.images(_progress))
        routes = folder_routes(folder)
        running.run(settings, sockets, routes=routes, started=started, prober=prober)


def _progress(files: list[Path]) -> Iterable[Path]:
    """Show how far the first look has come; only where somebody looks."""
    terminal = Console(stderr=True)
    quiet = not terminal.is_terminal
    return track(files, "slides", console=terminal, transient=True, disable=quiet)


def _hub(environment: Mapping[str, str]) -> None:
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
    settings = replace(_settings(key, environment), base=base)
    running.run(settings, _listen(port, host))


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
    settings = replace(_settings(key, environment), resource_policy="cross-origin")
    running.run(settings, sockets, signals=(signal.SIGTERM,), started=started)


def _listen(port: int, host: str = "127.0.0.1") -> list[socket.socket]:
    try:
        return running.listen(port, host)
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


if __name__ == "__main__":
    sys.exit(main())
