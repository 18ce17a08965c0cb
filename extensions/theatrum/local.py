"""A tile service beside the kernel, for slides that lie in the user's own folders.

The first local slide starts `python -m tile_server beside-kernel` as a process of its
own, so that tiles arrive while a cell runs. It takes its key from standard input and
ends when that pipe closes, which the system does when the kernel ends, however it ends.
The browser reaches it through jupyter-server-proxy, under the page's own origin.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jupyter_core.paths import jupyter_runtime_dir

from theatrum.errors import FileMissing, Unreachable, Unreadable
from theatrum.session import Session, current_session

log = logging.getLogger("theatrum")

START_TIMEOUT_S = 30.0
LIFE_S = 24 * 3600
"""How long an address of a local slide stays the same: longer keeps the browser's
cache useful, shorter ends a forgotten page's access sooner."""


@dataclass(frozen=True)
class TileService:
    """The running process, where it listens, and the key that it trusts."""

    process: subprocess.Popen[bytes]
    port: int
    key: bytes

    @property
    def host_url(self) -> str:
        """Address for the kernel, which is on the same machine."""
        return f"http://127.0.0.1:{self.port}"


def tile_service() -> TileService:
    """Return this kernel's tile service, started at the first call.

    One that has ended (killed, out of memory) is replaced by a new one, with a new
    port and key.
    """
    service = _started()
    if service.process.poll() is None:
        return service
    log.warning("the tile service beside the kernel had ended and is started again")
    service.process.communicate()  # closes the pipes
    _started.cache_clear()
    return _started()


@functools.cache
def _started() -> TileService:
    from tile_server import tokens

    key = tokens.new_key()
    # Its messages go to a file: on the kernel's stderr they would appear in the output
    # of whatever cell runs.
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            # -P: a tile_server.py or json.py in the notebook's folder must not be run.
            [sys.executable, "-P", "-m", "tile_server", "beside-kernel"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            # Jupyter interrupts the kernel's whole process group, and ipykernel ends
            # its group's processes at shutdown and waits two seconds for this one.
            start_new_session=True,
        )
        try:
            port = _port(process, key)
        except (OSError, ValueError, KeyError, TypeError) as error:
            process.kill()
            process.communicate()
            messages.seek(0)
            said = messages.read().decode(errors="replace").strip().splitlines()
            raise Unreachable(
                "The tile service beside the kernel did not start"
                + (f": {said[-1]}" if said else f" within {START_TIMEOUT_S:.0f} s.")
            ) from error
    return TileService(process, port, key)


def _port(process: subprocess.Popen[bytes], key: bytes) -> int:
    """Give a starting tile service its key, and return the port that it chose."""
    assert process.stdin  # noqa: S101  (both are pipes: for the type checker)
    assert process.stdout  # noqa: S101
    process.stdin.write(base64.urlsafe_b64encode(key) + b"\n")
    process.stdin.flush()
    return int(json.loads(_first_line(process.stdout))["port"])


def _first_line(pipe: IO[bytes]) -> bytes:
    """Return the first line a starting process prints; empty if it prints none."""
    ready, _, _ = select.select([pipe], [], [], START_TIMEOUT_S)
    return pipe.readline() if ready else b""


@dataclass(frozen=True)
class LocalAddress:
    """One local slide's addresses: for the kernel, and for the browser."""

    kernel: str
    """Prefix before `view.json`, `region` and the other routes of the slide."""

    tiles: str
    """URL template with {z}, {x} and {y}, as the page asks for it."""

    expires: float
    """End of the capability, seconds since 1970."""

    version: str


def local_address(path: Path) -> LocalAddress:
    """Return fresh addresses for a local file, starting the service if need be."""
    from tile_server import address, tokens, versions

    name = path.name
    try:
        version = versions.file_version(path)
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise FileMissing(f"There is no file {name} here.") from error
    except IsADirectoryError as error:
        raise Unreadable(f"{name} is a folder: give the slide in it.") from error
    except PermissionError as error:
        raise Unreadable(f"You may not read {name}: check its permissions.") from error
    except OSError as error:
        reason = error.strerror or "input error"
        raise Unreadable(f"{name} cannot be opened: {reason}.") from error
    service = tile_service()
    expires = tokens.expiry(time.time(), LIFE_S)
    # The file is the user's own, so that its label is not withheld.
    capability = tokens.Capability(
        path=str(path), version=version, label=True, expires=expires
    )
    token = tokens.seal(service.key, capability)
    return LocalAddress(
        kernel=f"{service.host_url}/s/{token}/",
        tiles=page_base(service.port).rstrip("/") + address.tiles_url("/", token),
        expires=float(expires),
        version=version,
    )


def page_base(
    port: int,
    session: Session | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Return the base URL of a local port as the notebook's page sees it.

    Parameters
    ----------
    port
        The port on the kernel's machine.
    session, environment
        By default this process's.

    Returns
    -------
    A path under the page's own origin, through jupyter-server-proxy; where no Jupyter
    server can be named, the port itself, which only a browser on this machine reaches.
    """
    session = session or current_session(environment)
    prefix = None if session.place == "service" else session.prefix
    if prefix is None:
        env = os.environ if environment is None else environment
        prefix = _parent_server_prefix(env)
    if prefix is not None:
        return f"{prefix}proxy/{port}/"
    return f"http://127.0.0.1:{port}/"


def _parent_server_prefix(env: Mapping[str, str]) -> str | None:
    """Return the base URL of the Jupyter server that started this kernel.

    A server writes what it is into a file named after its process. (jupyter_server's
    `list_running_servers` reads the same files, but importing it takes a second.)
    """
    parent = env.get("JPY_PARENT_PID", "")
    if not parent.isdigit():
        return None
    try:
        written = Path(jupyter_runtime_dir()) / f"jpserver-{parent}.json"
        base_url = json.loads(written.read_text(encoding="utf-8"))["base_url"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"/{base_url.strip('/')}/".replace("//", "/")
