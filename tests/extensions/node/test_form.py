"""Forms of nodes: a field for each parameter, with its default, bounds and help."""

from __future__ import annotations

import pytest
from theatrum.node import BadInputs
from theatrum.node.form import form
from theatrum.nodes.catalog import NODES, all_nodes, gauss, project, slices, unmix


def test_a_form_has_the_defaults_of_its_node() -> None:
    for name, node in all_nodes().items():
        if not node.parameters.get("required"):
            assert form(node).values() == node.checked_parameters({}), name
    assert len(NODES) > 50


def test_fields_know_choices_and_bounds() -> None:
    asked = form(gauss)
    assert (asked.fields["sigma"].min, asked.fields["sigma"].max) == (0, 100)
    assert asked.fields["within"].options == ("yx", "zyx")
    asked.fields["sigma"].value = 2.5
    asked.fields["within"].value = "zyx"
    assert asked.values() == {"sigma": 2.5, "within": "zyx"}


def test_lists_and_numbers_that_may_be_left_out_are_written_as_json() -> None:
    asked = form(slices)
    asked.fields["indices"].value = "[3, 5]"
    assert asked.values()["indices"] == (3, 5)
    looked = form(project)
    assert looked.values()["last"] is None
    looked.fields["last"].value = "7"
    assert looked.values()["last"] == 7


def test_what_is_wrong_is_told_beside_the_fields() -> None:
    asked = form(unmix)
    with pytest.raises(BadInputs, match="spectra"):
        asked.values()
    assert "spectra" in asked.problem.value
    asked.fields["spectra"].value = "[[1, 0], [0, 1]]"
    assert asked.values()["spectra"] == ((1.0, 0.0), (0.0, 1.0))
    assert asked.problem.value == ""
