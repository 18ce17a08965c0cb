"""How many files a second come in, by folder, by C-STORE and over DICOMweb.

    python -m benchmarks.dicom_client.ingest [--files 400] [--size 512]

A CT series is made in code. The watched folder is looked at until every file was read;
dcmtk's storescu (Debian: dcmtk) sends it over one association and over four, and every
instance is synced to disk before it is answered; Orthanc (Debian: orthanc-dicomweb)
gives it by WADO-RS. The same series copied with one fsync a file says what the disk
allows. Prints one JSON object: files per second of each way.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from services.dicom_client.dicomweb import DicomWeb, DicomWebServer
from services.dicom_client.dicomweb_source import fetch, find_series
from services.dicom_client.staging import Quota, Staging
from services.dicom_client.watch_folder import WatchSettings, scan
from tests.dcmtk import storescu
from tests.orthanc import PLUGIN, orthanc
from tests.services.dicom_client.received import receiving, write_series


def by_folder(folder: Path, count: int) -> float:
    """Three looks, the third of which reads every header."""
    settings = WatchSettings(scans=3, stable_s=2, batch=count)
    known, taken = {}, 0
    started = time.perf_counter()
    for look in range(3):
        found = scan([folder], known, 1000.0 + look, settings)
        known.update(found.snapshots)
        taken += len(found.stable)
    assert taken == count
    return count / (time.perf_counter() - started)


def by_store(files: list[Path], target: Path, senders: int) -> float:
    with (
        receiving(target) as scp,
        concurrent.futures.ThreadPoolExecutor(senders) as pool,
    ):
        started = time.perf_counter()
        shares = [files[at::senders] for at in range(senders)]
        sent = list(pool.map(lambda share: storescu(scp.port, files=share), shares))
        took_s = time.perf_counter() - started
        assert all(one.returncode == 0 for one in sent)
        assert len(scp.notes.arrivals) == len(files)
    return len(files) / took_s


def by_dicomweb(files: list[Path], target: Path) -> float | None:
    if not PLUGIN.exists():
        return None
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        size = {"rows": wanted.size, "columns": wanted.size}
        files = write_series(home / "scan", slices=wanted.files, **size)
        rates = {
            "folder": by_folder(home / "scan", len(files)),
            "c_store_1": by_store(files, home / "one", 1),
            "c_store_4": by_store(files, home / "four", 4),
            "dicomweb": by_dicomweb(files, home / "web"),
            "copy_and_fsync": by_copy(files, home / "copy"),
        }
    print(json.dumps({k: v and round(v, 1) for k, v in rates.items()}, indent=2))


if __name__ == "__main__":
    main()
