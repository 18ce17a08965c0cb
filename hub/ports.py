"""The loopback ports of one installation: chosen once, the same at every start.

They are kept because people's servers outlive a hub that was killed, and they know
the hub by its port.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from hub.home import write_private

LOOPBACK = "127.0.0.1"
_RANGE = range(20_000, 32_000)


def is_free(port: int, address: str = LOOPBACK) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT after a stop counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on, below those of outgoing connections.

    A port that the system lends to outgoing connections (32768 and up on Linux) may
    be free now and lent to one at the moment when the server starts.
    """
    found: set[int] = set()
    while len(found) < count:
        port = _RANGE.start + secrets.randbelow(len(_RANGE))
        if is_free(port):
            found.add(port)
    return list(found)


def kept_ports(file: Path, names: Sequence[str]) -> dict[str, int]:
    """A port for each name: the one in `file`, or a new one where that is in use."""
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    ports = {name: kept[name] for name in names if name in kept}
    ports = {name: port for name, port in ports.items() if is_free(port)}
    missing = [name for name in names if name not in ports]
    ports.update(zip(missing, free_ports(len(missing)), strict=True))
    if ports != kept:
        write_private(file, json.dumps(ports, indent=2).encode() + b"\n")
    return ports
