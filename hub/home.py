"""Where an installation keeps its state: one folder, one name for each thing in it.

Demo mode: all of it belongs to the account that started the hub. Accounts mode: the
folder and the hub's own files belong to root, and what the services write to lies in
folders that belong to them; each person's home and each course belongs to its own
account and is closed to all others. Root never writes where another account can.
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
        return self.catalog / "theatrum.sqlite"

    @property
    def catalog(self) -> Path:
        """The catalogue's database and what SQLite keeps beside it."""
        return self.root / "catalog"

    @property
    def inbox(self) -> Path:
        """Requests to the catalogue by the services, a JSON file each."""
        return self.catalog / "inbox"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def derived(self) -> Path:
        """Arrays and tables that the catalogue made of images."""
        return self.root / "derived"

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
    def ia_api(self) -> Path:
        """The IA-API service's database and key."""
        return self.root / "ia_api"

    @property
    def dicom_client(self) -> Path:
        """The DICOM client's database and keys."""
        return self.root / "dicom_client"

    @property
    def phi(self) -> Path:
        """Images of patients while somebody works on them."""
        return self.root / "phi"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def demo_built(self) -> Path:
        """There once the demo has been built; the hub's own."""
        return self.root / "demo-built"

    def note_mode(self, mode: str) -> None:
        """Note, at the first start, in which mode and by whom it was made."""
        noted = self.root / "mode"
        if not noted.exists():
            noted.write_text(f"{mode} {os.geteuid()}", "utf-8")

    def prepare(self) -> None:
        """Make the folders that are missing, closed to other accounts by default."""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (
            self.catalog,
            self.images,
            self.derived,
            self.cache,
            self.courses,
            self.exchange,
            self.dashboards,
            self.homes,
            self.ia_api,
            self.dicom_client,
            self.phi,
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
