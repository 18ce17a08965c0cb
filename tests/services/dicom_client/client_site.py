"""A site: a segmentation server, our web server and workers as processes of their own.

A series is written by `Site.drop` into the watched folder; what became of it is asked
by the API, as the pages would.
"""

from __future__ import annotations

import contextlib
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
from fastapi import FastAPI
from pydicom import Dataset
from pydicom.uid import generate_uid

from tests.draw_server import MODELS, DrawServer
from tests.extensions.structures.series import ct_series

ROOT = Path(__file__).resolve().parents[3]

# Times short enough for a test, and long enough for two busy cores.
SETTINGS: dict[str, Any] = {
    "watch_interval_s": 0.3,
    "stable_s": 0.5,
    "stable_scans": 2,
    "poll_s": [0.2, 0.3],
    "lease_s": 4.0,
    "backoff_base_s": 0.1,
    "backoff_cap_s": 0.5,
    "breaker_failures": 50,
    "min_free_bytes": 0,
    "attempts": 6,
    "stop_patience_s": 5.0,
}
CANARIES = ("Zwetschgenroester", "MRN-7731942", "Klinikum Hinterwald", "19471103")
RULES = [
    {
        "name": "All CT",
        "template": "Pelvis",
        "all_of": [{"tag": "Modality", "op": "eq", "value": "CT"}],
    }
]


