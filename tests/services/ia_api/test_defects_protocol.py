"""Defects 17 to 23 of the published example: the protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pathology_server import PASSWORD, USER, DropAfter, Passes, Status

from .running_site import Site, running_site, wait
from .test_defects_queue import ended

# 17. The web server answers only after three callbacks in a row.


def test_a_notification_is_answered_without_any_callback(idle_site: Site) -> None:
    slide = idle_site.slide()
    viewer = idle_site.viewer()
    mark = idle_site.server.record.mark()
    idle_site.server.latency_s = 3.0
    try:
        answer = viewer.notify(slide.slide_id)
    finally:
        idle_site.server.latency_s = 0.0
    assert answer.seconds < 2
    idle_site.server.record.assert_silent(since=mark)


def test_a_slow_pathology_server_is_asked_twice_at_most_before_the_answer(
    idle_site: Site,
) -> None:
    viewer = idle_site.viewer()
    viewer.create(idle_site.slide().slide_id)
    slide = idle_site.slide()
    mark = idle_site.server.record.mark()
    idle_site.server.latency_s = 0.5
    try:
        answer = viewer.create(slide.slide_id)
    finally:
        idle_site.server.latency_s = 0.0
    assert idle_site.server.record.count(since=mark) <= 2
    assert answer.seconds < 1.5


def test_many_users_wait_no_longer_than_one_behind_a_slow_pathology_server(
    idle_site: Site,
) -> None:
    viewer = idle_site.viewer()
    slides = [idle_site.slide() for _ in range(20)]
    idle_site.server.latency_s = 0.5
    try:
        with ThreadPoolExecutor(20) as pool:
            answers = list(
                pool.map(lambda slide: viewer.create(slide.slide_id), slides)
            )
    finally:
        idle_site.server.latency_s = 0.0
    # One after the other would take 20 s.
    assert max(one.seconds for one in answers) < 6


@pytest.mark.long
def test_a_pathology_server_that_does_not_answer_ends_in_an_error_in_time(
    site_folder: Path,
) -> None:
    with running_site(site_folder, workers=0, answer_deadline_s=2.0) as site:
        slide = site.slide()
        viewer = site.viewer()
        viewer.create(site.slide().slide_id)
        site.server.latency_s = 30.0
        answer = viewer.create(slide.slide_id, judge=False)
        site.server.latency_s = 0.0
        assert answer.status in {502, 503, 504}
        assert answer.seconds < 5
        assert answer.headers["x-sectra-apiversion"]


# 18. The job is queued before its result is stored.


def test_a_user_who_was_told_of_an_error_has_no_job(site_folder: Path) -> None:
    with running_site(site_folder, workers=0) as site:
        refused, wanted = site.slide(), site.slide()
        site.server.faults.plan("results.create", Status(400))
        answer = site.viewer().create(refused.slide_id, judge=False)
        assert 400 <= answer.status < 600
        mark = site.server.record.mark()
        site.worker()
        site.viewer().create(wanted.slide_id)
        site.wait_done(wanted)
        assert site.runs(refused) == []
        assert site.results(refused) == []
        site.server.record.assert_silent(since=mark, slide_id=refused.slide_id)


def test_a_result_whose_answer_was_lost_is_not_stored_twice(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    ia_api_site.server.faults.plan(
        "results.create", DropAfter(), slide_id=slide.slide_id
    )
    created = ia_api_site.viewer().create(slide.slide_id)
    done = ia_api_site.wait_done(slide)
    assert done["id"] == created.result_id
    assert ia_api_site.results(slide) == [done]


def test_a_request_that_is_delivered_twice_is_one_job(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer()
    created = viewer.create(slide.slide_id)
    assert viewer.again(created).result_id == created.result_id
    ia_api_site.wait_done(slide)
    assert viewer.again(created).result_id == created.result_id
    assert len(ia_api_site.runs(slide)) == 1
    assert len(ia_api_site.results(slide)) == 1


# 19. Delete and cancel do not stop the job.


def test_cancelling_stops_a_running_job_and_says_so(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("hold")
    viewer = ia_api_site.viewer()
    created = viewer.create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    viewer.cancel(created)
    viewer.cancel(created)
    cancelled = ia_api_site.wait_text(slide, "Cancelled")
    run = ia_api_site.runs(slide)[0]
    wait(lambda: ended(ia_api_site, run), "the analysis ends")
    mark = ia_api_site.server.record.mark()
    ia_api_site.note(slide, "")
    other = ia_api_site.slide()
    viewer.create(other.slide_id)
    ia_api_site.wait_done(other)
    ia_api_site.server.record.assert_silent(since=mark, slide_id=slide.slide_id)
    assert ia_api_site.results(slide) == [cancelled]


def test_cancelling_a_waiting_job_keeps_it_from_running(site_folder: Path) -> None:
    with running_site(site_folder, workers=0) as site:
        slide, other = site.slide(), site.slide()
        viewer = site.viewer()
        viewer.cancel(viewer.create(slide.slide_id))
        viewer.create(other.slide_id)
        site.worker()
        site.wait_done(other)
        site.wait_text(slide, "Cancelled")
        assert site.runs(slide) == []


def test_cancelling_what_nobody_knows_is_answered_the_same(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    body = {"slideId": slide.slide_id, "cancellationToken": "never heard of"}
    assert ia_api_site.viewer().cancel(body).body == []


def test_a_result_that_a_user_deleted_does_not_come_back(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("hold")
    viewer = ia_api_site.viewer()
    created = viewer.create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    viewer.delete(created.result_id)
    run = ia_api_site.runs(slide)[0]
    wait(lambda: ended(ia_api_site, run), "the analysis ends")
    ia_api_site.note(slide, "")
    other = ia_api_site.slide()
    viewer.create(other.slide_id)
    ia_api_site.wait_done(other)
    assert ia_api_site.results(slide) == []
    made = ia_api_site.server.record.of("results.create", slide_id=slide.slide_id)
    assert len(made) == 1


def test_a_result_that_vanished_unannounced_does_not_come_back(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide("hold")
    viewer = ia_api_site.viewer()
    created = viewer.create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    ia_api_site.server.results.remove(created.result_id)
    ia_api_site.note(slide, "")
    run = ia_api_site.runs(slide)[0]
    wait(lambda: ended(ia_api_site, run), "the analysis ends")
    other = ia_api_site.slide()
    viewer.create(other.slide_id)
    ia_api_site.wait_done(other)
    assert ia_api_site.results(slide) == []


# 20. The last result is overwritten, whatever it holds; conflicts are not handled.


def test_a_finished_result_is_never_overwritten_by_the_next_analysis(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer()
    viewer.create(slide.slide_id)
    first = ia_api_site.wait_done(slide)
    # Until its worker has noted the end, the job takes the same request as its own.
    seen = [int(first["id"])]

    def is_new() -> bool:
        seen.append(viewer.create(slide.slide_id).result_id)
        return seen[-1] != first["id"]

    wait(is_new, "a new request is a new job")
    ia_api_site.wait_result(seen[-1], first["displayResult"])
    assert ia_api_site.results(slide)[0] == first


@pytest.mark.parametrize("status", [409, 412, 400])
def test_an_edit_while_the_job_runs_is_kept_beside_the_final_result(
    ia_api_site: Site, status: int
) -> None:
    def verify(body: dict[str, Any]) -> None:
        body["verifiedBy"] = "a user"
        body["data"]["remark"] = "seen"

    slide = ia_api_site.slide("hold")
    created = ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    ia_api_site.server.conflict_status = status
    try:
        ia_api_site.viewer().edit_behind(created.result_id, verify)
        ia_api_site.note(slide, "")
        done = ia_api_site.wait_done(slide)
    finally:
        ia_api_site.server.conflict_status = 409
    assert done["id"] == created.result_id
    assert done["verifiedBy"] == "a user"
    assert done["data"]["remark"] == "seen"


def test_a_final_result_is_stored_although_the_server_fails_at_first(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide("hold")
    ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    ia_api_site.server.faults.plan(
        "results.update", Status(503), DropAfter(), slide_id=slide.slide_id
    )
    ia_api_site.note(slide, "")
    done = ia_api_site.wait_done(slide)
    assert ia_api_site.results(slide) == [done]


# 21. `modify` answers {}, and so do unknown actions.


def test_moving_a_patch_counts_anew_and_answers_with_what_is_stored(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer("gallery")
    created = viewer.create(slide.slide_id)
    ia_api_site.wait_result(created.result_id, "Count 3")
    patches = _gallery(ia_api_site, created.result_id)["patches"]
    negative = [patch["tag"] for patch in patches].index(1)
    moved = viewer.move_patch(created.result_id, negative, 0)
    assert moved.body["displayResult"] == "Count 4"
    assert ia_api_site.server.results.current(created.result_id) == moved.body


def test_a_pressed_button_is_released_in_the_stored_result(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer("gallery")
    created = viewer.create(slide.slide_id)
    ia_api_site.wait_result(created.result_id, "Count 3")
    pressed = viewer.press(created.result_id, "recount")
    assert pressed.body["displayResult"] == "Count 3"
    states = [
        one["state"] for one in _gallery(ia_api_site, created.result_id)["actions"]
    ]
    assert states == [0]
    assert not [text for text in ia_api_site.server.warnings if "pressed" in text]


def test_a_result_of_graphics_can_be_modified_too(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer()
    viewer.create(slide.slide_id)
    done = ia_api_site.wait_done(slide)
    answer = viewer.modify(done)
    assert answer.body["id"] == done["id"]
    assert answer.body["versionId"] != done["versionId"]


def test_an_unknown_action_is_an_error_and_no_job(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    body = ia_api_site.viewer().body("explode", slide.slide_id, {})
    answer = httpx.post(f"{ia_api_site.url}/apps/probe", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert answer.headers["x-sectra-apiversion"]
    assert ia_api_site.results(slide) == []


@pytest.mark.parametrize(
    "options",
    [
        {"null_context": True},
        {"with_cancellation_token": False},
        {"extra": {"fromTheFuture": {"a": [1]}}},
    ],
    ids=str,
)
def test_every_lawful_variant_of_a_request_is_a_job(
    ia_api_site: Site, options: dict[str, Any]
) -> None:
    slide = ia_api_site.slide()
    ia_api_site.viewer().create(slide.slide_id, **options)
    ia_api_site.wait_done(slide)


def test_a_notification_without_an_action_is_a_job_once(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer()
    first = viewer.notify(slide.slide_id, with_action=False)
    viewer.again(first)
    ia_api_site.wait_done(slide)
    viewer.notify(slide.slide_id)
    other = ia_api_site.slide()
    viewer.notify(other.slide_id)
    ia_api_site.wait_done(other)
    assert len(ia_api_site.runs(slide)) == 1
    assert len(ia_api_site.results(slide)) == 1


# 22. Token expiry is not handled.


def test_a_job_whose_token_expired_goes_on_with_the_token_of_the_next_request(
    site_folder: Path,
) -> None:
    with running_site(site_folder) as site:
        slide = site.slide("hold")
        viewer = site.viewer()
        created = viewer.create(slide.slide_id)
        site.wait_runs(slide)
        site.server.clock.advance(7200)
        site.note(slide, "")
        site.server.record.wait(lambda record: record.of(status=401))
        assert viewer.create(slide.slide_id).result_id == created.result_id
        done = site.wait_done(slide)
        assert site.results(slide) == [done]


def test_a_job_whose_token_expired_goes_on_by_itself_with_credentials(
    site_folder: Path,
) -> None:
    credentials = {"user": USER, "password": PASSWORD}
    with running_site(site_folder, credentials=credentials) as site:
        slide = site.slide("hold")
        site.viewer().create(slide.slide_id)
        site.wait_runs(slide)
        site.server.clock.advance(7200)
        site.note(slide, "")
        site.wait_done(slide)
        assert site.server.record.count("token") == 1
        assert site.containing(PASSWORD) == [str(site.home / "theatrum.toml")]


# 23. Progress is sent at every step, with two more questions each time.


def test_progress_is_shown_seldom_and_without_further_questions(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide("chatter")
    ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_done(slide)
    asked = ia_api_site.server.record.of(slide_id=slide.slide_id)
    updates = [one for one in asked if one.route == "results.update"]
    seconds = updates[-1].time_s - updates[0].time_s
    # The node spoke 500 times; the settings allow one update in 0.2 s.
    assert 2 <= len(updates) <= seconds / 0.2 + 4
    reads = [one for one in asked if one.method == "GET" and one.route != "tiles"]
    assert len(reads) <= 6


def _gallery(site: Site, result_id: int) -> dict[str, Any]:
    held = site.server.results.current(result_id)
    assert held is not None
    content: dict[str, Any] = held["data"]["result"]["content"]
    return content


def test_a_first_result_that_got_lost_is_ended_although_the_token_expired(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer()
    faults = ia_api_site.server.faults
    # Stored, but nobody hears of it; the next call meets an expired token.
    faults.plan("results.create", DropAfter(), slide_id=slide.slide_id)
    faults.plan("slides.info", Passes(), Status(401), slide_id=slide.slide_id)
    assert viewer.create(slide.slide_id, judge=False).status == 503
    lost = ia_api_site.result(slide)
    assert lost is not None
    final = ia_api_site.wait_final(lost["id"])
    assert final["displayResult"].startswith("Analysis failed")
