"""Real DICOM peers from dcmtk (Debian: dcmtk): who sends, who receives, who asks."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest


def tool(name):
    """A tool's path; the test skips without it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: dcmtk)")
    return found


@dataclass(frozen=True)
class Receiver:
    """A running storescp and where it puts things."""

    port: int
    folder: Path
    process: subprocess.Popen

    def received(self):
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextlib.contextmanager
def storescp(*options, title="ARCHIVE"):
    """Run dcmtk's receiver on a free port; it keeps data sets as they come."""
    program, port = tool("storescp"), free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [
                *(program, "--output-directory", folder, "--aetitle", title),
                *("+B", *options, str(port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: listens(port))
            yield Receiver(port, Path(folder), process)
        finally:
            process.terminate()
            process.wait()


def storescu(port, *options, files=(), title="THEATRUM"):
    """Send files; returns the finished process."""
    return _run("storescu", "-aec", title, *options, "127.0.0.1", port, *files)


def echoscu(port, *options, title="THEATRUM"):
    """Ask for an echo; returns the finished process."""
    return _run("echoscu", "-aec", title, *options, "127.0.0.1", port)


def _run(name, *arguments):
    return subprocess.run(
        [tool(name), *map(str, arguments)], capture_output=True, text=True, timeout=240
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until(condition, limit_s=60):
    """Wait until something is so, and return what it gave."""
    ends = time.monotonic() + limit_s
    while True:
        if found := condition():
            return found
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.02)
