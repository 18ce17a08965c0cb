"""A class that pans: N simulated viewers on one service, for some minutes.

    python benchmarks/tiles/viewers.py [SLIDE] [--viewers 300] [--seconds 300]

Each viewer looks at one of ten slides through four by three tiles, over six kept
connections as a browser does, and moves every two seconds: mostly a step to a side, at
times to another zoom, so that stored, composed and edge tiles all come up. It starts at
a time of its own. Prints how long tiles and whole views took, errors, and the service's
memory over time, less the tiles that it keeps on purpose (64 MB at most); exits with 1
for an error, a p99 of 150 ms or more, or memory that grew by more than a tenth in the
second half.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import servers
from peers import slide_for

from tile_server.ladder import Ladder

_CONNECTIONS = 6
_VIEW = (4, 3)
_PAUSE_S = 2.0
_P99_MS = 150.0
_GROWTH = 1.1


@dataclass
class Seen:
    """What all viewers met."""

    tiles_ms: list[float] = field(default_factory=list)
    views_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def error(self, name: str) -> None:
        self.errors[name] = self.errors.get(name, 0) + 1


class Viewer:
    """One person: a place on a slide, and connections."""

    def __init__(
        self, port: int, template: str, ladder: Ladder, chance: random.Random
    ) -> None:
        self._port, self._template, self._ladder = port, template, ladder
        self._chance = chance
        # As coarse as still fills the window.
        self._coarsest = max(
            rung.k
            for rung in ladder.rungs
            if rung.k == 0 or (rung.columns >= _VIEW[0] and rung.rows >= _VIEW[1])
        )
        self._k = chance.randint(0, self._coarsest)
        rung = ladder.rungs[self._k]
        self._x, self._y = chance.randrange(rung.columns), chance.randrange(rung.rows)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def move(self) -> list[str]:
        """Go somewhere; the addresses of the tiles in view."""
        if self._chance.random() < 0.25:
            self._zoom(self._chance.choice((-1, 1)))
        else:
            self._x += self._chance.randint(-2, 2)
            self._y += self._chance.randint(-2, 2)
        rung = self._ladder.rungs[self._k]
        self._x = min(max(self._x, 0), max(rung.columns - _VIEW[0], 0))
        self._y = min(max(self._y, 0), max(rung.rows - _VIEW[1], 0))
        z = self._ladder.z(rung)
        return [
            self._template.format(z=z, x=x, y=y)
            for y in range(self._y, min(self._y + _VIEW[1], rung.rows))
            for x in range(self._x, min(self._x + _VIEW[0], rung.columns))
        ]

    async def look(self, addresses: list[str], seen: Seen) -> None:
        """Get all tiles, over as many connections as a browser has."""
        began = time.perf_counter()
        waiting = list(reversed(addresses))

        async def take_turns() -> None:
            while waiting:
                await self._get(waiting.pop(), seen)

        await asyncio.gather(*(take_turns() for _ in range(_CONNECTIONS)))
        seen.views_ms.append(1000 * (time.perf_counter() - began))

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()

    def _zoom(self, step: int) -> None:
        k = min(max(self._k + step, 0), self._coarsest)
        scale = 2.0 ** (self._k - k)
        self._k, self._x, self._y = k, int(self._x * scale), int(self._y * scale)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that is kept and still open, as far as can be known, or a new one."""
        while self._idle:
            reader, writer = self._idle.pop()
            # The service ends a connection that nobody has used for a minute.
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _get(self, address: str, seen: Seen) -> None:
        began = time.perf_counter()
        try:
            reader, writer = await self._connection()
            writer.write(f"GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            at = lower.index(b"\r\ncontent-length:") + 17
            await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
        except (OSError, EOFError, ValueError) as error:
            seen.error(type(error).__name__)
            return
        status = head.split(b" ", 2)[1]
        if status != b"200":
            seen.error(status.decode())
        seen.tiles_ms.append(1000 * (time.perf_counter() - began))
        self._idle.append((reader, writer))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path, help="default: the demo slide")
    parser.add_argument("--viewers", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--slides", type=int, default=10)
    parser.add_argument("--through", choices=("lane", "ready"), default="lane")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        slide = servers.open_for(slide_for(options.slide, folder))
        stack.callback(slide.pyramid.reader.close)
        served = folder / "served"
        served.mkdir()
        for number in range(options.slides):
            os.link(slide.path, served / f"{number}.svs")
        ports, images, pid = stack.enter_context(
            servers.folder_service(served, pinned=False)
        )
        templates = [image["tiles"] for image in images]
        ladder = slide.pyramid.ladder
        chance = random.Random(options.seed)  # noqa: S311
        viewers = [
            Viewer(
                ports[options.through],
                templates[number % len(templates)],
                ladder,
                random.Random(chance.random()),  # noqa: S311
            )
            for number in range(options.viewers)
        ]
        seen = Seen()
        watched = pid, ports["metrics"]
        memory = asyncio.run(_class(viewers, seen, options.seconds, watched))
    return _report(seen, memory)


async def _class(
    viewers: list[Viewer], seen: Seen, seconds: float, watched: tuple[int, int]
) -> list[float]:
    """Let all look until the time is over; gives the service's memory meanwhile."""
    ends = time.monotonic() + seconds
    pid, metrics_port = watched
    service = psutil.Process(pid)
    memory: list[float] = []

    async def one(viewer: Viewer, late_s: float) -> None:
        await asyncio.sleep(late_s)
        while time.monotonic() < ends:
            began = time.monotonic()
            await viewer.look(viewer.move(), seen)
            await asyncio.sleep(max(_PAUSE_S - (time.monotonic() - began), 0))
        await viewer.close()

    async def watch() -> None:
        while time.monotonic() < ends:
            own = service.memory_full_info().uss
            memory.append((own - servers.kept_bytes(metrics_port)) / 1e6)
            await asyncio.sleep(seconds / 20)

    late = _PAUSE_S / len(viewers)
    await asyncio.gather(
        watch(), *(one(viewer, late * n) for n, viewer in enumerate(viewers))
    )
    return memory


def _report(seen: Seen, memory: list[float]) -> int:
    for name, times in (("tiles", seen.tiles_ms), ("views", seen.views_ms)):
        ordered = sorted(times)
        p50, p95, p99 = (
            ordered[int(len(ordered) * share)] for share in (0.5, 0.95, 0.99)
        )
        print(
            f"{name:6}{len(ordered):9}   p50 {p50:7.1f} ms   p95 {p95:7.1f} ms"
            f"   p99 {p99:7.1f} ms   longest {ordered[-1]:7.1f} ms"
        )
    tiles_p99 = sorted(seen.tiles_ms)[int(len(seen.tiles_ms) * 0.99)]
    print(f"errors {seen.errors or 'none'}")
    print(
        "memory (own, less kept tiles, MB) " + " ".join(f"{one:.0f}" for one in memory)
    )
    grown = memory[-1] / memory[len(memory) // 2]
    good = not seen.errors and tiles_p99 < _P99_MS and grown < _GROWTH
    print("as promised" if good else "NOT as promised")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
