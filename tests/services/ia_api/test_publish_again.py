"""Publishing where the pathology server does not give the slide's files at first."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.home import Home
from services.catalog import store
from tests.pathology_server import PathologyServer, Slide, Status, Truncate

from .running_site import Site, wait


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site beside a catalogue, whose app reads tiles and publishes the files."""
    with PathologyServer() as server, Site(tmp_path, server) as made:
        config = made.home / "theatrum.toml"
        head = "[ia_api.apps.probe]\n"
        config.write_text(
            config.read_text().replace(head, f'{head}publish = "cases"\n')
        )
        store.open_store(Home(made.home)).dispose()
        made.serve()
        made.worker()
        yield made


def _told(site: Site) -> list[str]:
    """What the audit log says of publishing."""
    with sqlite3.connect(site.home / "ia_api" / "theatrum.sqlite") as database:
        rows = database.execute("SELECT outcome FROM ia_audit WHERE action = 'publish'")
        return [str(outcome) for (outcome,) in rows]


def _ended(site: Site, slide: Slide) -> str:
    """The job's state once it is closed."""

    def rows() -> list[tuple[str]]:
        with sqlite3.connect(site.home / "ia_api" / "theatrum.sqlite") as database:
            return database.execute(
                "SELECT state FROM ia_job WHERE slide_id = ? AND closed > 0",
                (slide.slide_id,),
            ).fetchall()

    wait(rows, "the job is closed")
    return rows()[0][0]


def test_a_slide_that_cannot_be_fetched_at_once_is_published_all_the_same(
    site: Site,
) -> None:
    slide = site.file_slide()
    # Each more often than one download tries again by itself.
    for fault in (Status(503), Truncate(900)):
        site.server.faults.plan("slides.files", fault, slide_id=slide.slide_id)
    created = site.viewer().create(slide.slide_id)
    assert _ended(site, slide) == "succeeded"
    assert _told(site) == ["handed in to the catalogue"]
    assert len(list(Home(site.home).inbox.iterdir())) == 1
    # Nobody saw anything of it: one result, written once, and the node ran once.
    final = site.wait_done(slide)
    history = site.server.results.history(created.result_id)
    shown = [one["displayResult"] for one in history]
    assert shown.count(final["displayResult"]) == 1
    assert len(site.runs(slide)) == 1


def test_a_slide_that_cannot_be_fetched_at_all_is_no_failure_of_its_job(
    site: Site,
) -> None:
    slide = site.file_slide()
    for _ in range(50):
        site.server.faults.plan("slides.files", Status(503), slide_id=slide.slide_id)
    site.viewer().create(slide.slide_id)
    assert _ended(site, slide) == "succeeded"
    assert site.text(slide).startswith("Width")
    (said,) = _told(site)
    assert said.startswith("not published: the files cannot be had")
    assert not site.slide_files()
