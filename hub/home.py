"""Where an installation keeps its state: one folder, one name for each thing in it.

Demo mode: all of it belongs to the account that started the hub. Accounts mode: the
folder belongs to root and to the services' group, sticky, so that a service can make
its database there but can neither replace nor remove the hub's own files; each
person's home and each course belongs to its own account and is closed to all others.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The paths of one installation below its root folder."""

    root: Path

    @property
    def hub_db(self) -> Path:
        return self.root / "jupyterhub.sqlite"

    @property
    def cookie_secret(self) -> Path:
        return self.root / "jupyterhub_cookie_secret"

    @property
    def proxy_pid(self) -> Path:
        return self.root / "jupyterhub-proxy.pid"

    @property
    def demo_accounts(self) -> Path:
        """`{name: password}` as JSON, readable by the owner only."""
        return self.root / "demo-accounts.json"

    @property
    def tile_key(self) -> Path:
        """The key that the catalogue seals tile addresses with."""
        return self.root / "tile.key"

    @property
    def catalog_db(self) -> Path:
        return self.root / "theatrum.sqlite"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def courses(self) -> Path:
        """One folder a course: its course file and its nbgrader folders."""
        return self.root / "courses"

    @property
    def exchange(self) -> Path:
        """What was released, handed in and given back; the courses service's own."""
        return self.root / "exchange"

    @property
    def dashboards(self) -> Path:
        return self.root / "dashboards"

    @property
    def homes(self) -> Path:
        """People's own files, a folder each."""
        return self.root / "homes"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def prepare(self) -> None:
        """Make the folders that are missing, closed to other accounts by default."""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (
            self.images,
            self.cache,
            self.courses,
            self.exchange,
            self.dashboards,
            self.homes,
            self.logs,
        ):
            folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def private_key(path: Path, new: bytes) -> bytes:
    """The key stored at `path`; `new` is stored there first where there is none."""
    if not path.exists():
        write_private(path, new)
    return path.read_bytes()
