"""kill -9 of a worker at each checkpoint: one final result, and nothing left over.

A worker is held where a checkpoint is complete and the next step has begun, killed, and
another one started. The same on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests import postgres
from tests.pathology_server import Delay, DropAfter, PathologyServer, Slide

from .running_site import Site, wait

HELD = Delay(60)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site without a worker, on either database."""
    with PathologyServer() as server:
        folder = tmp_path_factory.mktemp("recovery")
        # Progress would be more calls to the result than the tests count on.
        with Site(folder, server, progress_interval_s=3600, attempts=8) as made:
            if request.param == "postgresql":
                reason = postgres.missing()
                if reason is not None:
                    pytest.skip(reason)
                cluster = request.getfixturevalue("postgres_cluster")
                config = made.home / "theatrum.toml"
                line = f'database_url = "{cluster.new_database()}"\n'
                config.write_text(line + config.read_text())
            made.serve()
            yield made


@pytest.fixture(scope="module")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    with postgres.cluster() as made:
        yield made


def _hold_info(site: Site, slide: Slide) -> Callable[[], bool]:
    site.server.faults.plan("slides.info", HELD, slide_id=slide.slide_id)
    return lambda: (
        len(site.server.record.of("slides.info", slide_id=slide.slide_id)) > 1
    )


def _hold_files(site: Site, slide: Slide) -> Callable[[], bool]:
    site.server.faults.plan("slides.files", HELD, slide_id=slide.slide_id)
    return lambda: bool(site.server.record.of("slides.files", slide_id=slide.slide_id))


def _hold_analysis(site: Site, slide: Slide) -> Callable[[], bool]:
    site.note(slide, "hold")
    return lambda: bool(site.runs(slide))


def _hold_answer(site: Site, slide: Slide) -> Callable[[], bool]:
    site.server.faults.plan("results.get", HELD)
    since = site.server.record.mark()
    return lambda: bool(site.server.record.of("results.get", since=since))


def _hold_stored(site: Site, slide: Slide) -> Callable[[], bool]:
    # The server has done it, and the worker does not hear of it any more.
    site.server.faults.plan("results.update", HELD, slide_id=slide.slide_id)
    return lambda: bool(
        site.server.record.of("results.update", slide_id=slide.slide_id)
    )


HOLDS = {
    "result_created": _hold_info,
    "info": _hold_files,
    "files": _hold_analysis,
    "analysed": _hold_answer,
    "result_stored": _hold_stored,
}


@pytest.mark.parametrize("checkpoint", HOLDS)
def test_a_worker_killed_after_a_checkpoint_leaves_one_result_and_no_file(
    site: Site, checkpoint: str
) -> None:
    slide = site.file_slide()
    viewer = site.viewer("probe-files")
    created = viewer.create(slide.slide_id)
    held = HOLDS[checkpoint](site, slide)
    first = site.worker()
    wait(held, f"the worker goes beyond {checkpoint}")
    site.kill(first)
    site.note(slide, "")
    before = len(site.runs(slide))

    second = site.worker()
    try:
        final = site.wait_done(slide, "probe-files")
        wait(lambda: not site.slide_files(), "all files of the slide are removed")
        wait(lambda: _closed(site) == _all(site), "the job is closed")
    finally:
        site.kill(second)

    assert final["id"] == created.result_id
    assert len(site.results(slide, "probe-files")) == 1
    updates = [
        one["displayResult"] for one in site.server.results.history(created.result_id)
    ]
    assert updates.count(final["displayResult"]) == 1
    if checkpoint in {"analysed", "result_stored"}:
        assert len(site.runs(slide)) == before, "what was analysed is analysed again"


def test_a_job_whose_token_expired_goes_on_with_the_next_request(site: Site) -> None:
    waiting, other = site.file_slide("hold"), site.file_slide()
    viewer = site.viewer("probe-files")
    created = viewer.create(waiting.slide_id)
    worker = site.worker()
    try:
        site.wait_runs(waiting)
        site.server.tokens.revoke_all()
        site.note(waiting, "")
        wait(lambda: _states(site, "waiting_auth") == 1, "the job waits for a token")
        viewer.create(other.slide_id)
        final = site.wait_done(waiting, "probe-files")
        site.wait_done(other, "probe-files")
        wait(lambda: _closed(site) == _all(site), "both jobs are closed")
    finally:
        site.kill(worker)
    assert final["id"] == created.result_id
    assert len(site.runs(waiting)) == 1, "what was analysed is analysed again"
    assert site.slide_files() == []


def test_a_request_after_the_answer_is_stored_does_not_join_the_old_job(
    site: Site,
) -> None:
    slide = site.file_slide()
    viewer = site.viewer("probe-files")
    first = viewer.create(slide.slide_id)
    # The answer is stored, and the worker dies before it can note that.
    site.server.faults.plan("results.update", DropAfter(), slide_id=slide.slide_id)
    worker = site.worker()
    site.wait_done(slide, "probe-files")
    site.kill(worker)

    second = viewer.create(slide.slide_id)
    assert second.result_id != first.result_id
    assert second.body["displayResult"] == "analysis queued"
    other = site.worker()
    try:
        site.wait_final(second.result_id)
        wait(lambda: _closed(site) == _all(site), "both jobs are closed")
    finally:
        site.kill(other)
    assert len(site.results(slide, "probe-files")) == 2
    assert len(site.runs(slide)) == 2


def test_no_token_stays_in_the_database_after_the_jobs(site: Site) -> None:
    assert _count(site, "ia_token") == 0


def _closed(site: Site) -> int:
    return _count(site, "ia_job WHERE closed IS NOT NULL")


def _all(site: Site) -> int:
    return _count(site, "ia_job")


def _states(site: Site, state: str) -> int:
    return _count(site, f"ia_job WHERE state = '{state}'")


def _count(site: Site, what: str) -> int:
    config = (site.home / "theatrum.toml").read_text()
    if not config.startswith("database_url"):
        file: Path = site.home / "ia_api" / "theatrum.sqlite"
        with sqlite3.connect(file) as connection:
            row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()  # noqa: S608
            return int(row[0])
    engine = create_engine(config.split('"')[1])
    with engine.connect() as opened:
        found = opened.execute(text(f"SELECT count(*) FROM {what}")).scalar_one()  # noqa: S608
    engine.dispose()
    return int(found)
