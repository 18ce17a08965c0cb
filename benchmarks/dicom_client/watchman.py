"""Ends what a benchmark started, however the benchmark itself ended.

A process of its own waits until its standard input is closed, which happens when the
benchmark ends, by SIGKILL too. Then it kills every process in whose command the
benchmark's temporary folder is named, and removes the folder.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


@contextmanager
def guarded_folder() -> Iterator[Path]:
    """A temporary folder that goes with everything that was started with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="theatrum-benchmark-"))
    man = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.dicom_client.watchman", str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield folder
    finally:
        assert man.stdin is not None
        man.stdin.close()
        man.wait()


def _clear(folder: str) -> None:
    own = psutil.Process().pid
    while left := [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid != own
        and process.status() != psutil.STATUS_ZOMBIE
        and any(folder in part for part in process.info["cmdline"] or ())
    ]:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    _clear(sys.argv[1])
