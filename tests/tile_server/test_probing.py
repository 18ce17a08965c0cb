"""Files are opened by another process first: it falls, and the service goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import slides
from tests.tile_server.conftest import SPECS, serve
from tile_server import tokens
from tile_server.errors import Stopped, UnreadableSlide
from tile_server.probing import Prober, ProbeSettings
from tile_server.readers import open_slide
from tile_server.service import TileSettings
from tile_server.versions import file_version
from tile_server.view import describe


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober(ProbeSettings(workers=1)) as prober:
        yield prober


def workers() -> set[int]:
    """Our child processes that look at files."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    if not children.exists():
        pytest.skip("this system does not list child processes")
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"probe_worker" in command:
                found.add(int(child))
    return found


@pytest.mark.parametrize("name", SPECS)
def test_a_worker_sees_what_the_service_will_see(
    prober: Prober, made_slides: dict[str, Path], name: str
) -> None:
    path = made_slides[name]
    with open_slide(path) as reader:
        assert prober.probe(path, file_version(path)).view == describe(reader)


def test_a_refusal_has_the_reason_of_the_reader(prober: Prober, tmp_path: Path) -> None:
    path = tmp_path / "odd.svs"
    path.write_bytes(b"no slide at all")
    with pytest.raises(UnreadableSlide, match=r"^odd\.svs is not a slide"):
        prober.probe(path, file_version(path))
    with pytest.raises(UnreadableSlide, match=r"^gone\.svs is not there"):
        prober.probe(tmp_path / "gone.svs", "1")


def test_a_file_is_probed_once_per_version(
    prober: Prober, made_slides: dict[str, Path]
) -> None:
    path = made_slides["single"]
    first = prober.probe(path, "1")
    assert prober.probe(path, "1") is first
    assert prober.probe(path, "2") is not first


def test_a_file_that_hangs_is_refused_in_time_and_the_next_one_is_served(
    made_slides: dict[str, Path],
) -> None:
    path = made_slides["ycbcr"]
    with Prober(ProbeSettings(seconds=1.0, workers=1)) as prober:
        before = workers()
        prober.probe(path, "1")
        (own,) = workers() - before
        # A process that is held hangs like a library in a loop.
        os.kill(own, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(UnreadableSlide, match="not open after 1 seconds"):
            prober.probe(path, "2")
        assert time.monotonic() - started < 5
        assert prober.probe(path, "3").view["width"] == 1000


def test_a_worker_that_crashes_is_replaced(made_slides: dict[str, Path]) -> None:
    path = made_slides["ycbcr"]
    with Prober(ProbeSettings(workers=1)) as prober:
        before = workers()
        prober.probe(path, "1")
        (own,) = workers() - before
        os.kill(own, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            probing = pool.submit(prober.probe, path, "2")
            os.kill(own, signal.SIGSEGV)
            os.kill(own, signal.SIGCONT)
            failure = probing.exception()
        # It may have fallen before it was asked; then another one was.
        assert failure is None or "crashed" in str(failure) or "ended" in str(failure)
        assert workers() - before != {own}
        assert prober.probe(path, "3").view["width"] == 1000


def test_a_file_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    # One tile of 48 MB, in a file of some kilobytes.
    spec = slides.SlideSpec(300, 300, (1,), tile=4096, codec="deflate", aperio=False)
    path = slides.write_slide(tmp_path / "one.svs", spec)
    with (
        Prober(ProbeSettings(memory_bytes=64 * 2**20, workers=1)) as prober,
        pytest.raises(UnreadableSlide, match=r"^one\.svs "),
    ):
        prober.probe(path, "1")


def test_closing_ends_all_workers_and_refuses_what_they_look_at(
    made_slides: dict[str, Path],
) -> None:
    path = made_slides["ycbcr"]
    before = workers()
    prober = Prober(ProbeSettings(workers=1))
    prober.probe(path, "1")
    (own,) = workers() - before
    os.kill(own, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(prober.probe, path, "2")
        started = time.monotonic()
        prober.close()
        with pytest.raises(Stopped):
            probing.result()
    assert time.monotonic() - started < 2
    assert workers() <= before
    with pytest.raises(Stopped):
        prober.probe(path, "3")


def test_a_hanging_file_does_not_stop_the_service(
    made_slides: dict[str, Path],
) -> None:
    settings = TileSettings(
        tokens.new_key(), probe=ProbeSettings(seconds=1.0, workers=1)
    )
    before = workers()
    for server in serve(settings):
        first = server.get(server.seal(made_slides["ycbcr"]), "view.json")
        assert first.status_code == 200
        (own,) = workers() - before
        os.kill(own, signal.SIGSTOP)
        hanging = server.get(server.seal(made_slides["single"]), "view.json")
        assert hanging.status_code == 422
        assert "not open after 1 seconds" in hanging.json()["detail"]
        answer = server.get(server.seal(made_slides["rgb_odd"]), "0/0/0")
        assert answer.status_code == 200


def test_a_pipe_is_no_slide(prober: Prober, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(UnreadableSlide, match=r"^pipe\.svs "):
        prober.probe(tmp_path / "pipe.svs", file_version(tmp_path / "pipe.svs"))
