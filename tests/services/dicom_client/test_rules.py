import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence

from services.dicom_client.rules import (
    BadRule,
    Rule,
    choose,
    condition_from_json,
    condition_to_json,
    evaluate,
    rules_from_json,
    rules_from_v1,
    rules_from_v2,
    rules_to_json,
)
from services.dicom_client.rules.imported import OPERATORS


def header() -> Dataset:
    ct = Dataset()
    ct.Modality = "CT"
    ct.SliceThickness = "2.50"
    ct.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ct.PixelSpacing = ["0.9", "1.1"]
    ct.SeriesDescription = "Thorax DIBH"
    ct.StudyDate = "20240131"
    ct.StudyTime = "134500.5"
    ct.PatientAge = "024M"
    ct.PatientName = "Doe^Jane"
    ct.Rows = 512
    ct.StudyID = ""
    code = Dataset()
    code.CodeValue = "T-D3000"
    other = Dataset()
    other.CodeValue = "T-A0100"
    ct.AnatomicRegionSequence = Sequence([code, other])
    ct.add_new(0x00190010, "LO", "MAKER")
    ct.add_new(0x00191008, "DS", "7.5")
    return ct


def holds(said) -> bool:
    return evaluate(condition_from_json(said), header()).holds


@pytest.mark.parametrize(
    ("tag", "op", "value"),
    [
        ("Modality", "eq", "CT"),
        ("(0008,0060)", "eq", "CT"),
        ("00080060", "ieq", "ct"),
        ("Modality", "ne", "MR"),
        ("Modality", "in", ["MR", "CT"]),
        ("SliceThickness", "eq", 2.5),
        ("SliceThickness", "eq", "2.5"),
        ("SliceThickness", "le", 3),
        ("SliceThickness", "between", [2, 2.5]),
        ("Rows", "gt", 511),
        ("ImageType", "eq", "AXIAL"),
        ("SeriesDescription", "icontains", "dibh"),
        ("SeriesDescription", "starts", "Thorax"),
        ("SeriesDescription", "iregex", r"^tho.*dibh$"),
        ("StudyDate", "ge", "20240101"),
        ("StudyDate", "lt", "2024-02-01"),
        ("StudyTime", "gt", "1345"),
        ("PatientAge", "gt", "001Y"),
        ("AnatomicRegionSequence.CodeValue", "eq", "T-A0100"),
        ("AnatomicRegionSequence[0].CodeValue", "eq", "T-D3000"),
        ("(0019,1008)", "eq", "7.5"),
    ],
)
def test_a_test_that_fits_the_header_holds(tag, op, value):
    said = {"tag": tag, "op": op, "value": value}
    assert holds(said)
    assert not holds({"not": said})


@pytest.mark.parametrize(
    ("tag", "op", "value"),
    [
        ("Modality", "eq", "ct"),
        ("Modality", "ne", "CT"),
        ("ImageType", "ne", "AXIAL"),
        ("SliceThickness", "gt", 2.5),
        ("AnatomicRegionSequence[1].CodeValue", "eq", "T-D3000"),
        ("AnatomicRegionSequence[9].CodeValue", "eq", "T-D3000"),
        ("StudyDate", "gt", "20240131"),
        ("PatientAge", "ge", "003Y"),
    ],
)
def test_a_test_that_does_not_fit_fails(tag, op, value):
    assert not holds({"tag": tag, "op": op, "value": value})


@pytest.mark.parametrize("tag", ["ProtocolName", "StudyID"])
@pytest.mark.parametrize(
    ("op", "value"), [("eq", "x"), ("ne", "x"), ("contains", "x"), ("in", ["x"])]
)
def test_an_element_that_is_missing_or_empty_fails_every_comparison(tag, op, value):
    assert not holds({"tag": tag, "op": op, "value": value})
    assert holds({"tag": tag, "op": "missing"})
    assert not holds({"tag": tag, "op": "exists"})


def test_all_values_pass_only_where_each_does():
    said = {"tag": "PixelSpacing", "op": "le", "value": 1.0}
    assert holds(said)
    assert not holds(said | {"values": "all"})
    assert holds(said | {"values": "all", "value": 1.1})


