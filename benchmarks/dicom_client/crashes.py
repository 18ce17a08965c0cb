"""Many series, each killed at every edge: one upload, one delivery, one confirmation.

    python -m benchmarks.dicom_client.crashes [--series 500] [--share 1.0]

Two workers are killed (SIGKILL) before and after every commit of every series, some 26
times each, by `dying_worker`; in between they and the web server, which receives every
fifth series by C-STORE from dcmtk's storescu, are killed from outside at random
moments. All the time the segmentation server's double goes from one fault to the next,
through all that it has. What waits for a person is decided as an operator would: an
unknown upload is looked up in the server's list, what failed or was rejected is
retried. At the end everything is counted, and each package that the server stored a
second time is explained by both sides' notes (`ledger`): only what a person sent again
because the server had failed or forgotten it may come again. The exit status is 1 where
a number is wrong. With `TMPDIR=/dev/shm` it takes a third of the time: a process that
is killed loses nothing that it wrote, so that waiting for a disk tells nothing here.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.dicom_client import ledger
from benchmarks.dicom_client.dying_worker import BEGIN, begun_beside
from benchmarks.dicom_client.watchman import guarded_folder
from tests.dcmtk import free_port, storescu
from tests.draw_server import DrawServer
from tests.draw_server.scenario import Scenario
from tests.services.dicom_client.client_site import (
    CANARIES,
    ROOT,
    Site,
    _environment,
    patient_series,
    write,
)

PATIENCE_S = 15.0
"""So long a person goes on looking for an upload: the server may still be at it."""
WORKERS = 2
SLICES = 4
"""Of a series: each step is done again after a crash, many times a series."""
EDGES = (
    *("deidentified", "packed", "uploading", "upload-sent"),
    *("stopped-upload-unknown", "submitted", "processing", "ready"),
    *("downloaded", "reidentified", "exported", "confirmed", "done"),
)
FAULTS: list[dict[str, Any]] = [
    {},
    {"health_503_n": 5},
    {"upload_500_n": 5},
    {"upload_stall_n": 2},
    {"upload_reset_n": 2},
    {"upload_drop_n": 2},
    {"upload_dup_token": False},
    {"upload_limit_bytes": 100},
    {"token_name": "task_id"},
    {"token_expired": True, "refresh_way": "v1"},
    {"token_expired": True, "refresh_way": "v2", "refresh_rotates": True},
    {"token_expired": True, "refresh_fails": True},
    {"ready_status": " Segmentation_Retrieved "},
    {"status_500_n": 10},
    {"status_404": True},
    {"status_failed": True},
    {"status_stuck": True},
    {"download_500_n": 5},
    {"download_bad_checksum_n": 3},
    {"download_no_checksum": True},
    {"download_upper_checksum": True},
    {"download_truncated_n": 3},
    {"download_html": True},
    *(
        {name: True}
        for name in (
            *("rt_wrong_series", "rt_foreign_sop", "rt_wrong_for", "rt_no_ref"),
            *("rt_not_rtstruct", "rt_extra_roi", "rt_missing_roi", "rt_empty_roi"),
            *("rt_duplicate_numbers", "rt_odd_points", "rt_outside"),
        )
    ),
    {"rt_phi_injected": CANARIES[1]},
    {"confirm_500_n": 5},
    {"confirm_other_text_n": 5},
    {"slow_ms": 50},
    {"rate_limit_429_after": 1},
]
SETTINGS: dict[str, Any] = {
    # Whoever dies at each edge dies more often in a row than anything in earnest.
    "crashes": 100,
    "min_instances": SLICES,
    "attempts": 100,
    "lost_after": 20,
    "jobs_per_worker": 32,
    "lease_s": 15.0,
    "stable_s": 20.0,
    "poll_s": [0.5, 1.0],
    "breaker_failures": 1000,
    "backoff_cap_s": 1.0,
    "server_timeouts": {"timeout_s": 10.0, "upload_timeout_s": 5.0},
}


def main() -> int:
    """Run, count, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=3000.0, help="at most")
    parser.add_argument(
        "--share", type=float, default=1.0, help="at so many of its edges a series dies"
    )
    parser.add_argument("--seed", type=int, default=5)
    chosen = parser.parse_args()
    with guarded_folder() as folder:
        told = Run(folder, chosen.series, chosen.seed, chosen.share).result(
            chosen.seconds
        )
    print(json.dumps(told, indent=2))
    return 0 if told["right"] else 1


