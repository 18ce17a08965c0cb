"""The tile service beside the kernel: its own process, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import slides

KERNEL = """
import signal, sys
from theatrum import open_image
from theatrum.local import tile_service
# Whoever starts the tests in the background makes them, and so this, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
open_image("slide.svs")
told = False
while True:
    try:
        if not told:
            told = True
            print(tile_service().process.pid, flush=True)
        if not sys.stdin.readline():
            break
        print(open_image("slide.svs").region(0, 0, 8, 8).shape, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that opened a slide, as a kernel does, and reads a region per line."""
    slides.write_slide(tmp_path / "slide.svs", slides.YCBCR)
    # A file of the same name beside the notebook must not be run in its place.
    (tmp_path / "tile_server.py").write_text("raise SystemExit('the wrong module')")
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", KERNEL],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as Jupyter gives it
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_tile_service_ends_with_the_kernel_however_that_ends(
    kernel: subprocess.Popen[str], end: signal.Signals | None
) -> None:
    tiles = int(_line(kernel))
    if end is not None:
        kernel.send_signal(end)
    kernel.communicate()
    assert _ends_within(tiles, seconds=10)


def test_an_interrupted_kernel_keeps_its_tile_service(
    kernel: subprocess.Popen[str],
) -> None:
    tiles = int(_line(kernel))
    os.killpg(kernel.pid, signal.SIGINT)  # as Jupyter interrupts: the whole group
    assert _line(kernel) == "interrupted"
    assert kernel.stdin is not None
    kernel.stdin.write("\n")
    kernel.stdin.flush()
    assert _line(kernel) == "(8, 8, 3)"
    assert _runs(tiles)


def _line(kernel: subprocess.Popen[str]) -> str:
    assert kernel.stdout is not None
    return kernel.stdout.readline().strip()


def _ends_within(pid: int, seconds: float) -> bool:
    """Whether a process, no child of this one, ends in time."""
    for _ in range(int(seconds / 0.05)):
        if not _runs(pid):
            return True
        threading.Event().wait(0.05)
    os.kill(pid, signal.SIGKILL)
    return False


def _runs(pid: int) -> bool:
    """Whether a process is there, and not only still to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
