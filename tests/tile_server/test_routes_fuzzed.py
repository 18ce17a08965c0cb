"""Any request to any route is answered: in time, in good form, never with a 500.

The lane's port and the application's give the same answer to each. The `fuzz` test does
it with very many more requests.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import slides, stacks
from tests.dicom_slides import COLOUR, DicomSpec, write_dicom_slide
from tests.tile_server.conftest import Server, serve
from tests.tile_server.lane_client import Answer, Conversation, connect, without_time
from tests.tile_server.random_requests import requests, routes_of
from tests.tile_server.test_icc import PROFILE, write_tiff
from tile_server import problems, running, tokens
from tile_server.application import make_application
from tile_server.folder import SlideFolder, folder_routes
from tile_server.probing import Prober
from tile_server.service import TileService, TileSettings

_SLOW_S = 5.0
_BASE = "/services/tiles/"
_CASES = int(os.environ.get("FUZZ_CASES", "60000"))


def _write_images(folder: Path) -> dict[str, Path]:
    """One small image of each kind that has code of its own in the routes."""
    stack = stacks.StackSpec(width=300, height=200, channels=2, depths=3, levels=2)
    scan = replace(stack, channels=1, levels=1, dtype="int16")
    dicom = DicomSpec(**vars(COLOUR["full"]) | {"width": 300, "height": 200})
    series = folder / "series"
    series.mkdir()
    return {
        "svs": slides.write_slide(folder / "slide.svs", slides.YCBCR),
        "odd": slides.write_slide(folder / "odd.tiff", slides.RGB_ODD),
        "deflate": slides.write_slide(folder / "deflate.tiff", slides.DEFLATE),
        "profile": write_tiff(folder / "profile.tiff", PROFILE),
        "stack": stacks.write_ome_tiff(folder / "stack.ome.tiff", stack),
        "scan": stacks.write_nifti(folder / "scan.nii", scan),
        "zarr": stacks.write_zarr(folder / "cells.ome.zarr", stack),
        "dicom": write_dicom_slide(series, dicom),
    }


@dataclass
class Place:
    """A service at two ports, an open connection to each, and what to ask."""

    server: Server
    ports: tuple[int, int]
    strategy: st.SearchStrategy[bytes]
    talks: dict[int, Conversation]

    def ask(self, port: int, raw: bytes) -> Answer:
        """The answer at a port, over the connection that is open anyway."""
        bare = raw.startswith(b"HEAD")
        for attempt in (0, 1):
            talk = self.talks.get(port)
            if talk is None:
                talk = self.talks[port] = Conversation(connect(port))
            try:
                talk.send(raw)
                answer = talk.answer(bare=bare)
            except (EOFError, ConnectionError):
                # The answer before this one may have been the connection's last.
                self.talks.pop(port).connection.close()
                assert attempt == 0, raw
                continue
            if answer.header("connection") == "close":
                self.talks.pop(port).connection.close()
            return answer
        raise AssertionError(raw)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("folder")
    images = _write_images(folder)
    chosen = TileSettings(
        tokens.new_key(), _BASE, cors_origins=("https://a.example",), answer_s=4.0
    )
    lane = running.listen(0)
    with Prober(chosen.probe) as prober:
        more = folder_routes(SlideFolder(folder, prober))
        besides = running.Besides(lane=lane)
        for server in serve(chosen, besides=besides, routes=more):
            service = TileService(replace(chosen, probe=None))
            patterns = routes_of(make_application(service, more))
            service.stop()
            sealed = [
                *(server.seal(path, label=True) for path in images.values()),
                server.seal(images["svs"]),
                server.seal(images["svs"], expires=1),
                server.seal(images["svs"], version="0" * 16),
            ]
            names = [Path(path.name).stem for path in images.values()]
            strategy = requests(_BASE, sealed, names, patterns)
            plain = server.client.base_url.port
            assert plain is not None
            found = Place(server, (plain, lane[0].getsockname()[1]), strategy, {})
            yield found
            for talk in found.talks.values():
                talk.connection.close()


def look(answer: Answer, raw: bytes) -> None:
    """An answer is one that the service meant to give."""
    status = answer.status
    assert status < 500 or status == 503, (raw, answer.head, answer.body[:500])
    length = answer.header("content-length")
    if not raw.startswith(b"HEAD") and status not in (204, 304):
        assert length is not None, raw
    if status >= 400:
        assert answer.header("content-type") == problems.MEDIA_TYPE, (raw, answer.head)
    if status == 206:
        assert answer.header("content-range"), raw


def shake(place: Place, raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answers = []
    for port in place.ports:
        began = time.monotonic()
        answer = place.ask(port, raw)
        assert time.monotonic() - began < _SLOW_S, raw
        look(answer, raw)
        answers.append(answer)
    if 503 not in (answers[0].status, answers[1].status):
        assert without_time(answers[0]) == without_time(answers[1]), raw
    wrong = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert not wrong, (raw, wrong[0].getMessage())


def run(
    place: Place, caplog: pytest.LogCaptureFixture, cases: int, phases: list[Phase]
) -> None:
    @settings(
        max_examples=cases,
        deadline=None,
        phases=phases,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(place.strategy)
    def check(raw: bytes) -> None:
        shake(place, raw, caplog)

    test: Callable[[], None] = check
    test()
    health = place.server.client.get(f"{_BASE}health")
    assert health.json() == {"status": "ok"}


def test_any_request_to_any_route_is_answered(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    run(place, caplog, 500, [Phase.generate, Phase.shrink])


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_very_many_requests_to_any_route_are_answered(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    run(place, caplog, _CASES, [Phase.generate])
