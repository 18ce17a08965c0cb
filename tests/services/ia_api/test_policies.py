"""The policies of the settings, as a pathology server and its users see them.

What becomes of a second request, of an earlier result, of a notification, and of a job
that an administrator ends: through the running service, with a worker at work.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.durable.sealing import Sealer
from services.ia_api import jobs
from services.ia_api.database import open_database
from services.ia_api.settings import ServiceSettings
from services.ia_api.store import Store
from tests.pathology_server import Delay, DropAfter, PathologyServer, Status

from .running_site import Site, running_site, wait


def _rows(site: Site, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of all jobs, oldest first."""
    with sqlite3.connect(site.home / "ia_api" / "theatrum.sqlite") as database:
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT * FROM ia_job ORDER BY created").fetchall()
    return [tuple(row[name] for name in columns) for row in rows]


def _states(site: Site) -> list[str]:
    return [state for (state,) in _rows(site, "state")]


@contextmanager
def _store(site: Site) -> Iterator[Store]:
    """The installation's jobs, as an administrator's page has them."""
    folder = site.home / "ia_api"
    database = open_database("", folder)
    yield Store(database, Sealer(folder / "token.key"), ServiceSettings())
    database.close()


# What a second request for the same work does.


def test_a_second_request_takes_the_place_of_the_first_and_of_its_result(
    site_folder: Path,
) -> None:
    with running_site(site_folder, on_repeat="supersede") as site:
        slide = site.slide("hold")
        first = site.viewer().create(slide.slide_id)
        site.wait_runs(slide)
        second = site.viewer().create(slide.slide_id)
        assert second.result_id == first.result_id
        site.wait_runs(slide, 2)
        site.note(slide, "")
        done = site.wait_done(slide)
        assert site.results(slide) == [done]
        wait(
            lambda: _states(site) == ["superseded", "succeeded"],
            "one job is superseded, and the other has succeeded",
        )


def test_a_request_superseded_before_it_was_shown_leaves_nothing_that_waits(
    site_folder: Path,
) -> None:
    with running_site(site_folder, on_repeat="supersede") as site:
        slide = site.slide()
        viewer = site.viewer()
        site.server.faults.plan("results.create", Delay(2.0), slide_id=slide.slide_id)
        with _beside(lambda: viewer.create(slide.slide_id)):
            site.server.record.wait(lambda record: _asked_for(record, slide.slide_id))
            viewer.create(slide.slide_id)
        wait(
            lambda: (
                sorted(one["displayResult"] for one in site.results(slide))
                == ["Cancelled", f"Width {slide.picture.width} px"]
            ),
            "the first result says that it was cancelled, the second is there",
        )


def _asked_for(record: Any, slide_id: str) -> bool:
    # The slide is asked for before its first result is stored.
    return bool(record.of("slides.info", slide_id=slide_id))


@contextmanager
def _beside(call: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=call)
    thread.start()
    yield
    thread.join()


def test_a_request_cancelled_before_it_was_shown_is_told_as_cancelled(
    site_folder: Path,
) -> None:
    with running_site(site_folder) as site:
        slide = site.slide()
        viewer = site.viewer()
        body = viewer.body("create", slide.slide_id, {"input": {"type": "wholeSlide"}})
        site.server.faults.plan("results.create", Delay(2.0), slide_id=slide.slide_id)
        with _beside(lambda: viewer.send_body("create", body)):
            site.server.record.wait(lambda record: _asked_for(record, slide.slide_id))
            viewer.cancel(body)
            # Closed, and its token forgotten, before the first result is there.
            wait(lambda: _rows(site, "closed")[-1][0], "the job is closed")
        site.wait_text(slide, "Cancelled")
        assert site.runs(slide) == []


# What an earlier result on the slide is good for.


@pytest.mark.parametrize(("policy", "count"), [("reuse_latest", 1), ("new_per_run", 2)])
def test_a_result_that_says_failed_is_used_again_as_the_policy_says(
    site_folder: Path, policy: str, count: int
) -> None:
    with running_site(site_folder, on_previous=policy) as site:
        slide = site.slide("raise")
        created = site.viewer().create(slide.slide_id)
        site.wait_result(created.result_id, "Analysis failed (analysis)")
        site.note(slide, "")
        site.viewer().create(slide.slide_id)
        site.wait_done(slide)
        assert len(site.results(slide)) == count


# Which imported slides are taken.


def test_imported_slides_are_taken_by_the_rules_and_the_others_cost_nothing(
    site_folder: Path,
) -> None:
    rules = 'stain = "ki-?67"\norgan = "breast"\nscanner = "^SCANNER-1$"\n'
    rules += 'quality = ["QualityOk"]\nmax_um_per_pixel = 0.3\n'
    with PathologyServer() as server, Site(site_folder, server) as site:
        # The table of the last app's rules is the last one of the file.
        with (site.home / "theatrum.toml").open("a") as settings:
            settings.write(rules)
        site.serve()
        site.worker()
        wanted: dict[str, Any] = {
            "staining": "Ki67 (MIB-1)",
            "specimen": {"anatomy": "Breast left"},
            "quality": "QualityOk",
        }
        taken = site.slide(**wanted)
        left = [
            site.slide(**wanted | other)
            for other in (
                {"staining": "HE"},
                {"specimen": {"anatomy": "Colon"}, "extended": {}},
                {"quality": "Rejected"},
                {"quality": "NotSet"},
                {"mpp": 0.5},
            )
        ]
        # The scanner is no basic field: the worker asks for it before all else.
        elsewhere = site.slide(**wanted, extended={"stationName": "SCANNER-2"})
        viewer = site.viewer("gallery")
        for slide in (*left, elsewhere, taken):
            viewer.notify(slide.slide_id)
        site.wait_text(taken, "Count", "gallery")
        wait(
            lambda: sorted(_states(site)) == ["cancelled", "succeeded"],
            "the slide of another scanner is left alone",
        )
        for slide in left:
            assert server.record.of(slide_id=slide.slide_id) == []
        asked = {one.route for one in server.record.of(slide_id=elsewhere.slide_id)}
        assert asked == {"slides.info"}
        assert site.results(elsewhere, "gallery") == []


