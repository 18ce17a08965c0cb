"""Whoever reaches the webhook without being the pathology server harms no job.

The webhook has no credential of its own. What proves a request is its callback token,
and that only once the pathology server has taken it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pathology_server import PASSWORD, USER, Answer, Slide, Viewer

from .running_site import Site, running_site, wait

GUESSED = "a-token-that-nobody-issued"


def _sent_by_a_stranger(viewer: Viewer, slide: Slide, action: str) -> Answer:
    more: dict[str, Any] = {
        "create": {"input": {"type": "wholeSlide"}},
        "delete": {"input": _stored(slide, 1 << 40)},
        "modify": {"input": _stored(slide, 1 << 40)},
        "cancel": {},
        "newImageFiles": {"imageInfo": _image_info()},
    }[action]
    return viewer.send(action, slide.slide_id, more, token=GUESSED, judge=False)


def _stored(slide: Slide, result_id: int) -> dict[str, Any]:
    return {
        "id": result_id,
        "versionId": "1",
        "slideId": slide.slide_id,
        "data": {"result": {"type": "primitive", "content": []}},
    }


def _image_info() -> dict[str, Any]:
    return {"imageSize": {"width": 10, "height": 10}}


@pytest.mark.parametrize(
    "action", ["create", "modify", "delete", "cancel", "newImageFiles"]
)
def test_a_token_that_nobody_issued_takes_the_place_of_no_good_one(
    ia_api_site: Site, action: str
) -> None:
    slide, other = ia_api_site.slide("hold"), ia_api_site.slide()
    viewer = ia_api_site.viewer()
    viewer.create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    _sent_by_a_stranger(viewer, other, action)
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide)


def test_a_token_that_came_with_a_notification_is_used_when_the_older_one_ends(
    site_folder: Path,
) -> None:
    with running_site(site_folder) as site:
        slide, imported = site.slide("hold"), site.slide()
        viewer = site.viewer()
        viewer.create(slide.slide_id, token_lifetime_s=60)
        site.wait_runs(slide)
        viewer.notify(imported.slide_id, token_lifetime_s=3600)
        site.server.clock.advance(120)
        site.note(slide, "")
        site.wait_done(slide)
        site.wait_done(imported)


def test_a_result_is_not_deleted_by_who_guesses_its_number(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("hold")
    viewer = ia_api_site.viewer()
    created = viewer.create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    told = {"input": _stored(slide, created.result_id)}
    answer = viewer.send("delete", slide.slide_id, told, token=GUESSED)
    assert answer.body == {}
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide)


def test_the_credentials_of_the_site_open_nothing_to_who_has_no_token(
    site_folder: Path,
) -> None:
    credentials = {"user": USER, "password": PASSWORD}
    with running_site(site_folder, workers=0, credentials=credentials) as site:
        slide = site.slide()
        viewer = site.viewer()
        for action in ("create", "modify", "delete"):
            _sent_by_a_stranger(viewer, slide, action)
        assert site.server.record.count("token") == 0
        assert site.results(slide) == []


def test_a_deletion_that_is_true_is_believed(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("hold")
    viewer = ia_api_site.viewer()
    created = viewer.create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    viewer.delete(created.result_id)
    ia_api_site.note(slide, "")
    wait(lambda: ia_api_site.slide_files() == [], "nothing is kept of the slide")
    assert ia_api_site.results(slide) == []
