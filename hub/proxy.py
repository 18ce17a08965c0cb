"""Which configurable-http-proxy to run: the one on Node, or its port in Python."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

# run.py installs the Node proxy here; see hub/node_proxy/package.json.
NODE_PROXY = Path("node_modules/configurable-http-proxy/bin/configurable-http-proxy")


def node_proxy() -> Path | None:
    """The Node proxy of this environment, where run.py could install it."""
    script = Path(sys.prefix) / "proxy" / NODE_PROXY
    return script if script.is_file() and shutil.which("node") else None


def command(choice: str) -> list[str]:
    """The command that starts the proxy; `auto` prefers Node, which is faster."""
    script = node_proxy()
    if choice == "node" and script is None:
        raise FileNotFoundError(
            "The setting proxy is node, but that proxy is not installed: install "
            "Node 20 or newer with npm, and run `python3 run.py` again."
        )
    if script is not None and choice != "python":
        return ["node", str(script)]
    return [str(Path(sys.executable).with_name("configurable-http-proxy"))]
