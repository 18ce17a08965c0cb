"""The benchmark's gates, always on: its corpus of planted identifiers, scored."""

from __future__ import annotations

import warnings

import pytest

from benchmarks.deidentify.__main__ import COMPLETE, RETAINED, score_ours
from benchmarks.deidentify.corpus import ACTIONS, Answer
from benchmarks.deidentify.score import Score


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Score, list[Answer]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus holds invalid values on purpose
        return score_ours(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("action", COMPLETE)
def test_every_removal_date_uid_and_consistency_is_right(
    scored: tuple[Score, list[Answer]], action: str
) -> None:
    result, _ = scored
    assert [f for f in result.failures if f.action == action] == []
    assert result.asked[action] > 0


def test_what_makes_the_image_useful_is_retained(
    scored: tuple[Score, list[Answer]],
) -> None:
    result, _ = scored
    assert result.share(*RETAINED) >= 0.99, result.failures[:5]


def test_the_corpus_is_as_large_as_it_promises(
    scored: tuple[Score, list[Answer]],
) -> None:
    _, answers = scored
    planted = [answer for answer in answers if answer.kind != "keep"]
    assert len({answer.file[:2] for answer in answers}) >= 20
    assert len({(a.kind, a.value, a.depth) for a in planted}) >= 60
    assert {answer.depth for answer in planted} == {0, 1, 2, 3}
    assert {answer.action for answer in answers} == set(ACTIONS)
    assert {answer.kind for answer in planted} == {
        "text", "name", "uid", "date", "private", "unknown_vr", "file_meta",
        "overlay", "burnt_in",
    }  # fmt: skip
