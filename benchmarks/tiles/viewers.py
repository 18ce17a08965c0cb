"""A class that pans: N simulated viewers on one service, for some minutes.

    python benchmarks/tiles/viewers.py [SLIDE] [--viewers 300] [--seconds 300]
        [--slides 10] [--workers 2] [--through lane|ready]

Each viewer looks at one of ten slides through four by three tiles, over six kept
connections as a browser does, and moves every two seconds: mostly a step to a side, at
times to another zoom, so that stored, composed and edge tiles all come up. It starts at
a time of its own. The load is made on the same cores as the service, with as little
work as it takes: answers are counted, not kept.

Prints how long tiles and whole views took, by tenths of the time too (in the first, no
slide is open and no tile made yet), errors, processor time of both sides, and the
memory of all the service's processes over time, with and without the tiles that they
keep on purpose (64 MB each at most); exits with 1 for an error, a p99 of 150 ms or
more, or memory that grew by more than a tenth in the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from array import array
from collections import deque
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
# All connections read into the same buffer, one after another.
_ARRIVALS = memoryview(bytearray(2**16))


@dataclass
class Seen:
    """What all viewers met."""

    tiles_ms: array[float] = field(default_factory=lambda: array("d"))
    views_ms: array[float] = field(default_factory=lambda: array("d"))
    errors: dict[str, int] = field(default_factory=dict)

    def error(self, name: str) -> None:
        self.errors[name] = self.errors.get(name, 0) + 1


class Connection(asyncio.BufferedProtocol):
    """One kept connection of a viewer; asks for the next tile when it has one."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._transport: asyncio.Transport | None = None
        self._began = 0.0
        self._head = b""
        self._missing = -1  # bytes of the answer, once its head is there

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._began:
            self._viewer.seen.error(type(error).__name__ if error else "cut off")
            self._began = 0.0
            self._viewer.one_done()

    def ask(self, request: bytes) -> None:
        assert self._transport is not None
        self._began, self._head, self._missing = time.perf_counter(), b"", -1
        self._transport.write(request)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return _ARRIVALS

    def buffer_updated(self, count: int) -> None:
        if self._missing < 0:
            self._head += _ARRIVALS[:count]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            self._missing = int(head[at + 17 :].split(b"\r\n", 1)[0])
            if head[9:12] != b"200":
                self._viewer.seen.error(head[9:12].decode())
            count = len(self._head) - end - 4
        self._missing -= count
        if self._missing == 0:
            spent_s, self._began = time.perf_counter() - self._began, 0.0
            self._viewer.seen.tiles_ms.append(1000 * spent_s)
            self._viewer.one_done(self)


class Viewer:
    """One person: a place on a slide, and connections."""

    def __init__(
        self,
        port: int,
        template: str,
        ladder: Ladder,
        chance: random.Random,
        seen: Seen,
    ) -> None:
        self.seen = seen
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
        self._connections: list[Connection] = []
        self._waiting: deque[bytes] = deque()
        self._due = 0
        self._done: asyncio.Future[None] | None = None

    def move(self) -> list[bytes]:
        """Go somewhere; the requests for the tiles in view."""
        if self._chance.random() < 0.25:
            self._zoom(self._chance.choice((-1, 1)))
        else:
            self._x += self._chance.randint(-2, 2)
            self._y += self._chance.randint(-2, 2)
        rung = self._ladder.rungs[self._k]
        self._x = min(max(self._x, 0), max(rung.columns - _VIEW[0], 0))
        self._y = min(max(self._y, 0), max(rung.rows - _VIEW[1], 0))
        z = self._ladder.z(rung)
        addresses = (
            self._template.format(z=z, x=x, y=y)
            for y in range(self._y, min(self._y + _VIEW[1], rung.rows))
            for x in range(self._x, min(self._x + _VIEW[0], rung.columns))
        )
        return [
            f"GET {one} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            for one in addresses
        ]

    async def look(self) -> None:
        """Get all tiles of the next view, over as many connections as a browser has."""
        await self._connect()
        began = time.perf_counter()
        self._waiting.extend(self.move())
        self._due = len(self._waiting)
        self._done = asyncio.get_running_loop().create_future()
        for connection in self._connections:
            if self._waiting:
                connection.ask(self._waiting.popleft())
        await self._done
        self.seen.views_ms.append(1000 * (time.perf_counter() - began))

    def one_done(self, connection: Connection | None = None) -> None:
        """A tile is there, or lost; its connection may ask for the next."""
        self._due -= 1
        if connection is not None and self._waiting:
            connection.ask(self._waiting.popleft())
        elif connection is None:
            self._due -= len(self._waiting)
            self._waiting.clear()
        if self._due <= 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def close(self) -> None:
        for connection in self._connections:
            if connection._transport is not None:
                connection._transport.close()

    async def _connect(self) -> None:
        """The service ends a connection that nobody has used for a minute."""
        loop = asyncio.get_running_loop()
        self._connections = [one for one in self._connections if one.is_open]
        while len(self._connections) < _CONNECTIONS:
            _, connection = await loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self._port
            )
            self._connections.append(connection)

    def _zoom(self, step: int) -> None:
        k = min(max(self._k + step, 0), self._coarsest)
        scale = 2.0 ** (self._k - k)
        self._k, self._x, self._y = k, int(self._x * scale), int(self._y * scale)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path, help="default: the demo slide")
    parser.add_argument("--viewers", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--slides", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
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
            servers.folder_service(served, pinned=False, workers=options.workers)
        )
        templates = [image["tiles"] for image in images]
        ladder = slide.pyramid.ladder
        chance = random.Random(options.seed)  # noqa: S311
        seen = Seen()
        viewers = [
            Viewer(
                ports[options.through],
                templates[number % len(templates)],
                ladder,
                random.Random(chance.random()),  # noqa: S311
                seen,
            )
            for number in range(options.viewers)
        ]
        metrics = range(ports["metrics"], ports["metrics"] + options.workers)
        service = Service(psutil.Process(pid), metrics)
        asyncio.run(_class(viewers, options.seconds, service))
        return _report(seen, service, options.seconds)