def wait(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait until the condition holds; it is asked again every 50 ms."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def template(name: str = "Pelvis", structures: int = 2) -> dict[str, Any]:
    """A template of the server's first model."""
    model = MODELS[0]
    return {
        "name": name,
        "models": [
            {
                "model_id": model["model_id"],
                "name": model["model_name"],
                "config": model["model_config"],
                "trainer_name": model["model_trainer_name"],
                "postprocess": None,
                "structures": [
                    {"map_id": one["mapid"], "name": one["map_tg263_primary_name"]}
                    for one in model["modelmap"][:structures]
                ],
            }
        ],
    }


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path that an application answers to, with those it includes."""
    found: list[tuple[str, str]] = []

    def walk(routes: list[Any], prefix: str) -> None:
        for route in routes:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                walk(inner.routes, prefix + route.include_context.prefix)
            for method in getattr(route, "methods", None) or ():
                found.append((method, prefix + route.path))

    walk(app.routes, "")
    assert len(found) > 60, "routes are kept in another way now"
    return found


def patient_series(slices: int = 12, **fields: Any) -> list[Dataset]:
    """A CT series of somebody whose every trait is a canary."""
    images = ct_series(slices=slices, rows=32, columns=32)
    for number, image in enumerate(images, start=1):
        image.PatientName = f"{CANARIES[0]}^Resi"
        image.PatientID = CANARIES[1]
        image.PatientBirthDate = CANARIES[3]
        image.PatientSex = "F"
        image.InstitutionName = CANARIES[2]
        image.StudyDate, image.StudyTime = "20240229", "101112"
        image.StudyID, image.AccessionNumber = "", ""
        image.SeriesDescription = "Pelvis native"
        image.InstanceNumber = number
        for name, value in fields.items():
            setattr(image, name, value)
    return images


def write(images: list[Dataset], folder: Path) -> list[Path]:
    """Write a series as scanners do; the file names tell a name as well."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(images):
        path = folder / f"{CANARIES[0]}_{number}_{generate_uid()[-8:]}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


class Site:
    """One installation in a folder, with the processes that a test starts.

    `settings` go over `SETTINGS`. Everything is stopped when the block ends.
    """

    def __init__(self, folder: Path, server: DrawServer, **settings: Any) -> None:
        self.server = server
        self.home = folder / "home"
        self.watched = folder / "watched"
        self.delivered = folder / "delivered"
        self.logs = folder / "logs"
        for made in (self.home, self.watched, self.delivered, self.logs):
            made.mkdir()
        self.port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._http: httpx.Client | None = None
        self.configure(**settings)

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._http is not None:
            self._http.close()
        for process in self._processes:
            self.kill(process)
        if kind is not None:
            print(self.log_text()[-6000:])

    # Processes.

    def configure(self, **settings: Any) -> None:
        """Write theatrum.toml; processes that run keep what they read."""
        table = {
            **SETTINGS,
            "watch": [str(self.watched)],
            "deliver_folder": str(self.delivered),
            "server": {"base_url": self.server.url, "client_id": "theatrum-test"},
            **settings,
        }
        database = table.pop("database_url", "")
        lines = [f"database_url = {json.dumps(database)}"] if database else []
        lines.append("[dicom_client]")
        tables = {
            name: value for name, value in table.items() if isinstance(value, dict)
        }
        for name, value in table.items():
            if name not in tables and value is not None:
                lines.append(f"{name} = {json.dumps(value)}")
        for name, one in tables.items():
            lines.append(f"[dicom_client.{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in one.items()]
        (self.home / "theatrum.toml").write_text("\n".join(lines) + "\n")

    def serve(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the web server, and wait until it answers."""
        process = self._start("serve", "--port", str(self.port), *options)
        token_file = self.home / "dicom_client" / "access-token"

        def answers() -> bool:
            assert process.poll() is None, self.log_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/health").status_code == 200
            return False

        wait(answers, "the web server answers")
        self._http = httpx.Client(
            base_url=f"{self.url}/api/",
            headers={"Authorization": f"token {token_file.read_text()}"},
            timeout=30,
        )
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
                "dicom-client",
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

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, **arguments: Any) -> Any:
        """An API call that has to work; its JSON."""
        answer = self.call(method, path, **arguments)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        assert self._http is not None
        return self._http.request(method, path, **arguments)

    def set_up(self, rules: list[dict[str, Any]] | None = None) -> None:
        """Tokens, one template, one rule."""
        tokens = {
            "access": self.server.access_token,
            "refresh": self.server.refresh_token,
        }
        self.ask("PUT", "tokens", json=tokens)
        self.ask("PUT", "templates", json=template())
        chosen = RULES if rules is None else rules
        self.ask("PUT", "rules", json={"rules": chosen})

    def drop(self, images: list[Dataset], name: str = "case") -> list[Path]:
        """Put a series into the watched folder."""
        return write(images, self.watched / f"{CANARIES[0]}-{name}")

    # What is seen.

    def series(self) -> list[dict[str, Any]]:
        """All series, newest first."""
        found: list[dict[str, Any]] = self.ask("GET", "series?limit=500")["series"]
        return found

    def only(self) -> dict[str, Any]:
        """The one series that there is."""
        (found,) = self.series()
        return found

    def states(self) -> list[str]:
        return sorted(one["state"] for one in self.series())

    def detail(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"series/{job_id}")
        return found

    def wait_state(
        self, state: str, count: int = 1, timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """Wait until so many series are in a state; the newest of them."""
        wait(
            lambda: self.states().count(state) >= count,
            f"{count} series are {state} (they are {self.states()}, "
            f"stopped by {[one['stopped'] for one in self.series()]})",
            timeout_s,
        )
        return next(one for one in self.series() if one["state"] == state)

    def wait_stopped(self, code: str) -> dict[str, Any]:
        """Wait until a series is stopped for a person."""
        wait(
            lambda: any(one["stopped"] == code for one in self.series()),
            f"a series is stopped by {code}",
        )
        return next(one for one in self.series() if one["stopped"] == code)

    def results(self) -> list[Path]:
        """The structure sets that lie in the folder of deliveries."""
        return sorted(self.delivered.glob("*.dcm"))

    def beside(self) -> list[Path]:
        """The structure sets that lie beside the images."""
        return sorted(self.watched.rglob("RS.*.dcm"))

    def log_text(self) -> str:
        texts = [path.read_text(errors="replace") for path in self.logs.iterdir()]
        return "\n".join(texts)


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("THEATRUM_", "COVERAGE_"))
    }
    return {**kept, "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def running_site(folder: Path, *, workers: int = 1, **settings: Any) -> Iterator[Site]:
    """A whole site: segmentation server, web server, workers, a template and a rule."""
    with (
        DrawServer(canaries=CANARIES) as server,
        Site(folder, server, **settings) as site,
    ):
        site.serve()
        site.set_up()
        for _ in range(workers):
            site.worker()
        yield site
