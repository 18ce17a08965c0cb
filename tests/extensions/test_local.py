"""The tile service beside the kernel: its own process, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import slides

KERNEL = """
import sys
from theatrum import open_image
from theatrum.local import tile_service
open_image("slide.svs")
print(tile_service().process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_tile_service_ends_with_the_kernel_however_that_ends(
    tmp_path: Path, end: signal.Signals | None
) -> None:
    slides.write_slide(tmp_path / "slide.svs", slides.YCBCR)
    # A file of the same name beside the notebook must not be run in its place.
    (tmp_path / "tile_server.py").write_text("raise SystemExit('the wrong module')")
    kernel = subprocess.Popen(
        [sys.executable, "-P", "-c", KERNEL],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert kernel.stdout is not None
    line = kernel.stdout.readline()
    if end is None:
        kernel.communicate("")
    else:
        assert line, kernel.communicate()[1]
        kernel.send_signal(end)
        kernel.communicate()
    assert _ends_within(int(line), seconds=10)


def _ends_within(pid: int, seconds: float) -> bool:
    """Whether a process, no child of this one, is gone or about to be reaped."""
    for _ in range(int(seconds / 0.05)):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        threading.Event().wait(0.05)
    os.kill(pid, signal.SIGKILL)
    return False