@dataclass
class Service:
    """The service as seen from outside.

    Attributes
    ----------
    process
        The one that was started; its children are the workers and their probes.
    metrics
        The workers' ports.
    own_mb, kept_mb
        Over time: memory of all processes, and how much of it is kept tiles.
    """

    process: psutil.Process
    metrics: range
    own_mb: list[float] = field(default_factory=list)
    kept_mb: list[float] = field(default_factory=list)

    def look(self) -> None:
        every = [self.process, *self.process.children(recursive=True)]
        self.own_mb.append(sum(one.memory_full_info().uss for one in every) / 1e6)
        self.kept_mb.append(sum(map(servers.kept_bytes, self.metrics)) / 1e6)

    def cpu_s(self) -> float:
        every = [self.process, *self.process.children(recursive=True)]
        return sum(one.cpu_times().user + one.cpu_times().system for one in every)


async def _class(viewers: list[Viewer], seconds: float, service: Service) -> None:
    """Let all look until the time is over, and watch the service meanwhile."""
    ends = time.monotonic() + seconds

    async def one(viewer: Viewer, late_s: float) -> None:
        await asyncio.sleep(late_s)
        while time.monotonic() < ends:
            began = time.monotonic()
            await viewer.look()
            await asyncio.sleep(max(_PAUSE_S - (time.monotonic() - began), 0))
        viewer.close()

    async def watch() -> None:
        while time.monotonic() < ends:
            # In a thread: reading the memory's map takes a while.
            await asyncio.to_thread(service.look)
            await asyncio.sleep(seconds / 20)

    late = _PAUSE_S / len(viewers)
    await asyncio.gather(
        watch(), *(one(viewer, late * n) for n, viewer in enumerate(viewers))
    )


def _report(seen: Seen, service: Service, seconds: float) -> int:
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
    load = sum(os.times()[:2])
    print(f"cores: service {service.cpu_s() / seconds:.2f}, load {load / seconds:.2f}")
    tenths = [
        sorted(
            seen.tiles_ms[len(seen.tiles_ms) * n // 10 :][: len(seen.tiles_ms) // 10]
        )
        for n in range(10)
    ]
    by_tenth = (one[int(len(one) * 0.99)] for one in tenths)
    print("p99 by tenths (ms) " + " ".join(f"{one:.0f}" for one in by_tenth))
    both = zip(service.own_mb, service.kept_mb, strict=True)
    own = [everything - kept for everything, kept in both]
    for title, sizes in (
        ("all", service.own_mb),
        ("kept", service.kept_mb),
        ("rest", own),
    ):
        print(f"memory, {title} (MB) " + " ".join(f"{one:.0f}" for one in sizes))
    grown = own[-1] / own[len(own) // 2]
    good = not seen.errors and tiles_p99 < _P99_MS and grown < _GROWTH
    print("as promised" if good else "NOT as promised")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
