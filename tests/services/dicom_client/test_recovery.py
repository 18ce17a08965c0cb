"""kill -9 before and after each commit: one upload, one delivery, one confirmation.

The worker dies at every state's edge and at every delivery's note, once for each
series, and another one takes over each time (parity test 11).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.draw_server import DrawServer

from .client_site import CANARIES, ROOT, Site, _environment, patient_series, wait

# Whoever dies at each edge dies more often in a row than anything in earnest.
PATIENT = {"crashes": 100, "attempts": 100, "lease_s": 3.0, "jobs_per_worker": 1}


@pytest.fixture(scope="module")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    reason = postgres.missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres.cluster() as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_worker_killed_at_every_edge_sends_delivers_and_confirms_once(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    settings = dict(PATIENT)
    if database == "postgresql":
        cluster = request.getfixturevalue("postgres_cluster")
        settings["database_url"] = cluster.new_database()
    with (
        DrawServer(canaries=CANARIES) as server,
        Site(tmp_path, server, **settings) as site,
    ):
        site.serve()
        site.set_up()
        notes = tmp_path / "notes"
        notes.mkdir()
        images = [patient_series(), patient_series()]
        for number, series in enumerate(images):
            site.drop(series, f"case-{number}")
        worker = crashing(site, notes)
        wait(lambda: _decided(site), "all series are done", 240)
        site.kill(worker)

        assert site.states() == ["done"] * len(images)
        assert len(server.tasks) == len(images)
        for task in server.tasks.values():
            assert (task.uploads, task.confirmed) == (1, 1)
        assert len(site.results()) == len(site.beside()) == len(images)
        assert server.leaks == []
        for job in site.series():
            for state in EDGES:
                for moment in ("before", "after"):
                    assert (notes / f"{job['id']}-{state}-{moment}").exists()
            kinds = [entry["kind"] for entry in site.detail(job["id"])["timeline"]]
            for state in ("submitted", "exported", "confirmed", "done"):
                assert kinds.count(state) == 1
            # Only where the last bytes had left, and no answer had come.
            assert kinds.count("stopped") == kinds.count("upload-again") == 1
        _require_nothing_left(site)


EDGES = (
    *("deidentified", "packed", "uploading", "upload-sent"),
    *("stopped-upload-unknown", "submitted"),
    *("processing", "ready"),
    *("downloaded", "reidentified", "exported", "confirmed", "done"),
)


def crashing(site: Site, notes: Path) -> subprocess.Popen[bytes]:
    """A worker that dies at each point once, and is restarted at once."""
    log = (site.logs / "crashing.log").open("wb")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.services.dicom_client.crashing_worker"),
            *(str(site.home), str(notes)),
        ],
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=_environment(),
        start_new_session=True,
    )
    log.close()
    site._processes.append(process)
    return process


def _decided(site: Site) -> bool:
    """Whether all is done; what nobody knows is looked up, as an operator would."""
    for one in site.series():
        if one["stopped"] == "upload-unknown":
            sha256 = site.detail(one["id"])["package_sha256"]
            token = next(
                (
                    task.token
                    for task in site.server.tasks.values()
                    if task.sha256 == sha256
                ),
                None,
            )
            site.ask("POST", f"series/{one['id']}/upload", json={"token": token})
    return bool(site.series()) and set(site.states()) == {"done"}


def _require_nothing_left(site: Site) -> None:
    kept = {
        path.relative_to(site.home / "phi" / "dicom_client" / "jobs").parts[1]
        for path in (site.home / "phi").rglob("*")
        if path.is_file()
    }
    assert kept <= {"package", "finished"}
    packages = [
        path.name
        for path in (site.home / "phi").rglob("package/*")
        if path.name != "mapping"
    ]
    assert packages == []
    assert [path for path in site.delivered.iterdir() if path.suffix != ".dcm"] == []
    assert list(site.watched.rglob("*.part")) == []
