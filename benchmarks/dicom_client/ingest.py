"""How many files a second come in, by folder, by C-STORE and over DICOMweb.

    python -m benchmarks.dicom_client.ingest [--files 400] [--size 512] [--rounds 3]

A CT series is made in code. The watched folder is looked at until every file was read
and noted in the database. dcmtk's storescu (Debian: dcmtk) sends the series over one
association and over four to the whole service, a process of its own, where every
instance is synced to disk and noted before it is answered; and over one to dcmtk's own
storescp, which syncs and notes nothing. By default dcmtk's receiver waits 40 ms an
instance for a delayed acknowledgement, so it is timed with TCP_NODELAY too. Orthanc
(Debian: orthanc-dicomweb) gives the series by WADO-RS. The same series copied with one
sync a file says what the disk allows. The ways take turns for some rounds. Prints one
JSON object: the median, least and most files per second of each way.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.dicom_client.watchman import guarded_folder
from services.dicom_client.dicomweb import DicomWeb, DicomWebServer
from services.dicom_client.dicomweb_source import fetch, find_series
from services.dicom_client.intake import Intake
from services.dicom_client.opening import open_service
from services.dicom_client.settings import ServiceSettings
from services.dicom_client.staging import Quota, Staging
from tests.dcmtk import free_port, listens, storescp, storescu, until
from tests.draw_server import DrawServer
from tests.orthanc import PLUGIN, orthanc
from tests.services.dicom_client.client_site import Site
from tests.services.dicom_client.received import write_series

LEAST = 100.0
"""Files a second, by folder and by C-STORE over one association."""


def by_folder(source: Path, home: Path, count: int) -> float:
    """Looks until every header was read and every file is noted."""
    settings = ServiceSettings(watch=(source,), stable_scans=2, stable_s=0.1)
    service = open_service(home, settings)
    look = Intake(service.jobs, service.keeper, service.folders, service.settings).look
    taken, spent = look(), 0.0
    time.sleep(settings.stable_s)  # not counted: how long a file has to lie still
    while taken < count:
        started = time.perf_counter()
        taken += look()
        spent += time.perf_counter() - started
    service.close()
    return count / spent


def by_store(port: int, files: list[Path], senders: int, title: str) -> float:
    """Send over so many associations at once."""
    shares = [files[at::senders] for at in range(senders)]

    def send(share: list[Path]) -> int:
        return int(storescu(port, files=share, title=title).returncode)

    with concurrent.futures.ThreadPoolExecutor(senders) as pool:
        started = time.perf_counter()
        sent = list(pool.map(send, shares))
        took_s = time.perf_counter() - started
    assert not any(sent)
    return len(files) / took_s


def to_service(folder: Path, files: list[Path], senders: int) -> float:
    """To `theatrum dicom-client serve` with a database of its own."""
    folder.mkdir()
    with DrawServer() as server, Site(folder, server) as site:
        port = free_port()
        site.configure(scp={"port": port, "bind": "127.0.0.1"})
        site.serve()
        until(lambda: listens(port))
        rate = by_store(port, files, senders, "THEATRUM")
        kept = list((site.home / "phi").rglob("*.dcm"))
        assert len(kept) == len(files)
    return rate


def to_storescp(files: list[Path], *, no_delay: bool) -> float:
    """To dcmtk's own receiver."""
    with _environment({"TCP_NODELAY": "1"} if no_delay else {}), storescp() as peer:
        return by_store(peer.port, files, 1, "ARCHIVE")


@contextmanager
def _environment(added: dict[str, str]) -> Iterator[None]:
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def by_dicomweb(files: list[Path], target: Path) -> float:
    with orthanc(dicomweb=True) as pacs:
        pacs.upload(files)
        with DicomWeb(DicomWebServer(pacs.dicomweb)) as web:
            started = time.perf_counter()
            (series,) = find_series(web, {})
            got = fetch(web, series, Staging(target, Quota()))
            took_s = time.perf_counter() - started
    assert got.new == len(files)
    return len(files) / took_s


def by_copy(files: list[Path], target: Path) -> float:
    target.mkdir()
    started = time.perf_counter()
    for file in files:
        copy = target / file.name
        shutil.copyfile(file, copy)
        with copy.open("rb") as opened:
            os.fsync(opened.fileno())
    return len(files) / (time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with guarded_folder() as home:
        source = home / "scan"
        size = {"rows": wanted.size, "columns": wanted.size}
        files = write_series(source, slices=wanted.files, **size)
        ways: dict[str, Callable[[Path], float]] = {
            "folder": lambda folder: by_folder(source, folder, len(files)),
            "c_store_1": lambda folder: to_service(folder, files, 1),
            "storescp": lambda _folder: to_storescp(files, no_delay=False),
            "storescp_no_delay": lambda _folder: to_storescp(files, no_delay=True),
            "c_store_4": lambda folder: to_service(folder, files, 4),
            "copy_and_fsync": lambda folder: by_copy(files, folder),
        }
        if PLUGIN.exists():
            ways["dicomweb"] = lambda folder: by_dicomweb(files, folder)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(wanted.rounds):
            for name, way in ways.items():
                folder = home / f"{name}-{turn}"
                rates[name].append(way(folder))
                shutil.rmtree(folder, ignore_errors=True)
    told = {
        name: {
            "files_per_s": round(statistics.median(found), 1),
            "least": round(min(found), 1),
            "most": round(max(found), 1),
        }
        for name, found in rates.items()
    }
    print(json.dumps(told, indent=2))
    slow = [
        name for name in ("folder", "c_store_1") if told[name]["files_per_s"] < LEAST
    ]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