class Run:
    """One run, from the first series to the count."""

    def __init__(self, folder: Path, count: int, seed: int, share: float) -> None:
        self._folder, self._count, self._share = folder, count, share
        self._random = random.Random(seed)  # noqa: S311 - moments, no secrets
        self._notes = folder / "notes"
        self._notes.mkdir()
        self._decided: Counter[str] = Counter()
        self._found: set[str] = set()
        """Series whose task a person looked up: no worker submitted them."""
        self._looked: dict[str, float] = {}
        """Since when somebody looks for the upload of a series."""
        self._kills: Counter[str] = Counter()
        self._by_another_hand = 0
        """Edges after a commit at which a worker was killed before it noted them."""
        self._dropped = [number for number in range(count) if number % 5]
        self._port = free_port()
        self._serve: Any = None
        self._web = threading.RLock()
        """Held by whoever needs the web server, or kills it."""

    def result(self, limit_s: float) -> dict[str, Any]:
        """All series through; then what was counted."""
        began = time.monotonic()
        settings = dict(SETTINGS)
        times = settings.pop("server_timeouts")
        with DrawServer(canaries=CANARIES) as server:
            settings["server"] = {
                "base_url": server.url,
                "client_id": "theatrum-test",
                **times,
            }
            settings["scp"] = {"port": self._port, "bind": "127.0.0.1"}
            with Site(self._folder, server) as site:
                site.configure(**settings)
                self._serve = site.serve()
                site.set_up()
                self._drop(site)
                workers = [self._worker(site, number) for number in range(WORKERS)]
                # Before the first crash the folders are read and decided about once:
                # a look begins anew with each worker.
                while not self._all_decided(site):
                    time.sleep(0.5)
                (self._notes / BEGIN).touch()
                sending = threading.Thread(target=self._send, args=(site,), daemon=True)
                sending.start()
                turn, next_kill, next_web = 0, 0.0, 0.0
                while time.monotonic() < began + limit_s:
                    turn += 1
                    self._switch(server, FAULTS[turn % len(FAULTS)])
                    time.sleep(1.0)
                    now = time.monotonic()
                    if now > next_kill:
                        next_kill = now + self._random.uniform(1.0, 5.0)
                        self._kill_a_child(self._random.choice(workers))
                    if now > next_web:
                        next_web = now + self._random.uniform(40.0, 90.0)
                        with self._web:
                            self._kill_web(site)
                    if self._is_done(site):
                        break
                    if not turn % 10:
                        self._tell(site, began)
                sending.join(1)
                return self._counted(site, began)

    def _worker(self, site: Site, number: int) -> subprocess.Popen[bytes]:
        log = (site.logs / f"dying-{number}.log").open("wb")
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.dicom_client.dying_worker"),
                *(str(site.home), str(self._notes), str(self._share)),
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

    def _drop(self, site: Site) -> None:
        """Four of five series lie in the watched folder."""
        for number in self._dropped:
            site.drop(patient_series(SLICES), f"case-{number}")

    def _send(self, site: Site) -> None:
        """Every fifth comes from a scanner, which repeats what broke off.

        The receiver is killed in the middle of every sixth of these.
        """
        left = sorted(set(range(self._count)) - set(self._dropped))
        moments = random.Random(6)  # noqa: S311 - moments, no secrets
        with ThreadPoolExecutor(1) as pool:
            for at, number in enumerate(left):
                folder = self._folder / "scanner" / str(number)
                files = write(patient_series(SLICES), folder)
                if at % 6 == 0:
                    with self._web:
                        sent = pool.submit(storescu, self._port, files=files)
                        time.sleep(moments.uniform(0.02, 0.15))
                        self._kill_web(site)
                        self._kills["broken associations"] += (
                            sent.result().returncode != 0
                        )
                while storescu(self._port, "-to", "5", files=files).returncode:
                    time.sleep(0.2)

    def _kill_web(self, site: Site) -> None:
        site.kill(self._serve)
        self._kills["web server"] += 1
        self._serve = site.serve()

    def _kill_a_child(self, worker: subprocess.Popen[bytes]) -> None:
        for child in psutil.Process(worker.pid).children():
            child.kill()
            self._kills["worker"] += 1

    def _switch(self, server: DrawServer, fault: dict[str, Any]) -> None:
        server.script(**{**asdict(Scenario(polls=1)), **fault})

    def _is_done(self, site: Site) -> bool:
        """Whether all is done; decides what waits for a person."""
        with self._web:
            listed = site.ask("GET", "series?attention=true&limit=500")["series"]
            for one in listed:
                self._decide(site, one)
        return self._states(site).get("done", 0) >= self._count

    def _all_decided(self, site: Site) -> bool:
        """Whether every series that was dropped is a job."""
        states = self._states(site)
        jobs = sum(states.values()) - states.get("discovered", 0)
        return jobs >= len(self._dropped)

    def _decide(self, site: Site, one: dict[str, Any]) -> None:
        way, body = "retry", None
        if one["stopped"] == "upload-unknown":
            token = self._token(site, one["id"])
            way, body = "upload", {"token": token}
            since = self._looked.setdefault(one["id"], time.monotonic())
            soon = time.monotonic() < since + PATIENCE_S
            if token is None and (soon or self._is_under_way(site, one["id"])):
                return
            del self._looked[one["id"]]
            if token is not None:
                self._found.add(one["id"])
        elif one["stopped"] == "token":
            tokens = {
                "access": site.server.access_token,
                "refresh": site.server.refresh_token,
            }
            site.ask("PUT", "tokens", json=tokens)
            self._decided["token"] += 1
            return
        elif one["state"] == "rejected":
            token = self._token(site, one["id"])
            if token is not None:
                # A good one next time: the double draws it anew.
                site.server.tasks[token].result = None
        answer = site.call("POST", f"series/{one['id']}/{way}", json=body)
        if answer.is_success:
            self._decided[str(one["stopped"] or one["state"])] += 1

    def _is_under_way(self, site: Site, job_id: str) -> bool:
        sha256 = site.detail(job_id)["package_sha256"]
        return site.server.is_under_way(sha256)

    def _token(self, site: Site, job_id: str) -> str | None:
        sha256 = site.detail(job_id)["package_sha256"]
        for task in list(site.server.tasks.values()):
            if task.sha256 == sha256:
                return task.token
        return None

    def _states(self, site: Site) -> dict[str, int]:
        with self._web:
            states: dict[str, int] = site.ask("GET", "statistics")["states"]
        return {state: count for state, count in states.items() if count}

    def _tell(self, site: Site, began: float) -> None:
        told = (
            f"{time.monotonic() - began:5.0f} s  {len(list(self._notes.iterdir()))} "
            f"edges  {dict(self._kills)}  {self._states(site)}"
        )
        print(told, file=sys.stderr, flush=True)

    # The count.

    def _counted(self, site: Site, began: float) -> dict[str, Any]:
        seconds = round(time.monotonic() - began)
        jobs, outgrown = self._all_jobs(site)
        why: Counter[str] = Counter()
        confirmations: Counter[str] = Counter()
        for task in site.server.tasks.values():
            confirmations[task.sha256] += task.confirmed
        wrong: Counter[str] = Counter()
        for job in jobs:
            detail = site.detail(job["id"])
            sha256 = detail["package_sha256"]
            kinds = Counter(entry["kind"] for entry in detail["timeline"])
            wrong["not done"] += job["state"] != "done"
            came = [one for one in site.server.uploads if one.sha256 == sha256]
            reasons = ledger.whys(came, detail["timeline"])
            why.update(reasons)
            if not reasons or set(reasons) - {"first", "asked"}:
                wrong["uploads"] += 1
                print(job["id"], *reasons, file=sys.stderr)
                for line in ledger.told(came, detail["timeline"]):
                    print("   ", line, file=sys.stderr)
            wrong["confirmations"] += confirmations[sha256] != 1
            wrong["deliveries"] += any(
                one["delivered"] is None for one in detail["deliveries"]
            )
            for kind in ("exported", "confirmed", "done"):
                wrong[f"{kind} more than once"] += kinds[kind] != 1
            for edge in EDGES if self._share >= 1 else ():
                # A person who looked up a task submitted the series, not a worker.
                if edge != "submitted" or job["id"] not in self._found:
                    died = self._died_at(job["id"], edge)
                    wrong["edges without a crash"] += not died
                    if not died:
                        print(job["id"], "did not die at", edge, file=sys.stderr)
        wrong["series"] += len(jobs) != self._count
        wrong["parts sent"] += sum(
            site.detail(one["id"])["package_sha256"] is not None for one in outgrown
        )
        sent = {one.sha256 for one in site.server.uploads if one.taken}
        wrong["packages at the server"] += len(sent) != self._count
        wrong["delivered to the folder"] += len(site.results()) != self._count
        wrong["delivered beside the images"] += len(site.beside()) != len(self._dropped)
        wrong["left over"] += self._left_over(site)
        wrong["names in packages"] += len(site.server.leaks)
        wrong["names in logs"] += sum(one in site.log_text() for one in CANARIES)
        wrong["names in addresses and file names"] += self._names(site)
        wrong["breaks in the audit log"] += not site.ask("GET", "audit/check")["whole"]
        by_edge = Counter(
            note.name.partition("-")[2] for note in self._notes.glob("*-*")
        )
        return {
            "right": not any(wrong.values()),
            "wrong": {name: count for name, count in wrong.items() if count},
            "series": len(jobs),
            "parts_that_grew": len(outgrown),
            "seconds": seconds,
            "crashes_at_an_edge": sum(by_edge.values()),
            "further_ones_by_another_hand": self._by_another_hand,
            "edges": len(by_edge),
            "crashes_at_the_rarest_edge": min(by_edge.values(), default=0),
            "workers_killed": self._deaths(site),
            "killed_from_outside": dict(self._kills),
            "uploads": dict(why),
            "confirmations": sum(confirmations.values()),
            "delivered": len(site.results()),
            "beside_images": len(site.beside()),
            "decided_by_a_person": dict(self._decided),
            "requests_at_the_server": len(site.server.log),
        }

    def _died_at(self, job_id: str, edge: str) -> bool:
        """Whether a worker died before and after a commit of a job that is done.

        Where one was killed by another hand between the commit and its own note, there
        is only the note that the commit begins: the job never comes there again.
        """
        before, after = (f"{job_id}-{edge}-{moment}" for moment in ("before", "after"))
        if not (self._notes / before).exists():
            return False
        if (self._notes / after).exists():
            return True
        began = (begun_beside(self._notes) / after).exists()
        self._by_another_hand += began
        return began

    def _all_jobs(
        self, site: Site
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Every series: nothing may be lost, nor doubled. And those that grew.

        Where a receiver that was killed stays away for longer than a series is waited
        for, the part that came is held for its few images, and ignored when the rest
        is there.
        """
        found: list[dict[str, Any]] = []
        before = ""
        while True:
            page = site.ask("GET", f"series?limit=500{before}")
            found += page["series"]
            if page["next"] is None or not page["series"]:
                break
            before = f"&before={page['next']!r}"
        outgrown = [
            one
            for one in found
            if one["state"] == "ignored"
            and [reason["code"] for reason in one["reasons"]] == ["grew"]
        ]
        return [one for one in found if one not in outgrown], outgrown

    def _deaths(self, site: Site) -> int:
        """Workers that began, less those that live."""
        return site.log_text().count('"a worker is ready"') - WORKERS

    def _left_over(self, site: Site) -> int:
        """Files that nobody needs any more."""
        phi = site.home / "phi" / "dicom_client"
        left = [
            path
            for path in (phi / "jobs").rglob("*")
            if path.is_file()
            and path.parent.name != "finished"
            and path.relative_to(phi / "jobs").parts[1:] != ("package", "mapping")
        ]
        left += list(phi.rglob("*.part"))
        left += [path for path in site.delivered.iterdir() if path.suffix != ".dcm"]
        left += [path for path in site.watched.rglob(".*") if path.is_file()]
        left += list(site.watched.rglob("*.part"))
        for path in left[:10]:
            print("left over:", path.relative_to(self._folder), file=sys.stderr)
        return len(left)

    def _names(self, site: Site) -> int:
        """Canaries in what we call: addresses at the server, files of our own."""
        names = [one.path for one in site.server.log]
        names += [str(path.relative_to(site.home)) for path in site.home.rglob("*")]
        names += [path.name for path in (*site.results(), *site.beside())]
        return sum(canary in name for canary in CANARIES for name in names)


if __name__ == "__main__":
    sys.exit(main())
