"""Many jobs, workers that are killed, a server that fails: what is left?

    python -m benchmarks.ia_api.chaos --jobs 1000 --workers 2
    python -m benchmarks.ia_api.chaos --jobs 1000 --workers 4 --postgres

Each job must end in exactly one final result, with no file and no patient data left.
Prints the figures as JSON; ends with 1 where the promise is broken.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

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


def main() -> int:
    chosen = _arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(PathologyServer(keep_requests=1000))
        site = stack.enter_context(Site(folder, server, **SETTINGS))
        url = ""
        if chosen.postgres:
            url = stack.enter_context(postgres.cluster()).new_database()
            config = site.home / "theatrum.toml"
            config.write_text(f'database_url = "{url}"\n' + config.read_text())
        site.serve()
        figures = _run(site, chosen)
        figures |= _left_over(site, url)
    print(json.dumps(figures, indent=1))
    return 0 if figures["broken"] == [] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill-every-s", type=float, default=5.0)
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


def _run(site: Site, chosen: argparse.Namespace) -> dict[str, Any]:
    # A seeded generator repeats a run; nothing is kept secret by it.
    dice = random.Random(chosen.seed)  # noqa: S311
    viewers = [site.viewer("probe"), site.viewer("probe-files")]
    slide_ids = [f"chaos-{number}" for number in range(chosen.jobs)]
    spec = slides.SlideSpec(width=320, height=200, downsamples=(1,))
    path = slides.write_slide(site.notes / "slide.svs", spec)
    for number, slide_id in enumerate(slide_ids):
        if number % 2:
            site.server.add(slide_of_file(slide_id, path))
        else:
            site.server.add(synthetic_slide(slide_id, width=320, height=200))
    _faults(site.server, chosen.seed)
    workers = [site.worker() for _ in range(chosen.workers)]
    began = time.monotonic()
    accepted: list[int] = []
    latencies: list[float] = []

    def create(numbered: tuple[int, str]) -> None:
        number, slide_id = numbered
        viewer = viewers[number % 2]
        for _ in range(20):
            try:
                answer = viewer.create(slide_id)
            except ProtocolViolation:
                # The viewer shows an error, and its user asks again.
                continue
            accepted.append(answer.result_id)
            latencies.append(answer.seconds)
            return

    kills = 0
    with ThreadPoolExecutor(4) as pool:
        asking = pool.map(create, enumerate(slide_ids))
        while time.monotonic() - began < chosen.limit_s:
            pause = time.monotonic() + chosen.kill_every_s * dice.uniform(0.5, 1.5)
            while time.monotonic() < pause and not _all_final(site, chosen.jobs):
                time.sleep(0.2)
            if _all_final(site, chosen.jobs):
                break
            victim = dice.randrange(len(workers))
            site.kill(workers[victim])
            kills += 1
            workers[victim] = site.worker()
            if kills % 10 == 0:
                # Some tokens expire; the next request brings a fresh one.
                site.server.tokens.revoke_all()
                for viewer in viewers:
                    viewer.cancel(viewer.body("cancel", slide_ids[0], {}), judge=False)
        list(asking)
    # Beyond the limit nobody is killed any more; all the same each job has to end.
    wait(lambda: _all_final(site, chosen.jobs), "all jobs end", chosen.limit_s)
    seconds = time.monotonic() - began
    latencies.sort()
    return {
        "jobs": chosen.jobs,
        "workers": chosen.workers,
        "database": "postgresql" if chosen.postgres else "sqlite",
        "accepted": len(accepted),
        "kills": kills,
        "seconds": round(seconds, 1),
        "jobs_per_minute": round(60 * len(accepted) / seconds, 1),
        "create_ms_median": round(1000 * latencies[len(latencies) // 2]),
        "create_ms_p99": round(1000 * latencies[int(len(latencies) * 0.99)]),
    }


def _phase(result: dict[str, Any]) -> str:
    return str(((result.get("data") or {}).get("context") or {}).get("phase"))


def _all_final(site: Site, jobs: int) -> bool:
    results = site.server.results.all()
    return len(results) >= jobs and all(
        _phase(one) in {"done", "failed", "cancelled"} for one in results
    )


def _no_files(site: Site) -> bool:
    try:
        return not site.slide_files()
    except FileNotFoundError:
        # A folder went while it was looked into: there was one.
        return False


def _left_over(site: Site, url: str) -> dict[str, Any]:
    wait(lambda: _no_files(site), "all files are removed", 120)
    engine = create_engine(url or f"sqlite:///{site.home}/ia_api/theatrum.sqlite")

    def rows(query: str) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(text(query)))

    wait(
        lambda: not rows("SELECT 1 FROM ia_job WHERE closed IS NULL"),
        "all jobs are closed",
        120,
    )
    states = {
        row[0]: row[1]
        for row in rows("SELECT state, count(*) FROM ia_job GROUP BY state")
    }
    per_slide = collections.Counter(
        one["slideId"] for one in site.server.results.all() if _phase(one) == "done"
    )
    secrets = [one for one in site.server.secrets() if site.containing(one)]
    broken = [slide for slide, count in per_slide.items() if count != 1]
    broken += [f"{len(secrets)} secrets left"] if secrets else []
    tokens = rows("SELECT count(*) FROM ia_token")[0][0]
    broken += [f"{tokens} tokens left"] if tokens else []
    engine.dispose()
    return {
        "states": states,
        "final_results": sum(per_slide.values()),
        "results": len(site.server.results.all()),
        "not_done": sorted(
            {_phase(one) for one in site.server.results.all()} - {"done"}
        ),
        "files_left": len(site.slide_files()),
        "broken": broken,
    }


if __name__ == "__main__":
    sys.exit(main())
