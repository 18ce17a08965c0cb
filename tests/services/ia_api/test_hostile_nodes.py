"""Nodes that do what no node should: the service goes on, and tells nothing of it."""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest

from services.ia_api import outcome
from services.ia_api.errors import BadInvocation
from services.ia_api.steps import NoSuchAppHere
from services.ia_api.workflow import _state_after

from .running_site import Site, wait


def test_what_a_node_prints_or_logs_is_heard_by_nobody(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("say")
    ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_done(slide)
    for text in ("PHI-PRINTED", "PHI-LOGGED", "PHI-WARNED"):
        assert ia_api_site.containing(text) == []


def test_what_a_node_began_ends_with_it(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("leave")
    ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_done(slide)
    left = int((ia_api_site.notes / f"left-{slide.picture.width}").read_text())

    def gone() -> bool:
        return (
            not psutil.pid_exists(left)
            or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
        )

    wait(gone, "the process that the node began is gone")


def test_a_disk_that_is_full_during_the_analysis_is_waited_for(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide("full")
    ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_done(slide)
    assert len(ia_api_site.runs(slide)) == 2


def test_a_job_whose_app_a_worker_does_not_have_is_left_to_others() -> None:
    assert _state_after(NoSuchAppHere("not here")) is None


@pytest.mark.parametrize("counts", [[10**7, 10**7], [6_000_000]])
def test_a_result_that_claims_marks_without_measure_is_refused(
    counts: list[int],
) -> None:
    with pytest.raises(BadInvocation):
        outcome.marks_of(["a", "b"], [], counts)


def test_marks_that_are_not_shown_keep_their_categories() -> None:
    marks = outcome.marks_of(["a", "b"], [], [2, 3])
    assert [marks.count(name) for name in ("a", "b")] == [2, 3]


ODD_RESULTS: dict[str, Any] = {
    "no result": {"result": None},
    "a context that is none": {"context": "text", "result": {"type": "primitive"}},
    "patches that are no list": {
        "context": {"numbers": {}},
        "result": {"type": "patchCollection", "content": {"patches": {"a": 1}}},
    },
    "tags that are no list": {
        "context": {"numbers": {}},
        "result": {"type": "patchCollection", "content": {"tags": 3}},
    },
    "buttons that are no list": {
        "context": {},
        "result": {"type": "patchCollection", "content": {"actions": 5}},
    },
}


@pytest.mark.parametrize("odd", ODD_RESULTS)
def test_an_odd_result_is_refused_and_no_error_of_ours(
    ia_api_site: Site, odd: str
) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer("gallery")
    created = viewer.create(slide.slide_id)
    stored = ia_api_site.wait_final(created.result_id)
    answer = viewer.modify({**stored, "data": ODD_RESULTS[odd]}, judge=False)
    assert answer.status == 400
    assert ia_api_site.result(slide, "gallery") == stored


def test_a_result_with_properties_of_another_kind_is_counted_anew(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.slide()
    viewer = ia_api_site.viewer("gallery")
    created = viewer.create(slide.slide_id)
    stored = ia_api_site.wait_final(created.result_id)
    answer = viewer.modify({**stored, "displayProperties": [1]})
    assert answer.body["displayProperties"] == {"Count": "3"}


def test_the_analysis_is_a_process_group_of_its_own(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("hold")
    ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    number = int(ia_api_site.runs(slide)[0].split()[0])
    assert os.getpgid(number) == number
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide)
