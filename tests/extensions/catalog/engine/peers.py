"""Dask clusters of real processes, each worker with an address of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[4]


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


class Cluster:
    """A Dask scheduler and workers, each a process of its own with its own address."""

    def __init__(self, folder: Path, *extra: str) -> None:
        self.folder, self.extra = folder, extra
        folder.mkdir()
        file = folder / "scheduler.json"
        words = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--port", "0"]
        self.scheduler = self._begin("scheduler", *words, "--no-dashboard", *extra)
        until(lambda: file.exists() and file.stat().st_size > 0)
        self.address = json.loads(file.read_text())["address"]
        self.workers: list[subprocess.Popen[bytes]] = []

    def _begin(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/extensions"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def add(self, *, nanny: bool = False) -> subprocess.Popen[bytes]:
        """Begin a worker of one thread."""
        words = ["--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard"]
        words += ["--nanny" if nanny else "--no-nanny", *self.extra]
        made = self._begin("worker", self.address, *words)
        self.workers.append(made)
        return made

    def close(self) -> None:
        for one in [*self.workers, self.scheduler]:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()


def certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate that is its own authority; returns its file and its key's."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "theatrum test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(cert), str(private)
