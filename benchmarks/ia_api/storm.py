"""A scanner's batch: many notifications at once, while a user asks as well.

    python -m benchmarks.ia_api.storm --notifications 5000 --seconds 60

Nothing may be lost, the web server's memory stays flat, the user is answered quickly.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text

from benchmarks.ia_api.conditions import conditions
from benchmarks.ia_api.ending import ended_in_order
from tests.pathology_server import PathologyServer, synthetic_slide
from tests.services.ia_api.running_site import Site


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notifications", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60)
    chosen = parser.parse_args()
    names = [f"batch-{number}" for number in range(chosen.notifications)]
    told = conditions()
    with (
        ended_in_order(),
        tempfile.TemporaryDirectory() as folder,
        PathologyServer(keep_requests=1000, latency_s=0.05) as server,
        Site(Path(folder), server) as site,
    ):
        for name in [*names, *(f"user-{number}" for number in range(2000))]:
            server.add(synthetic_slide(name, width=320, height=200))
        site.serve()
        viewer = site.viewer()
        viewer.create("user-0")
        process = psutil.Process(site.web_server.pid)
        memory = [process.memory_info().rss]
        over = threading.Event()
        waits: list[float] = []

        def user() -> None:
            number = 0
            while not over.wait(0.5):
                number += 1
                waits.append(viewer.create(f"user-{number}").seconds)
                memory.append(process.memory_info().rss)

        asking = threading.Thread(target=user)
        asking.start()
        rate = chosen.notifications / chosen.seconds
        answers = viewer.storm(names, per_second=rate)
        over.set()
        asking.join()
        engine = create_engine(f"sqlite:///{site.home}/ia_api/theatrum.sqlite")
        with engine.connect() as connection:
            query = text("SELECT count(*) FROM ia_job WHERE action = 'newImageFiles'")
            kept = connection.execute(query).scalar_one()
        engine.dispose()
    times = sorted(answer.seconds * 1000 for answer in answers)
    waits.sort()
    print(
        json.dumps(
            told
            | {
                "notifications": len(answers),
                "answered_200": sum(answer.status == 200 for answer in answers),
                "jobs_kept": kept,
                "notification_ms_median": round(times[len(times) // 2], 1),
                "notification_ms_p99": round(times[int(len(times) * 0.99)], 1),
                "user_create_ms_max": round(1000 * waits[-1]) if waits else None,
                "users_asked": len(waits),
                "memory_mb": [round(memory[0] / 1e6), round(max(memory) / 1e6)],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
