import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ia_api import results
from services.ia_api.errors import BadInvocation, Permanent
from services.ia_api.results import Answer, Button, Gallery, Item, Patch
from services.ia_api.slide_info import SlideInfo
from services.ia_api.versions import parse

SLIDE = SlideInfo("s-1", (1000, 2000), (240, 240), 0.25, streamable=True)
OLD, NEW = parse("1.5"), parse("1.10")
GALLERY = Gallery(
    "Move what is wrong.",
    ["Positive", "Negative"],
    [Patch((100, 200), 0, 0.9), Patch((300, 400), 1, 0.1)],
    [[(0, 0), (500, 0), (500, 500), (0, 0)]],
    buttons=[Button("recount", "Recount", "Count again")],
)


def written(answer, version=NEW):
    return results.new_result(
        answer, SLIDE, job_id="j-1", version=version, application_version="1.2.3"
    )


def test_a_working_result_shows_the_slide_outline_and_its_progress():
    made = written(results.working(SLIDE, 40))
    assert made["displayResult"] == "analysis, progress 40 %"
    assert made["displayProperties"] == {"Progress": "40 %"}
    assert made["data"]["context"] == {"jobId": "j-1", "phase": "running"}
    (item,) = made["data"]["result"]["content"]
    assert [point["y"] for point in item["polygons"][0]["points"]] == [0, 0, 2, 2]
    assert item["labels"][0]["location"] == {"x": 0.5, "y": 0.0}


def test_old_servers_get_one_object_and_new_ones_a_list():
    answer = results.working(SLIDE)
    assert isinstance(written(answer, OLD)["data"]["result"]["content"], dict)
    assert isinstance(written(answer, NEW)["data"]["result"]["content"], list)
    for version in (OLD, NEW):
        assert len(results.graphics(written(answer, version))) == 1


def test_a_ring_is_sent_without_its_first_point_again():
    content = written(Answer("", shown=GALLERY))["data"]["result"]["content"]
    assert len(content["polygons"][0]["points"]) == 3


def test_what_others_put_into_a_stored_result_is_kept():
    stored = written(results.working(SLIDE)) | {
        "id": 7,
        "versionId": "a",
        "novelty": {"x": 1},
        "attachments": [{"name": "a", "state": "stored"}],
    }
    stored["data"]["note"] = "theirs"
    fresh = results.updated(
        stored,
        Answer("done", {"Count": "3"}, GALLERY),
        SLIDE,
        job_id="j-1",
        version=NEW,
        application_version="1.2.3",
    )
    assert fresh["novelty"] == {"x": 1}
    assert fresh["data"]["note"] == "theirs"
    assert fresh["attachments"] == stored["attachments"]
    assert (fresh["id"], fresh["versionId"]) == (7, "a")
    assert fresh["data"]["result"]["type"] == "patchCollection"
    assert fresh["data"]["context"] == {"jobId": "j-1"}


def test_a_pressed_button_is_seen_and_released():
    stored = written(Answer("", shown=GALLERY))
    assert results.pressed(stored) is None
    stored["data"]["result"]["content"]["actions"][0]["state"] = 1
    assert results.pressed(stored) == "recount"
    assert results.pressed(results.released(stored)) is None
    assert results.pressed(stored) == "recount", "the original is left alone"


@pytest.mark.parametrize("content", [None, [], {}, {"actions": None}, {"actions": [1]}])
def test_a_result_without_buttons_has_none_pressed(content):
    assert results.pressed({"data": {"result": {"content": content}}}) is None


def test_patches_come_back_as_they_are_sorted_now():
    stored = written(Answer("", shown=GALLERY))
    stored["data"]["result"]["content"]["patches"][1]["tag"] = 0
    tags, patches = results.sorted_patches(stored, SLIDE.size[0])
    assert tags == ["Positive", "Negative"]
    assert [patch.tag for patch in patches] == [0, 0]
    assert patches[1].centre == pytest.approx((300, 400))


@pytest.mark.parametrize(
    "wrong", [{"tag": 2}, {"tag": -1}, {"tag": None}, {"position": {"x": math.nan}}]
)
def test_a_patch_that_makes_no_sense_is_refused(wrong):
    stored = written(Answer("", shown=GALLERY))
    stored["data"]["result"]["content"]["patches"][0] |= wrong
    with pytest.raises(BadInvocation):
        results.sorted_patches(stored, 1000)


def test_more_categories_than_the_viewer_has_are_refused():
    many = Gallery("", list("abcdef"), [], [])
    with pytest.raises(Permanent, match="at most 5"):
        written(Answer("", shown=many))


def test_a_result_with_too_many_points_is_simplified_and_stays_in_place():
    ring = [
        (
            500 + 400 * math.cos(at / 50_000 * math.tau),
            900 + 400 * math.sin(at / 50_000 * math.tau),
        )
        for at in range(60_000)
    ]
    (item,) = written(Answer("", shown=[Item(polygons=[ring])]))["data"]["result"][
        "content"
    ]
    points = item["polygons"][0]["points"]
    assert 3 <= len(points) <= results.POINTS
    for point in points:
        off = math.hypot(point["x"] * 1000 - 500, point["y"] * 1000 - 900)
        assert off == pytest.approx(400, abs=1)


@given(st.text(max_size=500))
def test_a_text_of_any_length_becomes_one_that_fits(text):
    made = written(Answer(text, {text: text}))
    assert len(made["displayResult"]) <= results.TEXT_LENGTH
    json.dumps(made)


def test_only_notices_of_ours_may_be_written_over():
    for notice in (
        results.working(SLIDE),
        results.failed(SLIDE, "x"),
        results.cancelled(SLIDE),
    ):
        assert not results.is_final(written(notice))
    assert results.is_final(written(Answer("3 mitoses", shown=GALLERY)))
    assert results.is_final({"data": {"context": None}})
