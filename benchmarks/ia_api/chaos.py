"""Many jobs, workers that are killed, a server that fails: what is left?

    python -m benchmarks.ia_api.chaos --jobs 1000 --workers 2
    python -m benchmarks.ia_api.chaos --jobs 1000 --workers 4 --postgres

Each job must end in exactly one final result, written once, with no file and no patient
data left. A worker is killed (SIGKILL) whenever some more jobs have ended, while one of
its jobs is beyond a checkpoint that was drawn by lot. Prints the figures as JSON; ends
with 1 where the promise is broken. Told to stop, it ends all that it started.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text

from benchmarks.ia_api.conditions import conditions
from benchmarks.ia_api.ending import ended_in_order
from tests import postgres, slides
from tests.pathology_server import (
    DropAfter,
    PathologyServer,
    ProtocolViolation,
    Status,
    Truncate,
    slide_of_file,
    synthetic_slide,
)
from tests.services.ia_api.running_site import Site, wait

SETTINGS: dict[str, Any] = {
    "lease_s": 6.0,
    "attempts": 30,
    "crashes": 20,
    "jobs_per_worker": 2,
    "backoff_base_s": 0.2,
    "backoff_cap_s": 3.0,
    "progress_interval_s": 2.0,
}
FINAL = {"done", "failed", "cancelled"}
CHECKPOINTS = ("begun", "result_created", "info", "files", "analysed", "result_stored")
_HUNT_S = 3.0
"""How long a worker is looked for that is where the lot says."""


@dataclass
class Told:
    """What the users and the killer of workers saw."""

    accepted: dict[str, int] = field(default_factory=dict)
    """The result that each slide's user was answered with."""
    seconds: list[float] = field(default_factory=list)
    kills: int = 0