def test_conditions_nest():
    assert holds(
        {
            "all_of": [
                {"tag": "Modality", "op": "eq", "value": "CT"},
                {
                    "any_of": [
                        {"tag": "Rows", "op": "eq", "value": 1},
                        {"not": {"tag": "ProtocolName", "op": "exists"}},
                    ]
                },
            ]
        }
    )
    assert holds({"all_of": []})
    assert not holds({"any_of": []})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"tag": "Modalty", "op": "eq", "value": "CT"}, "no keyword"),
        ({"tag": "Modality", "op": "equals", "value": "CT"}, "no operator"),
        ({"tag": "Modality", "op": "lt", "value": "CT"}, "needs an order"),
        ({"tag": "Rows", "op": "contains", "value": "5"}, "compares text"),
        ({"tag": "Rows", "op": "eq", "value": "many"}, "no number"),
        ({"tag": "StudyDate", "op": "eq", "value": "20241350"}, "not a date"),
        ({"tag": "Modality", "op": "exists", "value": 1}, "no value"),
        ({"tag": "Rows", "op": "between", "value": [1]}, "lowest and the highest"),
        ({"tag": "Modality", "op": "regex", "value": "("}, "no pattern"),
        ({"tag": "Modality", "op": "regex", "value": "(a+)+b"}, "for ever"),
        ({"tag": "AnatomicRegionSequence", "op": "eq", "value": "x"}, "a sequence"),
        ({"tag": "Modality", "op": "eq", "value": "CT", "x": 1}, "not known"),
        ({"all_of": [{"any_of": [{}]}]}, r"all_of\[0\]\.any_of\[0\]"),
        ({"all_of": [], "any_of": []}, "exactly one"),
        ({"all_of": {}}, "list"),
        ([], "object"),
    ],
)
def test_a_condition_that_could_never_work_is_refused_with_its_place(said, why):
    with pytest.raises(BadRule, match=why):
        condition_from_json(said)


def test_a_rule_without_end_is_refused():
    said: dict = {"all_of": []}
    for _ in range(50):
        said = {"not": said}
    with pytest.raises(BadRule, match="deep"):
        condition_from_json(said)


LEAVES = st.one_of(
    st.builds(
        lambda op, value: {"tag": "SeriesDescription", "op": op, "value": value},
        st.sampled_from(["eq", "ine", "contains", "istarts"]),
        st.text(max_size=8),
    ),
    st.builds(
        lambda op, value: {"tag": "Rows", "op": op, "value": value},
        st.sampled_from(["eq", "lt", "ge"]),
        st.integers(0, 1000),
    ),
    st.just({"tag": "PatientName", "op": "missing"}),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda of: {"all_of": of}, st.lists(inner, max_size=3)),
        st.builds(lambda of: {"any_of": of}, st.lists(inner, max_size=3)),
        st.builds(lambda of: {"not": of}, inner),
    ),
    max_leaves=8,
)


@given(CONDITIONS)
def test_a_condition_reads_back_as_it_was_written(said):
    condition = condition_from_json(said)
    assert condition_from_json(condition_to_json(condition)) == condition
    rule = Rule("one", "template", condition, priority=3, enabled=False)
    (back,) = rules_from_json(rules_to_json([rule]))
    assert evaluate(back.condition, header()).holds == holds(said)
    assert (back.name, back.template, back.priority) == ("one", "template", 3)
    assert not back.enabled


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_other_json_is_refused_in_words(said):
    with pytest.raises(BadRule):
        condition_from_json(said)
    with pytest.raises(BadRule):
        rules_from_json(json.dumps([said]))


def rule(name, template, priority=0, value="CT"):
    said = {"tag": "Modality", "op": "eq", "value": value}
    return Rule(name, template, condition_from_json(said), priority)


def test_the_highest_priority_chooses():
    assert choose([rule("a", "one"), rule("b", "two", 5)], header()).template == "two"


def test_rules_of_one_priority_that_disagree_leave_it_to_a_person():
    choice = choose([rule("a", "one"), rule("b", "two")], header())
    assert choice.template is None
    assert choice.ambiguous
    assert choice.matched == ("a", "b")
    assert choose([rule("a", "one"), rule("b", "one")], header()).template == "one"


def test_no_rule_that_holds_chooses_nothing():
    choice = choose([rule("a", "one", value="MR")], header())
    assert (choice.template, choice.ambiguous) == (None, False)
    assert choose([], header()).template is None


