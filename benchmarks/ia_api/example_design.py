"""The design of the published example, rebuilt from its description, beside ours.

    python -m benchmarks.ia_api.example_design --invocations 100 --latency-ms 50

The web server makes its three callbacks one after the other before it answers (slide
info, list of results, store), and writes one queue file a slide; the worker lists the
queue files, oldest first, locks one, works on it with a progress update after each
step, and sleeps ten seconds. The code is ours, the design is that of section 8.1 of
the interface's description. It is given what flatters it: no dummy sleeps, connections
that are kept, one worker each. Its work and ours: slide info, the slide's files, one
number.

Prints both and their ratios as JSON, from one run against one pathology server.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from benchmarks.ia_api.conditions import conditions
from benchmarks.ia_api.ending import ended_in_order
from tests.pathology_server import (
    PathologyServer,
    ProtocolViolation,
    Viewer,
    slide_of_file,
)
from tests.services.ia_api.running_site import Site, free_port, wait
from tests.slides import SlideSpec, write_slide

Json = dict[str, Any]  # Any: JSON of the interface

APP, VERSION, POLL_S = "example", "1.5", 10.0
VERSIONS = {"X-Sectra-ApiVersion": VERSION, "X-Sectra-SoftwareVersion": "0.1.0"}


class Callbacks:
    """The pathology server as the example calls it: in turn, without time limits."""

    def __init__(self, told: Json) -> None:
        self._slide_id = told["slideId"]
        self._results = f"/applications/{told['applicationId']}/results"
        self._client = _client(told["callbackInfo"]["url"].rstrip("/"))
        self._headers = {
            "Authorization": f"Bearer {told['callbackInfo']['token']}",
            "X-Sectra-ApiVersion": VERSION,
        }

    def _ask(self, method: str, path: str, body: Json | None = None) -> httpx.Response:
        answer = self._client.request(method, path, json=body, headers=self._headers)
        return answer.raise_for_status()

    def info(self) -> Json:
        path = f"/slides/{self._slide_id}/info?scope=extended&includePHI=true"
        told: Json = self._ask("GET", path).json()
        return told

    def label(self) -> bytes:
        return self._ask("GET", f"/slides/{self._slide_id}/label").content

    def files(self, folder: Path) -> None:
        path = f"/slides/{self._slide_id}/files"
        with (
            self._client.stream("GET", path, headers=self._headers) as answer,
            (folder / "slide.svs").open("wb") as file,
        ):
            for chunk in answer.raise_for_status().iter_bytes():
                file.write(chunk)

    def thumbnail(self, info: Json) -> bytes:
        """A tile of a low level stands for all of those at 64 um per pixel."""
        wide, high = info["imageSize"]["width"], info["imageSize"]["height"]
        level = max(0, (max(wide, high) - 1).bit_length() - 2)
        path = f"/images/{self._slide_id}_files/{level}/0_0_0.jpg"
        return self._ask("GET", path).content

    def store(self, info: Json, text: str) -> Json:
        """Write over the last result on the slide, or make the first."""
        held = self._ask("GET", f"{self._results}/slide/{self._slide_id}").json()
        fresh = _result(info, self._slide_id, text)
        if held:
            path = f"{self._results}/{held[-1]['id']}"
            stored: Json = self._ask("PUT", path, {**held[-1], **fresh}).json()
        else:
            stored = self._ask("POST", f"{self._results}/", fresh).json()
        return stored


_clients: dict[str, httpx.Client] = {}


def _client(url: str) -> httpx.Client:
    if url not in _clients:
        _clients[url] = httpx.Client(base_url=url, timeout=None)  # noqa: S113 - as it is
    return _clients[url]


def _result(info: Json, slide_id: str, text: str) -> Json:
    ratio = info["imageSize"]["height"] / info["imageSize"]["width"]
    corners = [(0, 0), (1, 0), (1, ratio), (0, ratio)]
    item = {
        "style": {"strokeStyle": "#FFA500", "fillStyle": None, "size": 2},
        "polygons": [{"points": [{"x": x, "y": y} for x, y in corners]}],
        "polylines": [],
        "labels": [{"location": {"x": 0.5, "y": 0.0}, "label": text}],
    }
    return {
        "slideId": slide_id,
        "displayResult": text,
        "displayProperties": {"Progress": text},
        "applicationVersion": "0.1.0",
        "attachments": [],
        "data": {"context": {}, "result": {"type": "primitive", "content": item}},
    }


def serve(home: Path, port: int) -> None:
    """The web server: three callbacks, then the answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(
                {
                    "applicationId": APP,
                    "displayName": "Example",
                    "manufacturer": "Benchmark",
                    "url": f"http://127.0.0.1:{port}",
                    "inputTemplate": {"type": "wholeSlide"},
                    "context": {},
                }
            )

        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(_created(home, told) if told["action"] == "create" else {})

        def _answer(self, body: Json) -> None:
            encoded = json.dumps(body).encode()
            self.send_response(200)
            for name, value in VERSIONS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_told: object) -> None:
            """Say nothing: it would be measured."""

    # Without Nagle's algorithm, which a Flask server does not wait for either.
    Handler.disable_nagle_algorithm = True
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def _created(home: Path, told: Json) -> Json:
    server = Callbacks(told)
    info = server.info()
    name = hashlib.sha1(told["slideId"].encode(), usedforsecurity=False).hexdigest()
    folder = home / "requests" / name[:10]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(info))
    stamp = time.strftime("%Y%m%d%H%M%S")
    request = folder / f"request_user-{stamp}.json"
    request.write_text(json.dumps(told))
    (home / "queue" / f"{name[:10]}.txt").write_text(str(request.relative_to(home)))
    return server.store(info, "analysis queued")


