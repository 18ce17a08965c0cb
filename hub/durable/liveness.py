"""Which workers live: a row each, with a heartbeat.

A dead worker is known by its heartbeat; one on the same machine, at once, by its
process.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import BigInteger, Float, Integer, String
from sqlalchemy.orm import Mapped, mapped_column


class WorkerColumns:
    """The columns of a service's table of workers; a mixin that SQLAlchemy demands."""

    worker_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    machine: Mapped[str] = mapped_column(String(128))
    pid: Mapped[int] = mapped_column(Integer)
    pid_started: Mapped[float] = mapped_column(Float)
    started: Mapped[float] = mapped_column(Float, default=time.time)
    heartbeat: Mapped[float] = mapped_column(Float)
    disk_used_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    disk_free_bytes: Mapped[int] = mapped_column(BigInteger, default=0)


def own_columns() -> dict[str, Any]:  # Any: values of columns, each with its type
    """The row of this process."""
    process = psutil.Process()
    return {
        "worker_id": (
            f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
        ),
        "machine": _machine(),
        "pid": process.pid,
        "pid_started": process.create_time(),
        "started": time.time(),
        "heartbeat": time.time(),
        "disk_used_bytes": 0,
        "disk_free_bytes": 0,
    }


def is_dead(row: WorkerColumns, own: WorkerColumns, lease_s: float) -> bool:
    """Whether a worker will not come back to what it has taken."""
    if row.worker_id == own.worker_id:
        return False
    if row.machine == own.machine and not _is_running(row):
        return True
    return row.heartbeat < time.time() - lease_s


def _machine() -> str:
    """What tells whose process ids are comparable with ours: boot and namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
    return f"{boot} {space}"


def _is_running(row: WorkerColumns) -> bool:
    try:
        process = psutil.Process(row.pid)
        same = abs(process.create_time() - row.pid_started) < 1
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
