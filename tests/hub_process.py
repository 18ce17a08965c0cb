"""A real hub, started as its users start it: by run.py, with a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import httpx

from tests.browser import ROOT, free_port

START_LIMIT_S = 240


@dataclass(frozen=True)
class RunningHub:
    """A hub that said that it is ready."""

    url: str
    home: Path
    process: subprocess.Popen[str]
    said: list[str]
    passwords: dict[str, str]

    @property
    def hub_pid(self) -> int:
        """The hub's own process, a child of run.py."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    @contextlib.contextmanager
    def sign_in(self, name: str) -> Iterator[httpx.Client]:
        """A browser's session without the browser, signed in by the form."""
        with httpx.Client(
            base_url=self.url, follow_redirects=True, timeout=60, trust_env=False
        ) as client:
            client.get("hub/login").raise_for_status()
            form = {
                "username": name,
                "password": self.passwords[name],
                "_xsrf": hub_xsrf(client),
            }
            answer = client.post("hub/login", data=form, follow_redirects=False)
            assert answer.status_code == 302, answer.text
            yield client

    def token(self, name: str) -> str:
        """A fresh API token with all rights of the person."""
        with self.sign_in(name) as client:
            client.get("hub/home").raise_for_status()
            answer = client.post(
                f"hub/api/users/{name}/tokens",
                headers={"X-XSRFToken": hub_xsrf(client), "Referer": self.url},
                json={"note": "test"},
            )
            answer.raise_for_status()
            token: str = answer.json()["token"]
            return token

    def api(self, name: str) -> httpx.Client:
        """A client that speaks for a person by token."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"token {self.token(name)}"},
            timeout=60,
            trust_env=False,
        )

    def stop(self) -> int:
        """Stop the hub in order; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def hub_xsrf(client: httpx.Client) -> str:
    """The hub's own XSRF cookie; services set others on their own paths."""
    return next(
        cookie.value or ""
        for cookie in client.cookies.jar
        if cookie.name == "_xsrf" and cookie.path.endswith("/hub/")
    )


def start(
    home: Path, *arguments: str, port: int | None = None, **variables: str
) -> subprocess.Popen[str]:
    """Run run.py on a home of its own, with THEATRUM_* of its own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("THEATRUM_", "JUPYTER", "JPY_"))
    }
    return subprocess.Popen(
        [
            sys.executable,
            ROOT / "run.py",
            f"--home={home}",
            f"--port={port or free_port()}",
            *arguments,
        ],
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_ready(process: subprocess.Popen[str], home: Path) -> RunningHub:
    """Wait for the line `ready URL`; fails with what was said where it ends first."""
    lines: Queue[str | None] = Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    Thread(target=read, daemon=True).start()
    said: list[str] = []
    while True:
        try:
            line = lines.get(timeout=START_LIMIT_S)
        except Empty:
            process.terminate()
            raise AssertionError(f"not ready in time:\n{''.join(said)}") from None
        if line is None:
            raise AssertionError(f"ended before it was ready:\n{''.join(said)}")
        said.append(line)
        if found := re.fullmatch(r"ready (http://\S+/)\n", line):
            accounts = json.loads((home / "demo-accounts.json").read_text())
            return RunningHub(found[1], home, process, said, accounts)


@contextlib.contextmanager
def running_hub(home: Path, *arguments: str, **variables: str) -> Iterator[RunningHub]:
    """A hub for the length of a `with`."""
    process = start(home, *arguments, **variables)
    try:
        yield wait_until_ready(process, home)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# Any: the hub's JSON.
def wait_for(client: httpx.Client, path: str, ready: Any, limit_s: float = 60) -> Any:
    """Ask until `ready(answer's JSON)` holds, and return that answer."""
    end = time.monotonic() + limit_s
    while True:
        last = client.get(path).json()
        if ready(last):
            return last
        assert time.monotonic() < end, f"{path} stayed {last}"
        time.sleep(0.2)


def wait_for_status(
    client: httpx.Client, path: str, status: int, limit_s: float = 10
) -> httpx.Response:
    """Ask until the answer has this status, and return it."""
    end = time.monotonic() + limit_s
    while True:
        answer = client.get(path)
        if answer.status_code == status:
            return answer
        assert time.monotonic() < end, f"{path} stayed {answer.status_code}"
        time.sleep(0.2)
