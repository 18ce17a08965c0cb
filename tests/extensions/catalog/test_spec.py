"""A question is its JSON, and what the wire brings is read strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum.catalog.errors import BadQuery
from theatrum.catalog.query.spec import Leaf, Parameter, Q, Spec, spec_from_json

NAMES = st.sampled_from(["name", "spacing__lte", "channels__name__in", "tags", "a__b"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
VALUES = st.recursive(
    SCALARS | st.builds(Parameter, st.text("abc", min_size=1, max_size=3)),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
LEAVES = st.builds(lambda name, value: Q(**{name: value}), NAMES, VALUES)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda a, b: a & b, inner, inner)
        | st.builds(lambda a, b: a | b, inner, inner)
        | inner.map(lambda one: ~one)
    ),
    max_leaves=6,
)
SPECS = st.builds(
    Spec,
    of=st.sampled_from(["images", "samples"]),
    where=st.lists(CONDITIONS, max_size=3).map(tuple),
    order=st.lists(st.sampled_from(["name", "-spacing"]), max_size=2).map(tuple),
    offset=st.integers(0, 50),
    limit=st.none() | st.integers(0, 50),
    values=st.lists(NAMES, max_size=2).map(tuple),
    distinct=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(spec=SPECS, inner=SPECS)
def test_a_question_comes_back_from_its_json_as_it_was(spec: Spec, inner: Spec) -> None:
    from dataclasses import replace

    nested = replace(spec, where=(*spec.where, Q(sample__in=inner)))
    for one in (spec, nested):
        text = json.dumps(one.to_json())
        assert spec_from_json(json.loads(text)) == one


JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*("of", "where", "order", "offset", "limit", "values", "query"),
                 *("field", "value", "and", "or", "not", "$", "x")]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(said=JSON)
def test_any_json_is_a_question_or_refused(said: Any) -> None:
    try:
        spec = spec_from_json(said)
    except BadQuery:
        return
    assert spec_from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ({"of": "images", "wher": []}, "where"),
        ({"of": "images", "where": [{"field": "a"}]}, "value"),
        ({"of": "images", "where": [{"field": "a", "value": {"x": 1}}]}, "object"),
        ({"of": "images", "limit": -1}, "limit"),
        ({"of": "images", "limit": True}, "limit"),
        ({"of": 3}, "of"),
        ([], "object"),
        ({"of": "images", "where": [{"and": [], "or": []}]}, "condition"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(said: Any, hint: str) -> None:
    with pytest.raises(BadQuery, match=hint):
        spec_from_json(said)


def test_a_question_without_end_is_refused() -> None:
    deep: dict[str, Any] = {"field": "a", "value": 1}
    for _ in range(40):
        deep = {"not": deep}
    wide = {"and": [{"field": "a", "value": 1}] * 600}
    inner: dict[str, Any] = {"of": "images"}
    for _ in range(40):
        leaf = {"field": "id__in", "value": {"query": inner}}
        inner = {"of": "images", "where": [leaf]}
    for where in (deep, wide):
        with pytest.raises(BadQuery, match="at most"):
            spec_from_json({"of": "images", "where": [where]})
    with pytest.raises(BadQuery):
        spec_from_json(inner)


def test_parameters_are_filled_wherever_they_stand() -> None:
    inner = Spec("samples", (Q(name=Parameter("s")),))
    spec = Spec("images", (~Q(n_z__range=(1, Parameter("n"))) | Q(sample__in=inner),))
    filled = spec.filled({"n": 5, "s": "x"})
    assert "$" not in json.dumps(filled.to_json())
    with pytest.raises(BadQuery, match="needs a value for s"):
        spec.filled({"n": 5})


def test_conditions_that_mean_the_same_are_equal() -> None:
    a, b, c = Q(a=1), Q(b=2), Q(c=3)
    assert (a & b) & c == a & (b & c) == Q(a=1, b=2, c=3)
    assert (a | b) | c == a | (b | c)
    assert (a & b).parts == (Leaf("a", 1), Leaf("b", 2))
