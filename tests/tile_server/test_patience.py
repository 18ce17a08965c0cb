"""Long work ends when nobody waits for it, or when its time is over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import stacks
from tests.tile_server.conftest import serve
from tests.tile_server.lane_client import Conversation, ask, connect, request
from tests.tile_server.test_flights import eventually
from tile_server import patience, running, tokens
from tile_server.derived import DerivedTiles
from tile_server.errors import Abandoned, TookTooLong
from tile_server.flights import Flights, Queue
from tile_server.patience import Patience
from tile_server.pyramid import JPEG, Pyramid, Tile
from tile_server.readers.chunks import ChunkedPlanes
from tile_server.readers.planes import Channel, Plane, PlaneFacts
from tile_server.readers.protocol import Level, SlideFacts
from tile_server.readers.rendering import Rendered
from tile_server.readers.style import Style
from tile_server.service import TileSettings
from tile_server.slides import OpenedSlide

DEPTHS = 1000


class Stack:
    """A stack of very many depths, which counts those that are read."""

    def __init__(self, gate: threading.Event) -> None:
        self.read: list[int] = []
        self.began = threading.Event()
        self._gate = gate

    def chunk(self, _: int, plane: Plane, t_x: int, t_y: int) -> npt.NDArray[Any]:
        self.read.append(plane.z)
        self.began.set()
        assert self._gate.wait(10)
        return np.full((32, 32), plane.z % 200 + t_x + t_y, np.uint8)

    def projected(self) -> Rendered:
        planes = ChunkedPlanes(
            path=Path("made.tiff"),
            levels=(Level(32, 32, 32, 32, encoded=False),),
            facts=SlideFacts("made", None, None, None, (0, 0, 0), ()),
            planes=PlaneFacts(
                (Channel("", (255, 255, 255), (0.0, 255.0)),), DEPTHS, 1, "uint8"
            ),
            chunk=self.chunk,
            release=lambda: None,
        )
        return Rendered(planes, Style(projection=True))


def projecting(
    limit_s: float, story: Callable[[Stack, Callable[[], Any]], Any]
) -> Stack:
    """Run `story` with a stack that waits, and a way to ask for its projection."""
    gate = threading.Event()
    stack = Stack(gate)
    shown = stack.projected()

    async def told() -> None:
        threads = ThreadPoolExecutor(1)
        flights: Flights[bytes] = Flights(
            threads, threading.Event(), Queue(limit_s=limit_s)
        )
        slide = OpenedSlide(("made", "v"), Pyramid(shown))

        async def ask() -> bytes:
            return await flights.join(
                "a", slide, lambda: shown.read(0, 0, 0, (32, 32)).tobytes()
            )

        visit = asyncio.ensure_future(ask())
        await eventually(stack.began.is_set)
        await story(stack, visit)
        gate.set()
        await asyncio.to_thread(threads.shutdown)

    asyncio.run(told())
    return stack


def test_a_projection_ends_when_its_visitor_goes() -> None:
    async def story(_: Stack, visit: asyncio.Future[bytes]) -> None:
        visit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visit

    # One depth was under way, and perhaps the next had begun.
    assert len(projecting(30.0, story).read) <= 2


def test_a_projection_ends_when_its_time_is_over() -> None:
    async def story(_: Stack, visit: asyncio.Future[bytes]) -> None:
        with pytest.raises(TookTooLong):
            await visit

    assert len(projecting(0.05, story).read) <= 2


def test_a_projection_that_is_waited_for_reads_every_depth() -> None:
    gate = threading.Event()
    gate.set()
    stack = Stack(gate)
    seen = stack.projected().read(0, 0, 0, (32, 32))
    assert stack.read == list(range(DEPTHS))
    assert (seen == 199).all()


def test_work_is_over_when_its_time_is_whoever_waits() -> None:
    short = Patience(0.0)
    with short.working():
        began = time.monotonic()
        while time.monotonic() <= began:
            continue
        with pytest.raises(TookTooLong):
            patience.check()
    patience.check()


def test_patience_is_that_of_the_thread_that_works() -> None:
    mine, other = Patience(30.0), Patience(30.0)
    other.end()
    with mine.working():
        patience.check()
        with pytest.raises(Abandoned), other.working():
            patience.check()
        patience.check()


def test_a_tile_that_one_gives_up_is_made_for_the_other_who_waits(
    tmp_path: Path,
) -> None:
    store = DerivedTiles(tmp_path, disk_bytes=2**20, memory_bytes=2**20)
    began, gave_up, first = threading.Event(), threading.Event(), Patience(30.0)

    def never() -> Tile:
        began.set()
        assert gave_up.wait(10)
        patience.check()
        raise AssertionError("the work should have ended")

    def make() -> Tile:
        return Tile(b"made", JPEG)

    def abandoned() -> None:
        with first.working(), pytest.raises(Abandoned):
            store.tile("key", never)

    def waiting() -> Tile:
        with Patience(30.0).working():
            return store.tile("key", make)

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(abandoned)
        assert began.wait(10)
        other = threads.submit(waiting)
        first.end()
        gave_up.set()
        one.result(10)
        assert other.result(10).body == b"made"
    store.close()


@pytest.mark.parametrize("port", ["plain", "lane"])
def test_a_browser_that_leaves_frees_the_processors(tmp_path: Path, port: str) -> None:
    spec = stacks.StackSpec(width=200, height=200, depths=400, dtype="uint8")
    path = stacks.write_ome_tiff(tmp_path / "deep.ome.tiff", spec)
    lane, watched = running.listen(0), running.listen(0)
    besides = running.Besides(lane=lane, metrics=watched)
    metrics = watched[0].getsockname()[1]
    for server in serve(TileSettings(tokens.new_key()), besides=besides):
        token = server.seal(path)
        view = server.get(token, "view.json").json()
        assert view["z"] == 400
        plain = server.client.base_url.port
        assert plain is not None
        number = plain if port == "plain" else lane[0].getsockname()[1]
        style = "%7B%22projection%22%3A%22max%22%7D"
        with Conversation(connect(number)) as talk:
            talk.send(request(f"/s/{token}/0/0/0?style={style}"))
            deadline = time.monotonic() + 20
            while under_way(metrics) == 0:
                assert time.monotonic() < deadline
        left = time.monotonic()
        while under_way(metrics) > 0:
            assert time.monotonic() - left < 5
        # And whoever comes then gets it.
        answer = server.get(token, f"0/0/0?style={style}")
        assert answer.status_code == 200
        assert answer.headers["server-timing"].startswith("made")


def under_way(port: int) -> float:
    text = ask(port, request("/metrics")).body.decode()
    lines = [line for line in text.splitlines() if "_work_under_way " in line]
    return float(lines[-1].split()[1])
