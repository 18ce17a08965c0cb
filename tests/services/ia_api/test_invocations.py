"""What the web server takes for an invocation, and what it refuses without harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ia_api.errors import BadInvocation, TooLarge
from services.ia_api.invocations import Invocation, Limits, parse

LIMITS = Limits(depth=32, points=100)
POLYGON = {"points": [{"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.1}, {"x": 0.2, "y": 1.4}]}


def _body(**other: Any) -> dict[str, Any]:
    return {
        "action": "create",
        "applicationId": "probe",
        "slideId": "sl-1",
        "callbackInfo": {"url": "https://sps.example.org/v1/", "token": "abc.def"},
        "context": {"profile": "default"},
        "cancellationToken": "c-1",
        "input": {"type": "wholeSlide"},
        **other,
    }


def _parse(**other: Any) -> Invocation:
    return parse(json.dumps(_body(**other)).encode(), LIMITS)


def test_unknown_members_are_ignored_and_a_null_context_is_empty() -> None:
    read = _parse(context=None, news={"of": [1, 2]}, cancellationToken=None)
    assert read.context == {}
    assert read.cancellation_token is None


def test_the_callback_address_is_the_same_with_and_without_a_slash() -> None:
    assert _parse().callback_url == "https://sps.example.org/v1"


def test_each_input_type_is_read() -> None:
    tagged = {"type": "taggedPolygon", "content": {"polygon": POLYGON}}
    areas = {"type": "multiArea", "content": {"polygons": [POLYGON]}}
    for given_input in ({"type": "wholeSlide", "content": None}, tagged, areas):
        assert _parse(input=given_input).input == given_input


@pytest.mark.parametrize("index", [None, 7, -3])
def test_a_meaningless_tag_index_harms_nobody(index: int | None) -> None:
    content = {"polygon": POLYGON, "tags": None, "tagIndex": index}
    _parse(input={"type": "taggedPolygon", "content": content})


def test_an_action_is_needed_except_where_notifications_arrive() -> None:
    body = _body(imageInfo={"id": "sl-1"})
    del body["action"]
    raw = json.dumps(body).encode()
    with pytest.raises(BadInvocation, match="action"):
        parse(raw, LIMITS)
    assert parse(raw, LIMITS, notification=True).action == "newImageFiles"


@pytest.mark.parametrize(
    "other",
    [
        {"action": "explode"},
        {"applicationId": ""},
        {"applicationId": ".."},
        {"slideId": "."},
        {"slideId": 7},
        {"slideId": "nul\0"},
        {"slideId": "half \ud800"},
        {"callbackInfo": None},
        {"callbackInfo": {"url": "ftp://sps", "token": "t"}},
        {"callbackInfo": {"url": "https://sps", "token": "line\r\nbreak"}},
        {"context": [1]},
        {"input": None},
        {"input": {"type": "everything"}},
        {"input": {"type": "multiArea", "content": {"polygons": []}}},
        {"input": {"type": "taggedPolygon"}},
        {
            "input": {
                "type": "taggedPolygon",
                "content": {"polygon": {"points": POLYGON["points"][:2]}},
            }
        },
        {"number": 2**80},
    ],
)
def test_what_cannot_be_worked_with_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(BadInvocation):
        _parse(**other)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    raw = json.dumps(_body(more=0)).replace('"more": 0', f'"more": {number}')
    with pytest.raises(BadInvocation):
        parse(raw.encode(), LIMITS)


def test_deep_nesting_is_refused_at_any_depth() -> None:
    for depth in (40, 100_000):
        raw = json.dumps(_body(more=0)).replace(
            '"more": 0', f'"more": {"[" * depth}{"]" * depth}'
        )
        with pytest.raises(BadInvocation):
            parse(raw.encode(), LIMITS)


def test_too_many_points_are_refused() -> None:
    polygon = {"points": [{"x": 0.0, "y": 0.0}] * 101}
    with pytest.raises(TooLarge):
        _parse(input={"type": "multiArea", "content": {"polygons": [polygon]}})


def test_a_refusal_never_repeats_the_token() -> None:
    with pytest.raises(BadInvocation) as refusal:
        _parse(callbackInfo={"url": "https://sps", "token": "secret with spaces"})
    assert "secret" not in str(refusal.value)
    assert "abc.def" not in repr(_parse())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([*_body(), "imageInfo"]), _JSON, min_size=1, max_size=4
    )
)
def test_whatever_comes_is_read_or_refused(other: dict[str, Any]) -> None:
    _survives(other)


@pytest.mark.fuzz
@settings(
    max_examples=50_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.dictionaries(st.sampled_from([*_body(), "imageInfo"]), _JSON, max_size=6))
def test_whatever_comes_is_read_or_refused_fifty_thousand_times(
    other: dict[str, Any],
) -> None:
    _survives(other)


def _survives(other: dict[str, Any]) -> None:
    raw = json.dumps(_body(**other)).encode("utf-8", "surrogatepass")
    for notification in (False, True):
        try:
            read = parse(raw, LIMITS, notification=notification)
        except (BadInvocation, TooLarge):
            continue
        # What is taken can be stored and sent.
        json.dumps(read.model_dump(), allow_nan=False).encode()


@pytest.mark.parametrize("content", [0.5, "", "../../etc/passwd", [], True])
def test_a_whole_slide_has_no_content_but_an_object_or_nothing(content: Any) -> None:
    with pytest.raises(BadInvocation):
        _parse(input={"type": "wholeSlide", "content": content})
