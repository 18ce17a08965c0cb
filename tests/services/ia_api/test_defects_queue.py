"""Defects 1 to 11 of the published example: the queue, and crashes.

Each test fails for a queue of files that one process reads in turn.
"""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.pathology_server import Answer, ProtocolViolation, Stall, Status

from .running_site import Site, running_site, wait


def square(left: float, side: float) -> dict[str, Any]:
    """A region as the viewer sends it: fractions of the slide's width."""
    corners = [(left, 0), (left + side, 0), (left + side, side), (left, side)]
    return {"points": [{"x": x, "y": y} for x, y in corners]}


def area_text(width: int, side: float) -> str:
    return f"Area {(side * width) ** 2:.0f} px2"


def process_of(site: Site, run: str) -> Iterator[psutil.Process]:
    """The process that wrote a line of the node, if it is still there."""
    if psutil.pid_exists(int(run.split()[0])):
        yield psutil.Process(int(run.split()[0]))


def ended(site: Site, run: str) -> bool:
    return all(one.status() == psutil.STATUS_ZOMBIE for one in process_of(site, run))


# 1. Any exception ends the worker, and the job kills the next one.


@pytest.mark.parametrize("note", ["raise", "die"])
def test_a_poison_job_stops_neither_the_worker_nor_the_jobs_behind_it(
    ia_api_site: Site, note: str
) -> None:
    poison, healthy = ia_api_site.slide(note), ia_api_site.slide()
    ia_api_site.viewer().create(poison.slide_id)
    ia_api_site.viewer().create(healthy.slide_id)
    ia_api_site.wait_done(healthy)
    ia_api_site.wait_text(poison, "Analysis failed")
    # It was given up after a few tries instead of coming back for ever.
    assert 1 <= len(ia_api_site.runs(poison)) <= 3


# 2. No attempt counter, back-off, dead letter, time-out or heartbeat.


def test_a_job_is_tried_again_a_few_times_and_then_given_up(ia_api_site: Site) -> None:
    server = ia_api_site.server
    slide = ia_api_site.file_slide()
    server.faults.plan("slides.files", *[Status(503)] * 20, slide_id=slide.slide_id)
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_text(slide, "Analysis failed", "probe-files")
    asked = server.record.of("slides.files", slide_id=slide.slide_id)
    assert 2 <= len(asked) <= 12
    server.faults.clear()


@pytest.mark.long
def test_a_hung_download_is_given_up_and_begun_again(ia_api_site: Site) -> None:
    slide, other = ia_api_site.file_slide(), ia_api_site.slide()
    ia_api_site.server.faults.plan("slides.files", Stall(100), slide_id=slide.slide_id)
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.viewer().create(other.slide_id)
    ia_api_site.wait_done(other)
    ia_api_site.wait_done(slide, "probe-files", timeout_s=120)


# 3. The user sees "progress 40 %" for ever.


