"""How long people wait, and what they cost: `python benchmarks/start.py`.

Clones the checkout into a folder that is thrown away, sets it up and runs it by
`run.py` as a newcomer would, and prints when each thing was there. Needs the package
index and Chromium; takes a few minutes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from hub.leftovers import processes  # noqa: E402
from tests import kernel  # noqa: E402
from tests.browser import Notebook, browser, free_port  # noqa: E402
from tests.hub_process import RunningHub, wait_until_ready  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        began = time.monotonic()
        hub = start(clone, home)
        ready = time.monotonic() - began
        shown = first_slide(hub, Path(folder) / "profile")
        row("fresh clone: set up, demo built, hub ready", ready)
        row("fresh clone: first slide on screen", ready + shown)
        row("  of which: sign in, spawn, kernel, slide", shown)
        hub.stop()

        began = time.monotonic()
        hub = start(clone, home)
        row("next start: hub and all services ready", time.monotonic() - began)
        with hub.api("student2") as student:
            began = time.monotonic()
            kernel.start_server(student, "student2")
            row("spawn of a person's server", time.monotonic() - began)
        for process, person in processes(home):
            if person:
                print(
                    f"{'memory of an idle student (USS)':48} {uss_mb(process):8.0f} MB"
                )
        hub.stop()


def start(clone: Path, home: Path) -> RunningHub:
    process = subprocess.Popen(
        [sys.executable, "run.py", f"--home={home}", f"--port={free_port()}"],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return wait_until_ready(process, home)


def first_slide(hub: RunningHub, profile: Path) -> float:
    """Seconds from the sign-in page to a welcome notebook with its slide drawn."""
    with browser(profile) as context:
        page = context.pages[0]
        began = time.monotonic()
        page.goto(hub.url)
        page.fill("#username_input", "student1")
        page.fill("#password_input", hub.passwords["student1"])
        page.click("#login_submit")
        page.wait_for_url("**/lab/**")
        notebook = Notebook.open(page, f"{hub.url}user/student1/", "welcome.ipynb")
        notebook.run(2)
        page.wait_for_function(
            "() => { const tiles = [...document.querySelectorAll('img.leaflet-tile')];"
            " return tiles.length && tiles.every((tile) => tile.naturalWidth); }"
        )
        return time.monotonic() - began


def uss_mb(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / 1e6


def row(what: str, seconds: float) -> None:
    print(f"{what:48} {seconds:8.1f} s", flush=True)


if __name__ == "__main__":
    main()
