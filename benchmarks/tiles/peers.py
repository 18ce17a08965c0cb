"""Our tiles against those of other servers: one run, one slide, the same requests.

    python benchmarks/tiles/peers.py [SLIDE] [--rounds N] [--seconds N]

Every round gives each server one slice with the same trace, in turns, so that noise of
the machine falls on all of them; ratios are taken within a round. Servers share the
first core, the load (wrk) has the second; all of it is on loopback and ends by itself.
"cold" draws from all tiles of level 0, out of the system's memory at the start of the
slice; "hot" draws from 200. Composed tiles are those of the first level not stored.

Peers that are not installed are skipped by name. PEERS_PYTHON names a Python that has
gunicorn, openslide-python and large_image; IIPSRV another iipsrv than Debian's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
from servers import Missing, Place, Target

from tile_server.ladder import Rung

HERE = Path(__file__).resolve().parent
_HOT_TILES = 200
_LONGEST_TRACE = 20_000


@dataclass(frozen=True)
class Race:
    """One row of slices."""

    title: str
    rung: Rung
    places: list[Place]
    connections: int
    cold: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path, help="default: the demo slide")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1, help="of a slice")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is missing (Debian: wrk): nothing can make the load")
        return 2
    chance = random.Random(options.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        slide = servers.open_for(slide_for(options.slide, folder))
        stack.callback(slide.pyramid.reader.close)
        rungs = slide.pyramid.ladder.rungs
        stored, full = _inner(rungs[0]), rungs[0]
        composed = next((rung for rung in rungs if rung.level is None), None)
        targets: list[Target] = []
        for start in (
            lambda: servers.ours(slide, folder),
            lambda: servers.static_files(slide, folder, full, stored),
            lambda: servers.iipsrv(slide, folder),
            lambda: servers.large_image(slide, folder),
            lambda: servers.deep_zoom(slide, folder, size=slide.tile, overlap=0),
            lambda: servers.deep_zoom(slide, folder, size=254, overlap=1),
        ):
            try:
                found = stack.enter_context(start())
                for target in found:
                    size = servers.check(target, full, stored[len(stored) // 2])
                    print(f"{target.name}: {size} bytes for the same tile")
                targets += found
            except Missing as error:
                print(f"skipped: {error}")
        hot = chance.sample(stored, min(_HOT_TILES, len(stored)))
        for cold in (True, False):
            for connections in (1, 8, 64):
                title = f"stored, {'cold' if cold else 'hot'}, {connections} at once"
                places = stored if cold else hot
                race = Race(title, full, places, connections, cold)
                _run(race, targets, options, chance, folder)
        if composed is not None:
            # Once, and through one of our ports: what we have made we keep.
            unable = ("nginx, static files", "iipsrv", "our Tornado")
            able = [one for one in targets if one.name not in unable]
            title = "composed, first time, 8 at once"
            options.rounds = 1
            race = Race(title, composed, _inner(composed), 8, cold=True)
            _run(race, able, options, chance, folder)
        print("\nmemory (proportional share, MB)")
        for target in targets:
            print(f"  {target.name:26}{_memory_mb(target):8.0f}")
    return 0


def _run(
    race: Race,
    targets: list[Target],
    options: argparse.Namespace,
    chance: random.Random,
    folder: Path,
) -> None:
    """All rounds of one race, and its table."""
    slices: dict[str, list[dict[str, Any]]] = {one.name: [] for one in targets}
    for turn in range(options.rounds):
        count = _LONGEST_TRACE if race.cold else 5 * len(race.places)
        order = [chance.choice(race.places) for _ in range(count)]
        for target in targets[turn % len(targets) :] + targets[: turn % len(targets)]:
            found = _slice(race, target, order, options.seconds, folder)
            slices[target.name].append(found)
    base = [one["rate"] for one in slices[targets[0].name]]
    print(f"\n{race.title} (medians of {options.rounds} rounds)")
    print(
        f"  {'':26}{'tiles/s':>9}{'ours is x':>11}{'p50 ms':>9}{'p95 ms':>9}"
        f"{'p99 ms':>9}{'CPU us':>9}{'kB':>6}{'errors':>8}"
    )
    for name, rounds in slices.items():

        def middle(key: str, rounds: list[dict[str, Any]] = rounds) -> float:
            return statistics.median(one[key] for one in rounds)

        ratio = statistics.median(
            mine / one["rate"] for mine, one in zip(base, rounds, strict=True)
        )
        print(
            f"  {name:26}{middle('rate'):9.0f}{ratio:11.2f}{middle('p50_ms'):9.2f}"
            f"{middle('p95_ms'):9.2f}{middle('p99_ms'):9.2f}{middle('cpu_us'):9.1f}"
            f"{middle('kilobytes'):6.1f}{sum(one['errors'] for one in rounds):8}",
            flush=True,
        )


def _slice(
    race: Race, target: Target, order: list[Place], seconds: int, folder: Path
) -> dict[str, Any]:
    """One server for some seconds."""
    trace = folder / "trace"
    paths = (target.address(race.rung, place) for place in order)
    trace.write_text("\n".join(paths) + "\n")
    if race.cold:
        servers.forget(target.files)
    before = _cpu_s(target)
    pinned = ["taskset", "-c", "1"] if (os.cpu_count() or 1) > 1 else []
    load = ["wrk", "-t1", f"-c{race.connections}", f"-d{seconds}s", "--timeout", "10s"]
    ran = subprocess.run(
        [*pinned, *load, "-s", "trace.lua", f"http://127.0.0.1:{target.port}"],
        cwd=HERE,
        env={**os.environ, "TRACE": str(trace)},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    tiles = max(found["tiles"], 1)
    found["rate"] = tiles / found["seconds"]
    found["cpu_us"] = 1e6 * (_cpu_s(target) - before) / tiles
    found["kilobytes"] = found["bytes"] / tiles / 1000
    return found


def _cpu_s(target: Target) -> float:
    times = (process.cpu_times() for process in servers.processes(target))
    return sum(one.user + one.system for one in times)


def _memory_mb(target: Target) -> float:
    every = (process.memory_full_info() for process in servers.processes(target))
    return sum(getattr(one, "pss", one.rss) for one in every) / 1e6


def _inner(rung: Rung) -> list[Place]:
    """The tiles that lie wholly within the picture."""
    return [(x, y) for x in range(rung.columns - 1) for y in range(rung.rows - 1)]


def slide_for(named: Path | None, folder: Path) -> Path:
    """A copy of the slide that may be linked and evicted."""
    path = folder / "slide.svs"
    if named is not None:
        shutil.copyfile(named, path)
    else:
        from hub import demo_slide

        print("making the demo slide ...", file=sys.stderr)
        demo_slide.build(path, lambda _: None)
    return path


if __name__ == "__main__":
    sys.exit(main())
