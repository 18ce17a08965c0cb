"""A real browser, a real JupyterLab, and a notebook in it, for tests.

Waiting is always for a condition and always through Playwright: while Python sleeps,
its sync interface delivers no events, and a page that is fine looks stuck.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import BrowserContext, Page, Request, Response, sync_playwright

from hub.ports import free_ports

WAIT_MS = 60_000
"""For any one condition: a loaded machine starts a kernel in tens of seconds."""

ROOT = Path(__file__).resolve().parent.parent


def find_chromium() -> str | None:
    """Return the browser's path: THEATRUM_CHROMIUM, or a usual name on the PATH."""
    wished = os.environ.get("THEATRUM_CHROMIUM")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = (shutil.which(name) for name in names)
    return wished or next((path for path in found if path), None)


def require_chromium() -> str:
    """Return the browser's path, or skip the test and say what is missing."""
    path = find_chromium()
    if path is None:
        pytest.skip("NO BROWSER TESTED: no Chromium found (set THEATRUM_CHROMIUM)")
    return path


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[BrowserContext]:
    """Run Chromium with a profile of its own; a fresh folder is a fresh person."""
    options = [
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to start as root with it
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=require_chromium(),
            args=options,
            viewport={"width": 1280, "height": 900},
        )
        context.set_default_timeout(WAIT_MS)
        try:
            yield context
        finally:
            context.close()


@dataclass
class Traffic:
    """Everything that the pages of a context asked for, from now on."""

    requests: list[Request] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    @classmethod
    def of(cls, context: BrowserContext) -> Traffic:
        traffic = cls()
        context.on("request", lambda request: traffic.requests.append(request))
        context.on("response", lambda answer: traffic.responses.append(answer))
        return traffic

    def tiles(self) -> list[Response]:
        """Return the answers to requests for tiles, redirected ones included."""
        return [answer for answer in self.responses if _is_tile(answer.url)]

    def outside(self, origin: str) -> list[str]:
        """Return the addresses asked for that do not lie under an origin."""
        inside = urlsplit(origin)
        return [
            request.url
            for request in self.requests
            if urlsplit(request.url).scheme in ("http", "https", "ws", "wss")
            and urlsplit(request.url).netloc != inside.netloc
        ]


def _is_tile(url: str) -> bool:
    parts = urlsplit(url).path.split("/")
    return "s" in parts and all(part.isdigit() for part in parts[-3:])


# ---- JupyterLab --------------------------------------------------------------------


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab without a hub."""

    url: str
    token: str
    folder: Path


@contextlib.contextmanager
def jupyter_lab(folder: Path, home: Path, *, base_url: str = "/") -> Iterator[Lab]:
    """Run JupyterLab on a folder, its configuration and state inside `home`."""
    port, token = free_port(), secrets.token_hex(16)
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "share" / "lab" / "settings"
    settings.mkdir(parents=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    (settings / "overrides.json").write_text(json.dumps(quiet))
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "JPY_", "THEATRUM_"))
    } | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.base_url={base_url}",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={token}",
        f"--LabApp.app_settings_dir={settings}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None",
    ]
    log = home / "lab.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            lab = Lab(f"http://127.0.0.1:{port}{base_url}", token, folder)
            _wait_until_it_answers(f"{lab.url}api", process, log)
            yield lab
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    return free_ports(1)[0]


def _wait_until_it_answers(
    url: str, process: subprocess.Popen[bytes], log: Path
) -> None:
    for _ in range(300):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            break
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


# ---- a notebook --------------------------------------------------------------------


def write_notebook(path: Path, sources: Sequence[str]) -> Path:
    """Write a notebook of code cells."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, path)
    return path


@dataclass(frozen=True)
class Notebook:
    """The notebook that is in front in a page of JupyterLab."""

    page: Page

    @classmethod
    def open(cls, page: Page, lab_url: str, path: str, token: str = "") -> Notebook:
        """Open a notebook in a fresh workspace, and wait until its kernel is idle.

        Without `?reset` JupyterLab restores hidden tabs, whose elements match first.
        """
        query = f"?reset&token={token}" if token else "?reset"
        page.goto(f"{lab_url}lab/tree/{path}{query}")
        notebook = cls(page)
        page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.content?.activeCell"
            " && window.jupyterapp.shell.currentWidget.sessionContext?.isReady"
        )
        notebook.wait_until_idle()
        return notebook

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell."""
        self.page.evaluate(
            """async (index) => {
                const panel = window.jupyterapp.shell.currentWidget;
                panel.content.activeCellIndex = index;
                panel.content.deselectAll();
                void window.jupyterapp.commands.execute("notebook:run-cell");
                await new Promise((next) => setTimeout(next, 0));
            }""",
            index,
        )
        if wait:
            self.wait_until_run(index)

    def run_all(self) -> None:
        """Run all cells, one after the other, and wait for the last."""
        for index in range(self._count()):
            self.run(index)

    def execute(self, source: str) -> str:
        """Run code in the notebook's kernel without a cell; return what it printed."""
        printed, error = self.page.evaluate(
            """async (code) => {
                const panel = window.jupyterapp.shell.currentWidget;
                const {kernel} = panel.sessionContext.session;
                const future = kernel.requestExecute({code, store_history: false});
                let printed = "", error = null;
                future.onIOPub = ({header, content}) => {
                    if (header.msg_type === "stream") printed += content.text;
                    if (header.msg_type === "error")
                        error = `${content.ename}: ${content.evalue}`;
                };
                await future.done;
                return [printed, error];
            }""",
            source,
        )
        assert error is None, error
        text: str = printed
        return text

    def wait_until_run(self, index: int) -> None:
        """Wait until a cell has run and its kernel is idle again."""
        self.page.wait_for_function(
            """(index) => {
                const panel = window.jupyterapp.shell.currentWidget;
                const cell = panel.content.model.cells.get(index);
                return cell.executionCount !== null && cell.executionState !== "running"
                    && panel.sessionContext.session?.kernel?.status === "idle";
            }""",
            arg=index,
        )

    def wait_until_idle(self) -> None:
        """Wait until the kernel is idle."""
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session"
            "?.kernel?.status === 'idle'"
        )

    def shut_down(self) -> None:
        """End the notebook's kernel."""
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
        )

    def save(self) -> None:
        """Save the notebook and wait for it."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """Return a cell's outputs as the notebook's file holds them."""
        outputs: list[dict[str, Any]] = self.page.evaluate(
            "(index) => window.jupyterapp.shell.currentWidget.content.model"
            ".cells.get(index).outputs.toJSON()",
            index,
        )
        return outputs

    def text(self, index: int) -> str:
        """Return what a cell printed."""
        return "".join(
            _joined(output["text"])
            for output in self.outputs(index)
            if output["output_type"] == "stream" and output["name"] == "stdout"
        )

    def error(self, index: int) -> str | None:
        """Return the error that a cell ended with."""
        for output in self.outputs(index):
            if output["output_type"] == "error":
                return f"{output['ename']}: {output['evalue']}"
        return None

    def _count(self) -> int:
        count: int = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.model.cells.length"
        )
        return count


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
