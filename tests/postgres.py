"""A PostgreSQL of the tests' own: made in a temporary folder, gone with it.

Debian's packages put the programs where no PATH looks. They refuse to run as root: then
the account `postgres`, which the packages make, runs them.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "postgres"


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        on_path = shutil.which("initdb")
        return Path(on_path).parent if on_path else None
    return found[-1].parent


def missing() -> str | None:
    """Why no PostgreSQL can be started here; None where one can."""
    if programs() is None:
        return "no PostgreSQL here: apt-get install postgresql"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(ACCOUNT)
        except KeyError:
            return f"PostgreSQL does not run as root, and there is no {ACCOUNT}"
    return None


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL."""

    bin: Path
    port: int
    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{ACCOUNT}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of a new, empty database."""
        name = f"test_{secrets.token_hex(4)}"
        _run(
            self.bin / "createdb",
            f"--host={self.folder}",
            f"--port={self.port}",
            f"--username={ACCOUNT}",
            name,
        )
        return self.url(name)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL on a port of its own, for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="theatrum-postgres-"))
    where = programs()
    assert where is not None
    if os.geteuid() == 0:
        shutil.chown(folder, ACCOUNT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    state = folder / "state"
    control = (where / "pg_ctl", f"--pgdata={state}", "--wait")
    try:
        _run(
            where / "initdb",
            f"--pgdata={state}",
            "--auth=trust",
            f"--username={ACCOUNT}",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        )
        options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off"
        log = f"--log={folder / 'log'}"
        _run(*control, log, f"--options={options}", "start")
        try:
            yield Cluster(where, port, folder)
        finally:
            _run(*control, "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: Path | str) -> None:
    user = ACCOUNT if os.geteuid() == 0 else None
    done = subprocess.run(
        [str(part) for part in command],
        user=user,
        group=user,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