def watch(home: Path, poll_s: float) -> None:
    """The worker: the oldest queue file, one job, and then a sleep."""
    while True:
        waiting = sorted(
            (home / "queue").glob("*.txt"), key=lambda one: one.stat().st_mtime
        )
        for entry in waiting:
            with entry.with_suffix(".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                _process(home / entry.read_text())
                entry.unlink()
            break
        time.sleep(poll_s)


def _process(request: Path) -> None:
    told = json.loads(request.read_text())
    server, folder = Callbacks(told), request.parent

    def progress(percent: int) -> None:
        # Each with the slide's info and the list of results before it.
        server.store(server.info(), f"analysis, progress {percent} %")

    info = server.info()
    progress(10)
    (folder / "thumbnail.jpg").write_bytes(server.thumbnail(info))
    (folder / "label.jpg").write_bytes(server.label())
    progress(20)
    files = folder / "wsi_files"
    files.mkdir(exist_ok=True)
    server.files(files)
    for percent in (40, 60, 80, 100):
        progress(percent)
    server.store(server.info(), f"Width {info['imageSize']['width']} px")


def compare(chosen: argparse.Namespace) -> Json:
    """Ask both in turn; then let the worker of each work off what was asked."""
    told = conditions()
    with ended_in_order(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(
            PathologyServer(latency_s=chosen.latency_ms / 1000)
        )
        slide = write_slide(
            folder / "slide.svs", SlideSpec(width=320, height=200, downsamples=(1,))
        )
        names = [f"sl-{number}" for number in range(chosen.invocations + 1)]
        for name in names:
            server.add(slide_of_file(name, slide))
        site = stack.enter_context(Site(folder, server, jobs_per_worker=1))
        site.serve()
        peer = _Peer(folder / "example", stack)
        viewers = {
            "ours": site.viewer("probe-files"),
            "example": stack.enter_context(peer.viewer(server)),
        }
        times: dict[str, list[float]] = {name: [] for name in viewers}
        for number, slide_id in enumerate(names):
            for name, viewer in viewers.items():
                seconds = viewer.create(slide_id).seconds
                if number:  # the first contact agrees on the version
                    times[name].append(1000 * seconds)
        rates = {
            "ours": _rate(lambda: site.worker(), server, viewers["ours"], chosen),
            "example": _rate(
                lambda: peer.start("watch", "--poll-s", str(chosen.poll_s)),
                server,
                viewers["example"],
                chosen,
            ),
        }
    return told | _report(chosen, times, rates)


class _Peer:
    """The example's two processes, in a folder."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        (home / "queue").mkdir(parents=True)
        self._home, self._stack, self._port = home, stack, free_port()
        self.start("serve", "--port", str(self._port))

    def start(self, command: str, *options: str) -> None:
        module = [sys.executable, "-m", "benchmarks.ia_api.example_design"]
        process = subprocess.Popen([*module, command, "--home", self._home, *options])
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def viewer(self, server: PathologyServer) -> Viewer:
        viewer = Viewer(server, f"http://127.0.0.1:{self._port}")

        def answers() -> bool:
            with suppress(httpx.TransportError, ProtocolViolation):
                viewer.register()
                return True
            return False

        wait(answers, "the example's web server answers")
        return viewer


def _rate(
    start: Callable[[], object],
    server: PathologyServer,
    viewer: Viewer,
    chosen: argparse.Namespace,
) -> float:
    """Jobs per minute of one worker on a backlog: from its first answer to its last."""

    def done() -> int:
        return sum(
            str(one["displayResult"]).startswith("Width")
            for one in server.results.all()
            if one["id"] in own
        )

    app = viewer.application_id
    own = {
        one["id"]
        for number in range(chosen.invocations + 1)
        for one in server.results.of_slide(app, f"sl-{number}")
    }
    start()
    wait(lambda: done() >= 1, "the first job is done", 120)
    first, began = done(), time.monotonic()
    end = began + chosen.seconds
    while done() < len(own) and time.monotonic() < end:
        time.sleep(0.05)
    return 60 * (done() - first) / (time.monotonic() - began)


def _report(
    chosen: argparse.Namespace, times: dict[str, list[float]], rates: dict[str, float]
) -> Json:
    told: Json = {
        "callback_latency_ms": chosen.latency_ms,
        "invocations": chosen.invocations,
        "poll_s": chosen.poll_s,
    }
    for name, unsorted in times.items():
        held = sorted(unsorted)
        told[name] = {
            "create_ms_p50": round(held[len(held) // 2], 1),
            "create_ms_p99": round(held[min(len(held) - 1, int(len(held) * 0.99))], 1),
            "jobs_per_minute": round(rates[name], 1),
        }
    ours, example = told["ours"], told["example"]
    told["ratios"] = {
        "create_p50_example_to_ours": example["create_ms_p50"] / ours["create_ms_p50"],
        "create_p99_example_to_ours": example["create_ms_p99"] / ours["create_ms_p99"],
        "jobs_per_minute_ours_to_example": ours["jobs_per_minute"]
        / example["jobs_per_minute"],
    }
    told["ratios"] = {name: round(one, 2) for name, one in told["ratios"].items()}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="?", choices=("serve", "watch"))
    parser.add_argument("--home", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--poll-s", type=float, default=POLL_S)
    parser.add_argument("--invocations", type=int, default=100)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=90)
    chosen = parser.parse_args()
    if chosen.command == "serve":
        serve(chosen.home, chosen.port)
    elif chosen.command == "watch":
        watch(chosen.home, chosen.poll_s)
    else:
        print(json.dumps(compare(chosen), indent=1))


if __name__ == "__main__":
    main()
