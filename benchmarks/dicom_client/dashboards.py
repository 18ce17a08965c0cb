"""Many series wait, many dashboards are open: is it still live, quick, and flat.

    python -m benchmarks.dicom_client.dashboards [--series 200] [--browsers 25]

A web server and a worker, each a process, hold 200 series at a segmentation server that
never finishes. Each browser does what the page's script does: it keeps the feed of
server-sent events open and asks for the list again when a change comes, at most every
0.8 s, telling what it shows already; a fifth of them look at one series instead. A
planner pauses series and lets them go on, of which every browser has to hear. Prints
one JSON object; the exit status is 1 where an event was lost, where half of the pages
took longer than 0.5 s, or where the web server's memory grew by over 5 % from the
second quarter of the time to the last: threads, their arenas and the database's
connections fill within the first minute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.dicom_client.watchman import guarded_folder
from tests.draw_server import DrawServer
from tests.services.dicom_client.client_site import Site, patient_series, wait

SPACING_S = 0.8
WARM_UP_S = 20.0
PERIOD_S = 20
"""Memory is told for each of these."""
_MIB = 1 << 20


class Browser:
    """One open page, with its own session and connections."""

    def __init__(self, address: str, token: str, page: str, follows: str) -> None:
        self._http = httpx.AsyncClient(base_url=address, timeout=60)
        self._token, self._page, self._follows = token, page, follows
        self._seen = ""
        self._changed = asyncio.Event()
        self.heard: dict[int, float] = {}
        """Seconds from each event to its arrival."""
        self.shown: list[float] = []
        """Seconds that each page took."""
        self.bytes = 0

    async def look(self) -> None:
        """Until cancelled."""
        async with self._http:
            answer = await self._http.post("/login", data={"token": self._token})
            assert answer.status_code == 303, answer.status_code
            await self._show(as_script=False)
            await asyncio.gather(self._hear(), self._follow())

    async def _hear(self) -> None:
        async with self._http.stream("GET", "/api/feed", timeout=None) as feed:
            assert feed.status_code == 200
            async for line in feed.aiter_lines():
                if not line.startswith("data: "):
                    continue
                change = json.loads(line.removeprefix("data: "))
                if "event" in change:
                    self.heard[change["event"]] = time.time() - change["at"]
                    if self._follows in {"*", change["id"]}:
                        self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._show(as_script=True)
            await asyncio.sleep(SPACING_S)

    async def _show(self, *, as_script: bool) -> None:
        began = time.perf_counter()
        answer = await self._http.get(
            self._page,
            params={"seen": self._seen} if as_script else None,
            headers={"HX-Request": "true"} if as_script else {},
        )
        self.shown.append(time.perf_counter() - began)
        assert answer.status_code in {200, 204}, (self._page, answer.status_code)
        self.bytes += len(answer.content)
        if found := re.search(r'data-digest="(\w+)"', answer.text):
            self._seen = found[1]


async def _measured(
    site: Site, web: psutil.Process, wanted: argparse.Namespace
) -> dict[str, Any]:
    token = (site.home / "dicom_client" / "access-token").read_text().strip()
    ids = [one["id"] for one in site.series()]
    browsers = [
        Browser(site.url, token, f"/series/{ids[number]}", ids[number])
        if number % 5 == 4
        else Browser(site.url, token, "/", "*")
        for number in range(wanted.browsers)
    ]
    looking = [asyncio.create_task(one.look()) for one in browsers]
    await asyncio.sleep(WARM_UP_S)
    for one in browsers:
        one.heard.clear()
        one.shown.clear()
    memory, processor = [], web.cpu_times()
    began = time.monotonic()
    chooses = random.Random(7)  # noqa: S311 - which series, no secret
    acts = 0
    headers = {"Authorization": f"token {token}"}
    async with httpx.AsyncClient(base_url=site.url, headers=headers) as planner:
        while time.monotonic() < began + wanted.seconds:
            chosen = chooses.choice(ids)
            for act in ("pause", "resume"):
                path = f"/api/series/{chosen}/{act}"
                answer = await planner.post(path, timeout=60)
                acts += answer.is_success
                await asyncio.sleep(0.5 / wanted.changes)
            memory.append((time.monotonic() - began, web.memory_info().rss / _MIB))
            for task in looking:
                if task.done():
                    task.result()
    took_s = time.monotonic() - began
    await asyncio.sleep(3)
    used = web.cpu_times()
    for task in looking:
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
    everything = set().union(*(one.heard for one in browsers))
    delays = [delay for one in browsers for delay in one.heard.values()]
    shown = [took for one in browsers for took in one.shown]
    second = _median(memory, took_s / 4, took_s / 2)
    last = _median(memory, took_s * 3 / 4, took_s)
    return {
        "series_waiting": len(ids),
        "browsers": len(browsers),
        "seconds": round(took_s),
        "changes_made": acts,
        "changes_told": len(everything),
        "changes_missed": sum(len(everything - set(one.heard)) for one in browsers),
        "change_to_browser_s": _spread(delays),
        "pages_shown": len(shown),
        "page_s": _spread(shown),
        "page_kb": round(sum(one.bytes for one in browsers) / len(shown) / 1000, 1),
        "memory_mib": [
            _median(memory, at, at + PERIOD_S) for at in range(0, int(took_s), PERIOD_S)
        ],
        "memory_growth": round(last / second - 1, 3),
        "processor_share": round(
            (used.user + used.system - processor.user - processor.system) / took_s, 2
        ),
    }


def _median(memory: list[tuple[float, float]], since: float, until: float) -> float:
    """Of the web server's memory in a part of the time, in MiB."""
    within = [mib for at, mib in memory if since <= at < until] or [memory[-1][1]]
    return round(statistics.median(within), 1)


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"p50": 0.5, "p99": 0.99, "most": 1.0}
    return {
        name: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)
        for name, share in at.items()
    }


def _run(folder: Path, wanted: argparse.Namespace) -> dict[str, Any]:
    settings = {"poll_s": [2.0, 5.0], "jobs_per_worker": 4, "stable_s": 2.0}
    with DrawServer() as server, Site(folder, server, **settings) as site:
        server.script(status_stuck=True)
        web = psutil.Process(site.serve().pid)
        site.set_up()
        for number in range(wanted.series):
            site.drop(patient_series(), f"case-{number}")
        site.worker()
        wait(
            lambda: (
                site.ask("GET", "statistics")["states"]["processing"] == wanted.series
            ),
            "all series wait at the server",
            600,
        )
        return asyncio.run(_measured(site, web, wanted))


def main() -> int:
    """Run, tell, judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--browsers", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--changes", type=float, default=2.0, help="each second")
    with guarded_folder() as folder:
        told = _run(folder, parser.parse_args())
    print(json.dumps(told, indent=2))
    live = told["changes_missed"] == 0 and told["changes_told"] >= told["changes_made"]
    quick = told["page_s"]["p50"] <= 0.5
    return 0 if live and quick and told["memory_growth"] <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