def test_a_job_that_failed_for_good_says_so_on_the_slide(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("raise")
    created = ia_api_site.viewer().create(slide.slide_id)
    failed = ia_api_site.wait_text(slide, "Analysis failed")
    assert failed["id"] == created.result_id
    assert "PHI" not in str(failed)
    assert "Traceback" not in str(failed)


# 4. Two workers race for one job.


def test_two_workers_run_each_job_once_and_survive_each_other(
    site_folder: Path,
) -> None:
    with running_site(site_folder, workers=0) as site:
        slides = [site.slide() for _ in range(12)]
        for slide in slides:
            site.viewer().create(slide.slide_id)
        workers = [site.worker() for _ in range(2)]
        for slide in slides:
            site.wait_done(slide)
        assert [len(site.runs(slide)) for slide in slides] == [1] * 12
        assert [len(site.results(slide)) for slide in slides] == [1] * 12
        assert [worker.poll() for worker in workers] == [None, None]


# 5. A request that comes while its predecessor runs is dropped when that one ends.
# 8. The worker takes the latest request instead of the one that was queued.


def test_a_request_that_comes_while_another_one_runs_is_done_as_it_was_asked(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide("hold")
    width = slide.picture.width
    viewer = ia_api_site.viewer("region")
    first = viewer.create(slide.slide_id, {"polygons": [square(0.1, 0.1)]})
    ia_api_site.wait_runs(slide)
    second = viewer.create(slide.slide_id, {"polygons": [square(0.1, 0.3)]})
    ia_api_site.note(slide, "")
    ia_api_site.wait_result(first.result_id, area_text(width, 0.1))
    ia_api_site.wait_result(second.result_id, area_text(width, 0.3))
    assert first.result_id != second.result_id


# 6. Writes are not atomic: a reader sees half of them.


def test_what_a_killed_web_server_had_accepted_is_done_whole(site_folder: Path) -> None:
    with running_site(site_folder, workers=0) as site:
        slides = [site.slide() for _ in range(24)]
        viewer = site.viewer()
        accepted: list[Answer] = []

        def notify(part: int) -> None:
            for slide in slides[part::4]:
                try:
                    accepted.append(viewer.notify(slide.slide_id))
                except (httpx.TransportError, ProtocolViolation):
                    return

        threads = [threading.Thread(target=notify, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        wait(lambda: len(accepted) >= 6, "some notifications were accepted")
        site.kill(site.web_server)
        for thread in threads:
            thread.join()
        site.serve()
        worker = site.worker()
        for answer in accepted:
            slide = site.server.slides[answer.sent["slideId"]]
            site.wait_done(slide)
            assert len(site.results(slide)) == 1
        assert worker.poll() is None
        assert viewer.create(slides[0].slide_id).status == 200


# 7. Two requests of one second overwrite each other.


def test_requests_of_the_same_moment_are_jobs_of_their_own(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    width = slide.picture.width
    viewer = ia_api_site.viewer("region")
    sides = [0.05 * number for number in range(1, 7)]
    answers: dict[float, Answer] = {}

    def create(side: float) -> None:
        content = {"polygons": [square(0.1, side)]}
        answers[side] = viewer.create(slide.slide_id, content)

    threads = [threading.Thread(target=create, args=(side,)) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for side in sides:
        ia_api_site.wait_result(answers[side].result_id, area_text(width, side))
    assert len({one.result_id for one in answers.values()}) == len(sides)


# 9. Ten seconds of sleep between two jobs.


def test_a_backlog_is_worked_off_without_pauses(ia_api_site: Site) -> None:
    slides = [ia_api_site.slide() for _ in range(8)]
    for slide in slides:
        ia_api_site.viewer().create(slide.slide_id)
    for slide in slides:
        ia_api_site.wait_done(slide)
    wanted = {slide.slide_id for slide in slides}
    updates = ia_api_site.server.record.of("results.update", status=200)
    last = {one.slide_id: one.time_s for one in updates if one.slide_id in wanted}
    ends = sorted(last.values())
    assert len(ends) == 8
    gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
    assert max(gaps) < 8


# 10. Lock files pile up.


def test_no_file_is_left_of_a_job_that_is_done(ia_api_site: Site) -> None:
    def names() -> set[str]:
        return {
            str(path.relative_to(ia_api_site.home))
            for path in ia_api_site.files()
            # What SQLite keeps beside a database comes and goes with connections.
            if not path.name.endswith(("-wal", "-shm", "-journal"))
        }

    first = ia_api_site.file_slide()
    ia_api_site.viewer("probe-files").create(first.slide_id)
    ia_api_site.wait_done(first, "probe-files")
    wait(lambda: not ia_api_site.slide_files(), "the slide is removed")
    before = names()
    for _ in range(4):
        slide = ia_api_site.file_slide()
        ia_api_site.viewer("probe-files").create(slide.slide_id)
        ia_api_site.wait_done(slide, "probe-files")
    wait(lambda: names() <= before, "nothing is there that was not there before")


# 11. File locks over a network: two may hold one, and one may hold it for ever.


@pytest.mark.long
def test_a_worker_that_stood_still_has_lost_its_job_and_writes_nothing(
    site_folder: Path,
) -> None:
    with running_site(site_folder, workers=0) as site:
        slide = site.slide("hold")
        first = site.worker()
        site.viewer().create(slide.slide_id)
        site.wait_runs(slide)
        frozen = [psutil.Process(first.pid)]
        frozen += frozen[0].children(recursive=True)
        for one in frozen:
            one.suspend()
        site.worker()
        site.wait_runs(slide, 2)
        site.note(slide, "")
        done = site.wait_done(slide)
        for one in reversed(frozen):
            one.resume()
        run = site.runs(slide)[0]
        wait(lambda: ended(site, run), "the first worker gives its analysis up")
        assert site.results(slide) == [done]
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
        assert site.results(slide) == [done]
