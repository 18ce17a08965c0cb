"""Forms made of parameters, and flows that are edited in a form."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from theatrum.catalog.errors import BadQuery
from theatrum.nodes.catalog import all_nodes

from services.catalog.pages import editing, fields
from services.catalog.pages.run import placeholders, runnable


def _inputs(node: str) -> dict[str, fields.Input]:
    schema = all_nodes()[node].parameters["properties"]
    return {one.name: one for one in fields.inputs(schema)}


def test_a_field_says_what_it_takes() -> None:
    assert _inputs("gauss")["sigma"].takes == (
        "number above 0, to 100; 1.0 if nothing is said"
    )
    assert _inputs("project")["last"].takes == "whole number from 0; may be left empty"
    assert _inputs("crop")["x"].takes.startswith("2 numbers, with commas between them")
    assert _inputs("median")["radius"].attributes == {"min": 1, "max": 200, "step": 1}
    assert _inputs("project")["how"].choices[0] == "max"


@pytest.mark.parametrize("node", runnable())
def test_what_a_node_does_by_itself_can_be_typed(node: str) -> None:
    wanted = _inputs(node)
    form = {f"p.{name}": [one.value] for name, one in wanted.items()}
    params = fields.typed([*wanted.values()], form)
    usual = {
        name: said["default"]
        for name, said in all_nodes()[node].parameters["properties"].items()
        if "default" in said
    }
    told = {name: value for name, value in usual.items() if name in params}
    assert params == told


@pytest.mark.parametrize("text", ["NaN", "1e999", "-Infinity", "[", "two", '"2"'])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match="Sigma"):
        fields.typed([_inputs("gauss")["sigma"]], {"p.sigma": [text]})


def _sent(graph: editing.Graph, **typed: str) -> editing.Draft:
    """The flow as the page's form brings it back, with what was typed."""
    form = {"graph": [json.dumps(graph)]}
    for card in editing.cards(editing.Draft(graph)):
        mark = f"s{card.at}."
        form[f"{mark}key"] = [card.key]
        if card.kind == "review":
            form[f"{mark}title"] = [card.title]
        form |= {f"{mark}p.{name}": [value] for name, value in card.values.items()}
        for at, port in enumerate(card.ports):
            for number, source in enumerate(port.joined):
                form[f"{mark}in.{port.name}.{at}{number}"] = [source]
        form[f"{mark}if.source"] = [card.condition[0]]
        form[f"{mark}if.op"] = [card.condition[1]]
        form[f"{mark}if.value"] = [card.condition[2]]
    form |= {name.replace("__", "."): [value] for name, value in typed.items()}
    return editing.read(form)


def _cells() -> editing.Graph:
    draft = editing.Draft(editing.empty("cells"))
    for what in ("node:gauss", "node:threshold", "review", "node:label"):
        editing.add(draft, what)
    return draft.graph


def test_a_step_is_joined_to_what_fits_last() -> None:
    assert _cells()["edges"] == [
        ["$image", "gauss.image"],
        ["gauss.result", "threshold.image"],
        ["threshold.mask", "review.image"],
        ["review.image", "label.mask"],
    ]


def test_a_form_that_is_sent_unchanged_changes_nothing() -> None:
    graph = _cells()
    again = _sent(graph).graph
    assert sorted(again["edges"]) == sorted(graph["edges"])
    assert again["steps"] == graph["steps"]


def test_a_step_keeps_its_edges_under_a_new_name() -> None:
    graph = _cells() | {"outputs": {"mask": "threshold.mask"}}
    renamed = _sent(graph, s1__key="parted").graph
    assert ["gauss.result", "parted.image"] in renamed["edges"]
    assert ["parted.mask", "review.image"] in renamed["edges"]
    assert renamed["outputs"] == {"mask": "parted.mask"}


def test_a_step_goes_with_all_that_leads_to_it_or_from_it() -> None:
    draft = _sent(_cells(), s3__if__source="threshold.share", s3__if__value="5")
    assert draft.steps[3]["when"][0] == "threshold.share"
    editing.remove(draft, 1)
    assert draft.graph["edges"] == [
        ["$image", "gauss.image"],
        ["review.image", "label.mask"],
    ]
    assert "when" not in draft.steps[2]


def test_a_parameter_that_is_asked_becomes_a_field_of_its_type() -> None:
    draft = _sent(_cells(), s0__p__sigma="2.5", s0__ask__sigma="yes")
    assert draft.steps[0]["params"] == {"sigma": {"$": "sigma"}}
    (field,) = fields.inputs(placeholders(draft.graph))
    assert (field.kind, field.value) == ("number", "2.5")
    assert "above 0, to 100" in field.takes
    editing.remove(draft, 0)
    assert draft.graph["parameters"] == {}


def test_what_cannot_be_read_is_told_and_stays_typed() -> None:
    draft = _sent(_cells(), s0__p__sigma="much", s3__if__source="threshold.share")
    assert draft.faults == ["gauss: Sigma cannot be read: much"]
    (first, *_) = editing.cards(draft)
    assert first.values["sigma"] == "much"
    draft = _sent(_cells(), s3__if__source="threshold.share", s3__if__value="Infinity")
    assert draft.faults == ["the condition of 'label' is no number: Infinity"]


@pytest.mark.parametrize(
    "said", [[], {"steps": [1]}, {"edges": [["a"]]}, {"outputs": {"a": 1}}, "no JSON"]
)
def test_a_form_that_holds_no_flow_is_refused(said: Mapping[str, object] | str) -> None:
    text = said if isinstance(said, str) else json.dumps(said)
    with pytest.raises(BadQuery, match="does not hold a flow"):
        editing.read({"graph": [text]})