class Rows:
    """The service's database, read from beside."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = create_engine(url)

    def __call__(self, query: str, **values: object) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(text(query), values))

    def close(self) -> None:
        self._engine.dispose()

    def closed(self) -> int:
        return int(self("SELECT count(*) FROM ia_job WHERE closed > 0")[0][0])

    def unclosed(self) -> int:
        return int(self("SELECT count(*) FROM ia_job WHERE closed IS NULL")[0][0])


def main() -> int:
    chosen = _arguments()
    told = conditions()
    with ended_in_order(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(PathologyServer(keep_requests=1000))
        site = stack.enter_context(Site(folder, server, **SETTINGS))
        url = f"sqlite:///{site.home}/ia_api/theatrum.sqlite"
        if chosen.postgres:
            url = stack.enter_context(postgres.cluster()).new_database()
            config = site.home / "theatrum.toml"
            config.write_text(f'database_url = "{url}"\n' + config.read_text())
        site.serve()
        rows = Rows(url)
        stack.callback(rows.close)
        figures = _run(site, rows, chosen)
    print(json.dumps(told | figures, indent=1))
    return 0 if figures["broken"] == [] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    # Not by time: on a slow machine workers would be killed before they do anything.
    parser.add_argument("--jobs-per-kill", type=float, default=12.0)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=3600)
    return parser.parse_args()


def _faults(server: PathologyServer, seed: int) -> None:
    """A share of all callbacks goes wrong, each in its own way."""
    for number, (route, fault, share) in enumerate(
        (
            ("slides.info", Status(503), 0.05),
            ("results.create", DropAfter(), 0.03),
            ("results.update", Status(503, retry_after_s=1), 0.05),
            ("results.update", DropAfter(), 0.03),
            ("results.update", Status(409), 0.03),
            ("results.get", Status(503), 0.05),
            ("slides.files", Truncate(900), 0.10),
            ("slides.files", Status(503), 0.05),
            ("tiles", Status(503), 0.02),
        )
    ):
        server.faults.chance(route, fault, probability=share, seed=seed + number)


def _run(site: Site, rows: Rows, chosen: argparse.Namespace) -> dict[str, Any]:
    slide_ids = _slides(site, chosen.jobs)
    _faults(site.server, chosen.seed)
    told = Told()
    began = time.monotonic()
    pool = ThreadPoolExecutor(4)
    try:
        asking = _ask(site, slide_ids, told, pool)
        _kill_workers(site, rows, chosen, told, asking)
    finally:
        # First, so that nobody asks a site that is being taken down.
        pool.shutdown(wait=False, cancel_futures=True)
    seconds = time.monotonic() - began
    told.seconds.sort()
    return {
        "jobs": chosen.jobs,
        "workers": chosen.workers,
        "database": "postgresql" if chosen.postgres else "sqlite",
        "accepted": len(told.accepted),
        "kills": told.kills,
        "killed_after": _killed_after(rows),
        "seconds": round(seconds, 1),
        "jobs_per_minute": round(60 * len(told.accepted) / seconds, 1),
        "create_ms_median": round(1000 * told.seconds[len(told.seconds) // 2]),
        "create_ms_p99": round(1000 * told.seconds[int(len(told.seconds) * 0.99)]),
        **_left_over(site, rows, told),
    }


def _slides(site: Site, count: int) -> list[str]:
    """Half of them read by tiles, half as files."""
    spec = slides.SlideSpec(width=320, height=200, downsamples=(1,))
    path = slides.write_slide(site.notes / "slide.svs", spec)
    names = [f"chaos-{number}" for number in range(count)]
    for number, name in enumerate(names):
        if number % 2:
            site.server.add(slide_of_file(name, path))
        else:
            site.server.add(synthetic_slide(name, width=320, height=200))
    return names


def _ask(
    site: Site, slide_ids: list[str], told: Told, pool: ThreadPoolExecutor
) -> list[Future[None]]:
    """Four users ask for one slide after the other."""
    viewers = [site.viewer("probe"), site.viewer("probe-files")]

    def create(number: int, slide_id: str) -> None:
        for _ in range(20):
            try:
                answer = viewers[number % 2].create(slide_id)
            except ProtocolViolation:
                # The viewer shows an error, and its user asks again.
                continue
            told.accepted[slide_id] = answer.result_id
            told.seconds.append(answer.seconds)
            return

    return [pool.submit(create, *one) for one in enumerate(slide_ids)]


def _kill_workers(
    site: Site,
    rows: Rows,
    chosen: argparse.Namespace,
    told: Told,
    asking: list[Future[None]],
) -> None:
    """Until all jobs ended: kill a worker now and then, and start another."""
    # A seeded generator repeats a run; nothing is kept secret by it.
    dice = random.Random(chosen.seed)  # noqa: S311
    workers = [site.worker() for _ in range(chosen.workers)]

    def ended() -> bool:
        return all(one.done() for one in asking) and rows.unclosed() == 0

    end = time.monotonic() + chosen.limit_s
    while time.monotonic() < end:
        done = rows.closed() + chosen.jobs_per_kill * dice.uniform(0.5, 1.5)
        while rows.closed() < done and not ended() and time.monotonic() < end:
            time.sleep(0.2)
        if ended():
            break
        victim = _victim(rows, dice.randrange(len(CHECKPOINTS)), workers)
        number = dice.randrange(len(workers)) if victim is None else victim
        site.kill(workers[number])
        told.kills += 1
        workers[number] = site.worker()
        if told.kills % 10 == 0:
            # Some tokens expire; the next request brings a fresh one.
            site.server.tokens.revoke_all()
            for app in ("probe", "probe-files"):
                viewer = site.viewer(app)
                viewer.cancel(viewer.body("cancel", "chaos-0", {}), judge=False)
    # Beyond the limit nobody is killed any more; all the same each job has to end.
    wait(ended, "all jobs end", chosen.limit_s)
    for one in asking:
        one.result()


def _victim(
    rows: Rows, checkpoint: int, workers: list[subprocess.Popen[bytes]]
) -> int | None:
    """A worker with a job whose last checkpoint is this one; None if none comes by."""
    pids = [one.pid for one in workers]
    end = time.monotonic() + _HUNT_S
    while time.monotonic() < end:
        for (pid,) in rows(
            "SELECT w.pid FROM ia_job j JOIN ia_worker w ON w.worker_id = j.lease_owner"
            " WHERE j.state = 'running' AND j.checkpoint = :checkpoint",
            checkpoint=checkpoint,
        ):
            if pid in pids:
                return pids.index(pid)
        time.sleep(0.01)
    return None


def _killed_after(rows: Rows) -> dict[str, int]:
    """How many runs were broken off by a kill, by their last complete checkpoint."""
    last: dict[str, str] = {}
    found = dict.fromkeys(CHECKPOINTS, 0)
    for job_id, kind, detail in rows(
        "SELECT job_id, kind, detail FROM ia_event ORDER BY id"
    ):
        if kind == "checkpoint":
            last[job_id] = detail
        elif kind == "queued" and detail == "lease expired":
            found[last.get(job_id, CHECKPOINTS[0])] += 1
    return found


def _phase(result: dict[str, Any]) -> str:
    return str(((result.get("data") or {}).get("context") or {}).get("phase"))


def _no_files(site: Site) -> bool:
    try:
        return not site.slide_files()
    except FileNotFoundError:
        # A folder went while it was looked into: there was one.
        return False


def _left_over(site: Site, rows: Rows, told: Told) -> dict[str, Any]:
    """What became of the jobs, and what is there although it must not be."""
    wait(lambda: _no_files(site), "all files are removed", 120)
    held = site.server.results.all()
    per_slide = collections.Counter(
        one["slideId"] for one in held if _phase(one) in FINAL
    )
    writings = {
        one["id"]: sum(
            _phase(version) == "done"
            for version in site.server.results.history(one["id"])
        )
        for one in held
    }
    secrets = _found(site, site.server.secrets())
    tokens = rows("SELECT count(*) FROM ia_token")[0][0]
    phases = collections.Counter(map(_phase, held))
    broken = [slide for slide in told.accepted if per_slide[slide] != 1]
    broken += [
        f"result {one} was written twice" for one in writings if writings[one] > 1
    ]
    broken += [f"{phases[one]} results say {one}" for one in phases if one not in FINAL]
    broken += [f"{len(secrets)} secrets left"] if secrets else []
    broken += [f"{tokens} tokens left"] if tokens else []
    states = rows("SELECT state, count(*) AS number FROM ia_job GROUP BY state")
    return {
        "states": {one.state: one.number for one in states},
        "results": dict(phases),
        "files_left": len(site.slide_files()),
        "secrets_left": len(secrets),
        "broken": broken,
    }


def _found(site: Site, secrets: list[str]) -> set[str]:
    """Those of the tokens and patients' texts that lie in any file or log of the site.

    By grep, which looks for thousands of texts at once.
    """
    wanted = site.notes / "secrets"
    wanted.write_text("\n".join(sorted(set(secrets))))
    done = subprocess.run(
        ["grep", "-rahoF", "-f", wanted, site.home, site.logs],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode not in {0, 1}:
        raise OSError("grep could not read all files of the site")
    return set(done.stdout.decode(errors="replace").split("\n")) - {""}


if __name__ == "__main__":
    sys.exit(main())
