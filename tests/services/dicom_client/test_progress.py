"""How far a step is, on the live feed and the pages; and that a step can be ended."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.dicom_client.draw_server import (
    DrawServer,
    DrawSettings,
    Tokens,
    percent_of,
)
from services.dicom_client.running import Stopping
from services.dicom_client.zip_upload import ZipLimits, unpack
from tests import draw_server as double

from .client_site import Site, patient_series, running_site, wait
from .test_draw_server import package
from .test_uploads import zipped

GATED = '''
"""An engine that tells how far it is, and waits for a file."""

import time
from pathlib import Path

import numpy as np
from theatrum.node import Context, Labels, Volume, node


@node(version="1.0.0")
def gated(volume: Volume, *, gate: str = "", context: Context | None = None) -> Labels:
    context = context or Context()
    context.progress(0.4, "waits")
    while not Path(gate).exists():
        context.check()
        time.sleep(0.02)
    array = (volume.array > -500).astype(np.uint8)
    return Labels(array, {1: "Body"}, affine_lps=volume.affine_lps)
'''


class Listener:
    """Somebody who listens to the feed; `told` are its events by kind."""

    def __init__(self, site: Site, last: int | None = None) -> None:
        token = (site.home / "dicom_client" / "access-token").read_text()
        self._headers = {"Authorization": f"token {token}"}
        if last is not None:
            self._headers["Last-Event-ID"] = str(last)
        self._address = f"{site.url}/api/feed"
        self.told: list[tuple[str, int | None, dict[str, Any]]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        wait(lambda: self.told, "the feed says hello")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _listen(self) -> None:
        with contextlib.suppress(httpx.TransportError):  # the site is stopped
            self._hear()

    def _hear(self) -> None:
        asked = {"headers": self._headers, "timeout": 120}
        with httpx.stream("GET", self._address, **asked) as answer:
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if self._over.is_set():
                    return
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    number = int(fields["id"]) if "id" in fields else None
                    said = json.loads(fields["data"])
                    self.told.append((fields["event"], number, said))
                    fields = {}

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [said for event, _, said in self.told if event == kind]


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, gates: Path) -> Iterator[Site]:
    engine = gates / "engine.py"
    engine.write_text(GATED)
    chosen = f"{engine}:gated"
    with running_site(tmp_path_factory.mktemp("site"), engines=[chosen]) as made:
        made.server.script(polls=1)
        for name in ("first", "second"):
            template = {
                "name": name,
                "engine": chosen,
                "parameters": {"gate": str(gates / name)},
            }
            made.ask("PUT", "templates", json=template)
            rule = {"tag": "SeriesDescription", "op": "eq", "value": name}
            made.ask(
                "PUT",
                "rules",
                json={
                    "rules": [
                        {
                            "name": one,
                            "template": one,
                            "all_of": [{**rule, "value": one}],
                        }
                        for one in ("first", "second")[: 1 + (name == "second")]
                    ]
                },
            )
        yield made


def _engines(site: Site) -> list[psutil.Process]:
    found = []
    for process in site._processes:
        for child in psutil.Process(process.pid).children(recursive=True):
            # One that ends meanwhile is no engine any more.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "engine_process" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def _half_way(listener: Listener) -> list[dict[str, Any]]:
    return [
        one
        for one in listener.of("progress")
        if one["state"] == "processing" and 40 <= one["percent"] <= 45
    ]


def test_the_feed_and_the_page_tell_how_far_an_engine_is_and_a_cancel_ends_it(
    site: Site,
) -> None:
    with Listener(site) as listener:
        site.drop(patient_series(SeriesDescription="first"), "first")
        wait(lambda: _half_way(listener), "the feed tells 42 %")
        job_id = _half_way(listener)[0]["id"]
        assert 40 <= site.detail(job_id)["progress"] <= 45
        states = [one["state"] for one in listener.of("change")]
        assert states[:1]
        assert "processing" in states
        assert _engines(site)
        site.ask("POST", f"series/{job_id}/cancel")
        wait(lambda: not _engines(site), "the engine's process has ended")
        wait(
            lambda: "cancelled" in [one["state"] for one in listener.of("change")],
            "the feed tells of the cancel",
        )
    assert site.detail(job_id)["progress"] == 0


def test_a_listener_that_was_away_hears_what_it_missed(site: Site, gates: Path) -> None:
    with Listener(site) as listener:
        (_hello, last, _said) = listener.told[0]
    (gates / "second").touch()
    site.drop(patient_series(SeriesDescription="second"), "second")
    done = site.wait_state("done")
    with Listener(site, last) as again:
        wait(
            lambda: "done" in [one["kind"] for one in again.of("change")],
            "all that was missed is told",
        )
    kinds = [one["kind"] for one in again.of("change") if one["id"] == done["id"]]
    assert kinds[0] == "discovered"
    assert kinds[-1] == "done"
    numbers = [number for event, number, _ in again.told if event == "change"]
    assert numbers == sorted(set(numbers), key=lambda one: one or 0)


def test_the_feed_tells_of_uploads(site: Site) -> None:
    with Listener(site) as listener:
        made = site.ask(
            "POST",
            "uploads",
            content=zipped(patient_series(SeriesDescription="neither")),
            headers={"Content-Type": "application/zip"},
        )
        wait(
            lambda: (
                {"id": made["id"], "phase": "done", "percent": 100}
                in listener.of("upload")
            ),
            "the feed tells of the upload's end",
        )


@pytest.fixture
def server() -> Iterator[double.DrawServer]:
    with double.DrawServer() as running:
        yield running


@pytest.fixture
def client(server: double.DrawServer) -> Iterator[DrawServer]:
    made = DrawServer(
        DrawSettings(server.url), Tokens(server.access_token, server.refresh_token)
    )
    yield made
    made.close()


def test_sending_and_fetching_tell_the_share_that_is_done(
    server: double.DrawServer, client: DrawServer, tmp_path: Path
) -> None:
    server.script(polls=0)
    sent: list[float] = []
    file, sha256 = package(tmp_path)
    task = client.upload(file, sha256, sent.append)
    assert sent == sorted(sent)
    assert (sent[0], sent[-1]) == (0.0, 1.0)
    client.status(task)
    came: list[float] = []
    client.download(task, tmp_path / "result.dcm", came.append)
    assert came[-1] == 1.0


def test_an_upload_that_is_called_off_ends_at_once_and_leaves_no_task(
    server: double.DrawServer, client: DrawServer, tmp_path: Path
) -> None:
    def called_off(share: float) -> None:
        raise Stopping("the job was called off")

    file, sha256 = package(tmp_path)
    with pytest.raises(Stopping):
        client.upload(file, sha256, called_off)
    assert not server.tasks


@pytest.mark.parametrize(
    ("said", "percent"),
    [
        ("SEGMENTATION STARTED", 0),
        ("SEGMENTATION STARTED 45 %", 45),
        ("model 2 of 3, 66.7%", 66),
        ("100 %", 99),
        ("job 720", 0),
    ],
)
def test_a_percentage_is_told_only_where_the_server_tells_one(
    said: str, percent: int
) -> None:
    assert percent_of(said) == percent


def test_unpacking_tells_the_share_of_bytes(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.zip", tmp_path / "out"
    archive.write_bytes(zipped(patient_series(slices=3)))
    folder.mkdir()
    shares: list[float] = []
    unpack(archive, folder, ZipLimits(), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
