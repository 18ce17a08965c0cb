"""How long a user waits for the answer to `create`, and how many jobs a minute.

    python -m benchmarks.ia_api.latency --jobs 200 --latency-ms 50

The pathology server answers each callback after `--latency-ms`; workers run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.ia_api.conditions import conditions
from benchmarks.ia_api.ending import ended_in_order
from tests.pathology_server import PathologyServer, synthetic_slide
from tests.services.ia_api.running_site import Site, wait


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    slides = [
        synthetic_slide(f"sl-{number}", width=320, height=200)
        for number in range(chosen.jobs + 1)
    ]
    told = conditions()
    with (
        ended_in_order(),
        tempfile.TemporaryDirectory() as folder,
        PathologyServer(slides, latency_s=chosen.latency_ms / 1000) as server,
        Site(Path(folder), server, jobs_per_worker=2) as site,
    ):
        site.serve()
        viewer = site.viewer()
        for _ in range(chosen.workers):
            site.worker()
        # The first contact agrees on the version; workers load their nodes.
        site.wait_result(viewer.create("sl-0").result_id, "Width 320 px")
        began = time.monotonic()
        with ThreadPoolExecutor(chosen.users) as pool:
            names = [slide.slide_id for slide in slides[1:]]
            answers = list(pool.map(viewer.create, names))
        asked = time.monotonic() - began

        def done() -> bool:
            results = server.results.all()
            return all(one["displayResult"].startswith("Width") for one in results)

        wait(done, "all jobs are done", 3600)
        seconds = time.monotonic() - began
    times = sorted(answer.seconds * 1000 for answer in answers)
    print(
        json.dumps(
            told
            | {
                "jobs": chosen.jobs,
                "callback_latency_ms": chosen.latency_ms,
                "users": chosen.users,
                "workers": chosen.workers,
                "create_ms_median": round(times[len(times) // 2], 1),
                "create_ms_p99": round(times[int(len(times) * 0.99)], 1),
                "create_ms_max": round(times[-1], 1),
                "asked_in_s": round(asked, 1),
                "jobs_per_minute": round(60 * chosen.jobs / seconds, 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
