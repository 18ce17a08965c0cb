"""Our tiles against openslide's Deep Zoom generator: one run, one file, the same tiles.

    python benchmarks/tiles.py [SLIDE] [--tiles N] [--seed S]

The peer is what most slide servers do: `openslide.deepzoom.DeepZoomGenerator` and a
JPEG of quality 75 by Pillow. It gets our grid and no overlap, so that both make the
same tiles; its own defaults (254 pixels, overlap 1) are shown as well. All ways take
turns, in random order, tile by tile, so that noise of the machine falls on all of them;
each way makes each tile once and keeps nothing but what openslide's own cache keeps.

Times are those of the work in the server's process, per tile. The last rows are the
whole of our service over HTTP, by its own `Server-Timing`. Exits with 1 unless a stored
tile is 20 times and a composed tile 2 times as fast as the peer's.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openslide
from openslide.deepzoom import DeepZoomGenerator

from tile_server import running, tokens
from tile_server.address import tiles_url
from tile_server.ladder import Rung
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.service import TileSettings
from tile_server.tokens import Capability
from tile_server.versions import file_version

STORED_AT_LEAST, COMPOSED_AT_LEAST = 20.0, 2.0
_QUALITY = 75

Place = tuple[int, int]


@dataclass
class Way:
    """One way to make a tile, and what it took."""

    name: str
    make: Callable[[Place], bytes]
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    sent_bytes: int = 0

    def run(self, place: Place) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        body = self.make(place)
        self.cpu_ms.append(1000 * (time.thread_time() - cpu))
        self.wall_ms.append(1000 * (time.perf_counter() - wall))
        self.sent_bytes += len(body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path, help="default: the demo slide")
    parser.add_argument("--tiles", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide or _demo_slide(Path(folder))
        path.read_bytes()  # all ways find the file in memory
        return _compare(path, options.tiles, random.Random(options.seed))  # noqa: S311


def _compare(path: Path, count: int, chance: random.Random) -> int:
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        ladder = pyramid.ladder
        print(
            f"{reader.facts.format}, {ladder.rungs[0].width} x {ladder.rungs[0].height}"
            f", tiles of {ladder.tile}, {count} tiles a row\n"
        )
        composed = next((rung for rung in ladder.rungs if rung.level is None), None)
        ratios = []
        for title, rung, places in (
            ("stored tile", ladder.rungs[0], _inner(ladder.rungs[0])),
            ("composed tile", composed, _inner(composed)),
            ("edge tile, first time", ladder.rungs[0], _edge(pyramid)),
        ):
            if rung is None or not places:
                print(f"{title}: this slide has none")
                continue
            chosen = chance.sample(places, min(count, len(places)))
            ratios.append(_race(title, pyramid, rung, chosen, chance))
    _over_http(path, count, chance)
    fast = len(ratios) >= 2 and (
        ratios[0] >= STORED_AT_LEAST and ratios[1] >= COMPOSED_AT_LEAST
    )
    print(
        f"\nstored x {ratios[0]:.0f} (at least {STORED_AT_LEAST:.0f}), "
        f"composed x {ratios[1]:.1f} (at least {COMPOSED_AT_LEAST:.0f}): "
        + ("as promised" if fast else "TOO SLOW")
        if len(ratios) >= 2
        else "\nnot enough to compare"
    )
    return 0 if fast else 1


def _inner(rung: Rung | None) -> list[Place]:
    """The tiles that lie wholly within the picture."""
    if rung is None:
        return []
    return [(x, y) for x in range(rung.columns - 1) for y in range(rung.rows - 1)]


def _edge(pyramid: Pyramid) -> list[Place]:
    """The tiles of level 0 that hold more than picture."""
    rung = pyramid.ladder.rungs[0]
    every = [(x, y) for x in range(rung.columns) for y in range(rung.rows)]
    return [one for one in every if pyramid.stored_tile(rung, *one) is None]


def _race(
    title: str,
    pyramid: Pyramid,
    rung: Rung,
    places: list[Place],
    chance: random.Random,
) -> float:
    """Let all ways make the same tiles; prints a table, gives the ratio to the peer."""
    path, tile = pyramid.reader.path, pyramid.ladder.tile
    ways = [
        Way("ours", lambda place: pyramid.tile(rung, *place).body),
        _deep_zoom(f"Deep Zoom {tile}/0", path, rung, tile, 0, tile),
        _deep_zoom("Deep Zoom 254/1", path, rung, 254, 1, tile),
    ]
    for way in ways:  # first calls load code
        way.make(places[0])
    for place in places:
        for way in chance.sample(ways, len(ways)):
            way.run(place)
    ours = statistics.median(ways[0].wall_ms)
    print(f"{title} (z {pyramid.ladder.z(rung)}, 1/{rung.downsample})")
    print(f"  {'':18}{'median ms':>11}{'p95 ms':>9}{'CPU ms':>9}{'kB':>7}{'x ours':>9}")
    for way in ways:
        median = statistics.median(way.wall_ms)
        p95 = sorted(way.wall_ms)[-1 - len(way.wall_ms) // 20]
        kilobytes = way.sent_bytes / len(places) / 1000
        print(
            f"  {way.name:18}{median:11.4f}{p95:9.4f}"
            f"{statistics.median(way.cpu_ms):9.4f}{kilobytes:7.1f}{median / ours:9.1f}"
        )
    return statistics.median(ways[1].wall_ms) / ours


def _deep_zoom(
    name: str, path: Path, rung: Rung, size: int, overlap: int, ours: int
) -> Way:
    """The peer, with a slide handle and so with a tile cache of its own."""
    generator = DeepZoomGenerator(
        openslide.OpenSlide(str(path)), tile_size=size, overlap=overlap
    )
    level = generator.level_count - 1 - rung.k
    columns, rows = generator.level_tiles[level]

    def make(place: Place) -> bytes:
        x = min(place[0] * ours // size, columns - 1)
        y = min(place[1] * ours // size, rows - 1)
        buffer = io.BytesIO()
        generator.get_tile(level, (x, y)).save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()

    return Way(name, make)


def _over_http(path: Path, count: int, chance: random.Random) -> None:
    """Our service as a whole, one request after another."""
    settings = TileSettings(tokens.new_key())
    sockets = running.listen(0)
    started = threading.Event()
    stops: list[running.Stop] = []

    def on_start(stop: running.Stop) -> None:
        stops.append(stop)
        started.set()

    thread = threading.Thread(
        target=running.run,
        args=(settings, sockets),
        kwargs={"signals": (), "started": on_start},
    )
    thread.start()
    started.wait()
    capability = Capability(str(path), file_version(path), False, 2**33)
    template = tiles_url("/", tokens.seal(settings.key, capability))
    address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}{template}"
    with open_slide(path) as reader:
        ladder = Pyramid(reader).ladder
    spent: dict[str, list[float]] = {}
    try:
        with httpx.Client(trust_env=False) as client:
            for rung in ladder.rungs:
                places = _inner(rung) or [(0, 0)]
                for x, y in chance.sample(places, min(count, len(places))):
                    url = address.format(z=ladder.z(rung), x=x, y=y)
                    timing = client.get(url).headers["server-timing"]
                    kind, total = re.findall(r"^(\w+), total;dur=([\d.]+)", timing)[0]
                    spent.setdefault(kind, []).append(float(total))
    finally:
        stops[0]()
        thread.join()
    print("over HTTP, by Server-Timing (all zooms)")
    for kind, times in sorted(spent.items(), reverse=True):
        p99 = sorted(times)[-1 - len(times) // 100]
        print(
            f"  {kind:18}{statistics.median(times):11.4f} ms median"
            f"{p99:9.3f} ms p99{len(times):7} tiles"
        )


def _demo_slide(folder: Path) -> Path:
    from hub import demo_slide

    path = folder / "demo.svs"
    print("making the demo slide ...", file=sys.stderr)
    demo_slide.build(path, lambda _: None)
    return path


if __name__ == "__main__":
    sys.exit(main())
