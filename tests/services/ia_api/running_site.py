"""A site: a pathology server, our web server and workers as processes of their own.

The apps of a site run `probe_nodes.py`, whose nodes do what a note says that lies
under the name of the slide's size: wait, raise, die. So a test steers a single job by
giving its slide a size that no other slide has.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil

from tests import slides
from tests.pathology_server import (
    PathologyServer,
    Slide,
    Viewer,
    slide_of_file,
    synthetic_slide,
)

ROOT = Path(__file__).resolve().parents[3]
NODES = Path(__file__).with_name("probe_nodes.py")

# Times short enough for a test, and long enough for two busy cores.
SETTINGS: dict[str, Any] = {
    "shipped_apps": False,
    "lease_s": 4.0,
    "attempts": 3,
    "crashes": 2,
    "backoff_base_s": 0.1,
    "backoff_cap_s": 0.5,
    "progress_interval_s": 0.2,
    "min_free_bytes": 0,
    "invocations_per_minute": 100_000,
    "notifications_per_minute": 100_000,
}

_sizes = itertools.count()


def wait(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait until the condition holds; it is asked again every 20 ms."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Site:
    """One installation in a folder, with the processes that a test starts.

    `settings` go over `SETTINGS`. Everything is stopped when the block ends.
    """

    def __init__(self, folder: Path, server: PathologyServer, **settings: Any) -> None:
        self.server = server
        self.home = folder / "home"
        self.notes = folder / "notes"
        self.logs = folder / "logs"
        for made in (self.home, self.notes, self.logs):
            made.mkdir()
        self.url = ""
        self.web_server: subprocess.Popen[bytes]
        self._settings = settings
        self._processes: list[subprocess.Popen[bytes]] = []
        self._viewers: dict[str, Viewer] = {}
        (self.home / NODES.name).write_text(NODES.read_text())
        self._configure()

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for viewer in self._viewers.values():
            viewer.__exit__(None, None, None)
        for process in self._processes:
            self.kill(process)
        if kind is not None:
            print(self.log_text()[-6000:])

    # Processes.

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the web server, and wait until it answers."""
        if not self.url:
            self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        options = ["--port", port, "--public-url", self.url]
        origins = self._settings.get("allow_callback", [self.server.origin])
        for origin in origins:
            options += ["--allow-callback", origin]
        process = self._start("serve", *options)

        def answers() -> bool:
            assert process.poll() is None, self.log_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/apps/probe/info").status_code < 500
            return False

        wait(answers, "the web server answers")
        self.web_server = process
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker; it takes jobs as soon as it is ready."""
        return self._start("worker")

    def _start(self, command: str, *options: str) -> subprocess.Popen[bytes]:
        log = (self.logs / f"{command}-{len(self._processes)}.log").open("wb")
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from services.cli import app; app()",
                "ia-api",
                command,
                "--home",
                str(self.home),
                *options,
            ],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        log.close()
        self._processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and its children at once, as a power cut would."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()

    # What a test does.

    def viewer(self, app: str = "probe") -> Viewer:
        """A user in front of an app, which is registered at the first call."""
        if app not in self._viewers:
            viewer = Viewer(self.server, f"{self.url}/apps/{app}")
            viewer.register()
            self._viewers[app] = viewer
        return self._viewers[app]

    def slide(self, note: str = "", **fields: Any) -> Slide:
        """A slide of a size of its own, whose jobs do what the note says."""
        width = 300 + next(_sizes)
        slide = synthetic_slide(f"sl-{width}", width=width, height=200, **fields)
        self.server.add(slide)
        self.note(slide, note)
        return slide

    def file_slide(self, note: str = "", **fields: Any) -> Slide:
        """The same, as a file that is sent; always the same pixel in its corner."""
        width = 300 + next(_sizes)
        spec = slides.SlideSpec(width=width, height=200, downsamples=(1,))
        path = slides.write_slide(self.notes / f"slide-{width}.svs", spec)
        slide = slide_of_file(f"sl-{width}", path, **fields)
        self.server.add(slide)
        self.note(slide, note)
        return slide

    def note(self, slide: Slide, text: str) -> None:
        """Say what a job on the slide does: "hold", "raise", "die" or nothing."""
        (self.notes / f"do-{slide.picture.width}").write_text(text)

    def runs(self, slide: Slide) -> list[str]:
        """What the node wrote down, one line a run."""
        path = self.notes / f"runs-{slide.picture.width}"
        return path.read_text().splitlines() if path.exists() else []

    def wait_runs(self, slide: Slide, count: int = 1) -> None:
        wait(lambda: len(self.runs(slide)) >= count, f"{count} runs of the node")

    # What is seen.

    def results(self, slide: Slide, app: str = "probe") -> list[dict[str, Any]]:
        """The results of the app on the slide, oldest first."""
        return self.server.results.of_slide(app, slide.slide_id)

    def result(self, slide: Slide, app: str = "probe") -> dict[str, Any] | None:
        """The newest result of the app on the slide."""
        held = self.results(slide, app)
        return held[-1] if held else None

    def text(self, slide: Slide, app: str = "probe") -> str:
        result = self.result(slide, app)
        return "" if result is None else str(result["displayResult"])

    def wait_text(
        self, slide: Slide, text: str, app: str = "probe", timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """Wait until the slide's newest result shows a text that begins so."""
        wait(
            lambda: self.text(slide, app).startswith(text),
            f"{slide.slide_id} shows {text!r} (it shows {self.text(slide, app)!r})",
            timeout_s,
        )
        found = self.result(slide, app)
        assert found is not None
        return found

    def wait_done(
        self, slide: Slide, app: str = "probe", timeout_s: float = 60.0
    ) -> dict[str, Any]:
        return self.wait_text(slide, "Width", app, timeout_s)

    def wait_result(self, result_id: int, text: str) -> dict[str, Any]:
        """Wait until one result shows exactly this text."""

        def shown() -> str:
            held = self.server.results.current(result_id)
            return "gone" if held is None else str(held["displayResult"])

        wait(lambda: shown() == text, f"result {result_id} shows {text!r}")
        found = self.server.results.current(result_id)
        assert found is not None
        return found

    def wait_final(self, result_id: int, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait until one result is the last word on its job, whatever that is."""
        last: dict[str, Any] = {}

        def ended() -> bool:
            last.update(self.server.results.current(result_id) or {})
            context = (last.get("data") or {}).get("context") or {}
            return context.get("phase") in {"done", "failed", "cancelled"}

        wait(ended, f"result {result_id} is final", timeout_s)
        return last

    def files(self) -> list[Path]:
        """Every file and folder below the home, but for what Python compiles."""
        return [
            path
            for path in sorted(self.home.rglob("*"))
            if "__pycache__" not in path.parts
        ]

    def slide_files(self) -> list[Path]:
        """What is kept of slides, anywhere below the folder of patient data."""
        # By os.walk, which takes a folder that goes while we look for an empty one.
        return [
            Path(parent) / name
            for parent, _, names in os.walk(self.home / "phi")
            for name in names
        ]

    def log_text(self) -> str:
        texts = [path.read_text(errors="replace") for path in self.logs.iterdir()]
        return "\n".join(texts)

    def containing(self, text: str) -> list[str]:
        """The files and logs below the site that hold a text."""
        wanted = text.encode()
        places = [*self.files(), *self.logs.iterdir()]
        return [
            str(path)
            for path in places
            if (path.is_file() and wanted in _read(path)) or text in path.name
        ]

    def _configure(self) -> None:
        settings = {**SETTINGS, **self._settings}
        apps = {
            "probe": {"node": f"{NODES.name}:probe", "needs": "tiles"},
            "probe-files": {"node": f"{NODES.name}:probe", "needs": "files"},
            "region": {"node": f"{NODES.name}:region", "needs": "tiles"},
            "gallery": {"node": f"{NODES.name}:candidates", "needs": "tiles"},
        }
        lines = ["[ia_api]"]
        lines += [f"{name} = {_toml(value)}" for name, value in settings.items()]
        for name, app in apps.items():
            lines += [f"[ia_api.apps.{name}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in app.items()]
            lines += [f"parameters = {{ notes = {_toml(str(self.notes))} }}"]
            lines += [f"[ia_api.apps.{name}.notifications]"]
        (self.home / "theatrum.toml").write_text("\n".join(lines) + "\n")


def _toml(value: object) -> str:
    """Strings, numbers, booleans and lists of them are written as JSON writes them."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name} = {_toml(one)}" for name, one in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value)


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("THEATRUM_", "COVERAGE_"))
    }
    return {**kept, "PYTHONPATH": str(ROOT)}


def _read(path: Path) -> bytes:
    # A file may go while we look.
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


@contextlib.contextmanager
def running_site(folder: Path, *, workers: int = 1, **settings: Any) -> Iterator[Site]:
    """A whole site: pathology server, web server, workers."""
    with PathologyServer() as server, Site(folder, server, **settings) as site:
        site.serve()
        for _ in range(workers):
            site.worker()
        yield site
