"""How long the first tile of a huge slide takes, with nothing of it in memory.

    python ../shared/tools/make_big_slide.py HUGE.svs --width 100000 --height 80000
    python benchmarks/tiles/first_tile.py HUGE.svs [--times N]

The slide gets N names, so that each is opened once by a service that is running; before
each request the file is put out of the system's memory. "known" slides were looked at
by the limited process when the service started, as `serve` does; "unknown" ones are
looked at on the way, as behind a hub. Exits with 1 where a known slide takes 100 ms or
more (median), and prints the memory that all of them take when they are open.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil
import servers

from tile_server import running, tokens
from tile_server.address import tiles_url
from tile_server.service import TileSettings
from tile_server.tokens import Capability
from tile_server.versions import file_version

_WANTED_MS = 100.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("--times", type=int, default=12)
    options = parser.parse_args()
    chance = random.Random(1)  # noqa: S311
    # Beside the slide: the names are links.
    with (
        tempfile.TemporaryDirectory(dir=options.slide.parent) as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        paths = [folder / f"{number}.svs" for number in range(options.times)]
        for path in paths:
            os.link(options.slide, path)
        slide = servers.open_for(options.slide)
        stack.callback(slide.pyramid.reader.close)
        ladder = slide.pyramid.ladder
        full = ladder.rungs[0]
        print(f"{full.width} x {full.height}, {full.columns * full.rows} tiles")

        def one(port: int, template: str) -> float:
            """The first tile, in milliseconds."""
            place = chance.randrange(full.columns - 1), chance.randrange(full.rows - 1)
            address = template.format(z=ladder.z(full), x=place[0], y=place[1])
            servers.forget((options.slide,))
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.connect()
            began = time.perf_counter()
            connection.request("GET", address)
            answer = connection.getresponse()
            body = answer.read()
            spent_ms = 1000 * (time.perf_counter() - began)
            assert answer.status == 200, answer.status
            assert body
            connection.close()
            return spent_ms

        ports, images, pid = stack.enter_context(servers.folder_service(folder))
        process = psutil.Process(pid)
        before = process.memory_full_info().uss
        known = [one(ports["lane"], image["tiles"]) for image in images]
        grown_mb = (process.memory_full_info().uss - before) / 1e6
        with _hub_like(paths) as (port, templates):
            unknown = [one(port, template) for template in templates]
    for title, times in (("known", known), ("unknown", unknown)):
        print(
            f"{title:8} median {statistics.median(times):6.1f} ms"
            f"   longest {max(times):6.1f} ms   of {len(times)}"
        )
    print(f"{len(known)} of it open: {grown_mb:.1f} MB")
    good = statistics.median(known) < _WANTED_MS
    print("as promised" if good else "NOT as promised")
    return 0 if good else 1


@contextmanager
def _hub_like(paths: list[Path]) -> Iterator[tuple[int, list[str]]]:
    """A service that knows slides by their tokens only: its port, and addresses."""
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
    try:
        yield (
            sockets[0].getsockname()[1],
            [
                tiles_url(
                    "/",
                    tokens.seal(
                        settings.key,
                        Capability(str(path), file_version(path), False, 2**33),
                    ),
                )
                for path in paths
            ],
        )
    finally:
        stops[0]()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
