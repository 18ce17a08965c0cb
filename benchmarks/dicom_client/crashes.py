"""Many series, each killed at every edge: one upload, one delivery, one confirmation.

    python -m benchmarks.dicom_client.crashes --series 500

A worker dies before and after every commit of every series (some 26 times each) while
the server's faults change all the time. What nobody knows of an upload is looked up in
the server's list, as an operator would. At the end everything is counted; the exit
status is 1 where a number is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.draw_server import DrawServer
from tests.services.dicom_client.client_site import CANARIES, Site, patient_series
from tests.services.dicom_client.test_recovery import PATIENT, crashing

FAULTS: list[dict[str, Any]] = [
    {},
    {"health_503_n": 5},
    {"upload_500_n": 5},
    {"upload_reset_n": 2},
    {"upload_drop_n": 2},
    {"status_500_n": 10},
    {"download_500_n": 5},
    {"download_bad_checksum_n": 3},
    {"download_truncated_n": 3},
    {"confirm_500_n": 5},
    {"confirm_other_text_n": 5},
    {"rate_limit_429_after": 1},
]


def main() -> int:
    """Run, count, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--hours", type=float, default=4.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = _run(Path(folder), chosen.series, chosen.hours * 3600)
    print(json.dumps(told, indent=2))
    return 0 if told["right"] else 1


def _run(folder: Path, count: int, limit_s: float) -> dict[str, Any]:
    began = time.monotonic()
    settings = {**PATIENT, "attempts": 100, "jobs_per_worker": 2}
    with (
        DrawServer(canaries=CANARIES) as server,
        Site(folder, server, **settings) as site,
    ):
        server.script(polls=1)
        site.serve()
        site.set_up()
        for number in range(count):
            site.drop(patient_series(), f"case-{number}")
        notes = folder / "notes"
        notes.mkdir()
        crashing(site, notes)
        turn = 0
        while not _done(site, count) and time.monotonic() < began + limit_s:
            turn += 1
            server.script(**{**_calm(), **FAULTS[turn % len(FAULTS)]})
            time.sleep(2.0)
        tasks = list(server.tasks.values())
        logs = site.log_text()
        figures = {
            "series": count,
            "seconds": round(time.monotonic() - began),
            "crashes": len(list(notes.iterdir())),
            "done": site.ask("GET", "statistics")["states"]["done"],
            "uploads": sum(task.uploads for task in tasks),
            "confirmations": sum(task.confirmed for task in tasks),
            "delivered": len(site.results()),
            "beside_images": len(site.beside()),
            "leaks": len(server.leaks),
            "canaries_in_logs": sum(canary in logs for canary in CANARIES),
        }
    once = ("done", "uploads", "confirmations", "delivered", "beside_images")
    none = ("leaks", "canaries_in_logs")
    right = all(figures[name] == count for name in once)
    return {**figures, "right": right and not any(figures[name] for name in none)}


def _calm() -> dict[str, Any]:
    names = {name for fault in FAULTS for name in fault}
    return dict.fromkeys(names, 0)


def _done(site: Site, count: int) -> bool:
    """Whether all is done; helps on what waits for a person."""
    for one in site.ask("GET", "series?attention=true&limit=500")["series"]:
        if one["stopped"] == "upload-unknown":
            sha256 = site.detail(one["id"])["package_sha256"]
            known = [t.token for t in site.server.tasks.values() if t.sha256 == sha256]
            decision = {"token": known[0] if known else None}
            site.call("POST", f"series/{one['id']}/upload", json=decision)
        elif one["stopped"]:
            site.call("POST", f"series/{one['id']}/retry")
    return bool(site.ask("GET", "statistics")["states"]["done"] == count)


if __name__ == "__main__":
    sys.exit(main())
