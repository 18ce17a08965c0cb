"""The states are those of the specification, and people have the rights of theirs."""

from __future__ import annotations

import pytest

from hub.signin import Person
from services.dicom_client.errors import NotAllowed
from services.dicom_client.people import ROLES, Right, require, rights_of
from services.dicom_client.states import (
    BESIDES,
    ENDED,
    FOLLOWS,
    SPECIFIED,
    STATES,
    WORK,
)

TABLE = """
discovered: stable ignored
ignored: discovered
stable: matched unmatched ambiguous held
held: matched ignored
unmatched: matched ignored
ambiguous: matched ignored
matched: deidentified failed
deidentified: packed
packed: uploading
uploading: submitted packed
submitted: processing server_failed lost
processing: ready
ready: downloaded
downloaded: reidentified rejected
rejected: ready failed
reidentified: exported
exported: confirmed
confirmed: done
done:
failed: packed matched
server_failed: packed matched
lost: packed matched
cancelled: packed matched
"""


def test_the_states_that_may_follow_are_those_of_the_specification() -> None:
    wanted = {}
    for line in TABLE.strip().splitlines():
        state, _, following = line.partition(":")
        wanted[state] = frozenset(following.split())
    assert wanted == SPECIFIED


def test_what_follows_besides_is_only_being_called_off_or_failed_by_the_server() -> (
    None
):
    added = {state for following in BESIDES.values() for state in following}
    assert added == {"cancelled", "server_failed", "lost"}
    assert "cancelled" not in FOLLOWS["exported"]


def test_every_state_is_worked_on_or_waits_or_is_an_end() -> None:
    waiting = {"discovered", "stable", "held", "unmatched", "ambiguous", "rejected"}
    assert set(WORK) | waiting | ENDED == set(STATES)
    assert not set(WORK) & ENDED


@pytest.mark.parametrize(
    ("group", "wanted"),
    [
        ("dicom-viewers", {Right.SEE}),
        ("dicom-planners", {Right.SEE, Right.PLAN}),
        ("dicom-template-editors", {Right.EDIT}),
        ("dicom-administrators", set(Right)),
        ("students", set()),
    ],
)
def test_a_group_gives_the_rights_of_its_name(group: str, wanted: set[Right]) -> None:
    person = Person("somebody", "user", frozenset({group}))
    assert rights_of(person) == wanted
    for right in Right:
        if right in wanted:
            assert require(person, right) is person
        else:
            with pytest.raises(NotAllowed):
                require(person, right)


def test_the_hub_makes_the_groups_that_have_rights() -> None:
    from hub.wiring import DICOM_GROUPS

    assert set(DICOM_GROUPS) == set(ROLES)