# What an administrator ends.


def test_a_job_cancelled_by_hand_is_begun_anew_although_no_other_goes_on(
    site_folder: Path,
) -> None:
    with running_site(site_folder) as site, _store(site) as store:
        slide = site.slide("hold")
        created = site.viewer().create(slide.slide_id)
        site.wait_runs(slide)
        job_id = created.body["data"]["context"]["jobId"]
        jobs.cancel(store, job_id)
        site.wait_result(created.result_id, "Cancelled")
        site.note(slide, "")
        fresh = jobs.retry(store, job_id)
        done = site.wait_done(slide)
        assert done["id"] == created.result_id
        wait(lambda: store.get(fresh).closed is not None, "the new job is closed")


def test_the_undo_of_a_cancelled_job_ends_with_its_token(
    site_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "UNDO_S", 0.2)
    with running_site(site_folder) as site, _store(site) as store:
        slide = site.slide("hold")
        created = site.viewer().create(slide.slide_id)
        site.wait_runs(slide)
        job_id = created.body["data"]["context"]["jobId"]
        jobs.cancel(store, job_id)
        wait(lambda: store.get(job_id).closed is not None, "the job is closed")
        site.wait_result(created.result_id, "Cancelled")
        with sqlite3.connect(site.home / "ia_api" / "theatrum.sqlite") as database:
            assert database.execute("SELECT * FROM ia_token").fetchall() == []


# What is left to say when the token has run out.


def test_a_failure_is_told_with_the_token_of_a_later_request(
    site_folder: Path,
) -> None:
    with running_site(site_folder) as site:
        slide, other = site.slide("hold"), site.slide()
        created = site.viewer().create(slide.slide_id)
        site.wait_runs(slide)
        site.server.clock.advance(7200)
        site.server.faults.plan("results.get", *[Status(401)] * 3)
        body = created.sent
        # The cancelling request brings a token that has run out as well.
        site.viewer().cancel(body, token=body["callbackInfo"]["token"])
        wait(
            lambda: _rows(site, "closing_attempts")[0][0] >= 2,
            "its last word was tried more than once",
        )
        assert site.text(slide) != "Cancelled"
        site.viewer().create(other.slide_id)
        site.wait_text(slide, "Cancelled")


def test_what_was_marked_is_forgotten_when_the_job_is_done(site_folder: Path) -> None:
    with running_site(site_folder) as site:
        slide = site.slide()
        points = [{"x": x, "y": 0.123456} for x in (0.1, 0.2)] + [{"x": 0.2, "y": 0.3}]
        content = {"polygons": [{"points": points, "patient": "NAME-OF-A-PATIENT"}]}
        viewer = site.viewer("region")
        viewer.create(slide.slide_id, content, context={"unknown": "in-the-context"})
        wait(lambda: _rows(site, "closed")[-1][0], "the job is closed")
        kept = _rows(site, "input_json", "context_json")
        assert kept == [('{"type": "multiArea"}', "null")]
        assert site.containing("NAME-OF-A-PATIENT") == []


def test_two_requests_after_a_failure_do_not_share_its_result(
    site_folder: Path,
) -> None:
    with running_site(site_folder) as site:
        slide = site.slide("raise")
        viewer = site.viewer("region")
        failed = viewer.create(slide.slide_id, {"polygons": [_square(0.1)]})
        site.wait_result(failed.result_id, "Analysis failed (analysis)")
        site.note(slide, "")
        # The first one has the old result already, and our service hears it late.
        faults = site.server.faults
        faults.plan("results.update", DropAfter(), slide_id=slide.slide_id)
        faults.plan("results.of_slide", Delay(2.0), slide_id=slide.slide_id)
        with _beside(
            lambda: viewer.create(slide.slide_id, {"polygons": [_square(0.2)]})
        ):
            site.server.record.wait(lambda record: record.of("results.of_slide"))
            viewer.create(slide.slide_id, {"polygons": [_square(0.3)]})
        wait(
            lambda: _states(site) == ["dead", "succeeded", "succeeded"],
            "both have succeeded",
        )
        width = slide.picture.width
        shown = {one["displayResult"] for one in site.results(slide, "region")}
        assert shown == {f"Area {(side * width) ** 2:.0f} px2" for side in (0.2, 0.3)}


def _square(side: float) -> dict[str, Any]:
    corners = [(0, 0), (side, 0), (side, side), (0, side)]
    return {"points": [{"x": x, "y": y} for x, y in corners]}