def test_the_dry_run_shows_what_each_test_saw():
    ((_, trace),) = choose([rule("a", "one", value="MR")], header()).traces
    assert trace.values == ("CT",)
    assert not trace.holds
    assert "CT" not in repr(trace), "a value can be a name and reprs reach logs"


def v1(*pairs):
    rules = [{"tag": tag, "value": value} for tag, value in pairs]
    (made,) = rules_from_v1({"rule_sets": [{"name": "s", "rules": rules}]})
    return evaluate(made.condition, header()).holds


def test_a_rule_set_of_the_first_client_holds_where_all_texts_are_equal():
    assert v1(("Modality", "CT"), ("SliceThickness", "2.50"))
    assert not v1(("SliceThickness", "2.5")), "it compared what is written"
    assert not v1(("Modality", "ct"))
    assert v1(("ImageType", "['ORIGINAL', 'PRIMARY', 'AXIAL']"))
    assert not v1(("PatientsName", "Doe^Jane")), "an apostrophe was never found"
    assert not v1()


def v2_group(sets):
    return {"rule_groups": [{"name": "g", "template": "t", "rule_sets": sets}]}


def v2_rule(tag, operator, value, combination="AND", order=0):
    return {
        "tag": tag,
        "operator": operator,
        "value": value,
        "combination": combination,
        "order": order,
    }


TRUE = ("Modality", "EQUALS", "CT")
FALSE = ("Modality", "EQUALS", "MR")


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["AND", "OR"])), min_size=1, max_size=6
    )
)
def test_rules_of_the_second_client_fold_from_left_to_right(members):
    rules = [
        v2_rule(*(TRUE if true else FALSE), combination, order)
        for order, (true, combination) in enumerate(members)
    ]
    (made,) = rules_from_v2(v2_group([{"order": 0, "rules": rules[::-1]}]))
    expected = members[0][0]
    for (_, before), (true, _) in pairwise(members):
        expected = (expected and true) if before == "AND" else (expected or true)
    assert evaluate(made.condition, header()).holds == expected
    sets = [
        {
            "order": order,
            "combination": combination,
            "rules": [v2_rule(*(TRUE if true else FALSE))],
        }
        for order, (true, combination) in enumerate(members)
    ]
    (made,) = rules_from_v2(v2_group(sets))
    assert evaluate(made.condition, header()).holds == expected


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_a_missing_element_failed_every_operator_of_the_second_client(operator):
    rules = [v2_rule("Protocol Name", operator, "1")]
    (made,) = rules_from_v2(v2_group([{"rules": rules}]))
    assert not evaluate(made.condition, header()).holds


@pytest.mark.parametrize(
    ("tag", "operator", "value", "expected"),
    [
        ("Slice Thickness", "EQUALS", "2.50", True),
        ("Slice Thickness", "EQUALS", "2.5", False),
        ("Slice Thickness", "LESS_THAN_OR_EQUAL_TO", "2.5", True),
        ("Slice Thickness", "GREATER_THAN", "x", False),
        ("Pixel Spacing", "GREATER_THAN", "0", False),
        ("Patient's Name", "CASE_INSENSITIVE_STRING_CONTAINS", "doe", True),
        ("(0008,103E)", "CASE_SENSITIVE_STRING_DOES_NOT_CONTAIN", "dibh", True),
        ("(0008,103E)", "CASE_INSENSITIVE_STRING_DOES_NOT_CONTAIN", "dibh", False),
        ("Study ID", "CASE_SENSITIVE_STRING_DOES_NOT_CONTAIN", "x", True),
        ("Anatomic Region Sequence", "NOT_EQUALS", "x", False),
    ],
)
def test_operators_of_the_second_client_mean_what_they_meant(
    tag, operator, value, expected
):
    rules = [v2_rule(tag, operator, value)]
    (made,) = rules_from_v2(v2_group([{"rules": rules}]))
    assert evaluate(made.condition, header()).holds == expected
    (back,) = rules_from_json(rules_to_json([made]))
    assert evaluate(back.condition, header()).holds == expected


def test_an_empty_group_of_the_second_client_never_holds():
    (made,) = rules_from_v2(v2_group([]))
    assert not evaluate(made.condition, header()).holds
    (made,) = rules_from_v2(v2_group([{"rules": []}]))
    assert not evaluate(made.condition, header()).holds
