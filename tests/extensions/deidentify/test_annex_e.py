"""The table: complete, and read as the standard means it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from theatrum.deidentify.annex_e import Option, attribute_rules
from theatrum.deidentify.rules import Do, Rules

from benchmarks.deidentify import oracle
from tests.extensions.deidentify.running import profile

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"


def test_the_table_has_every_row_of_both_editions() -> None:
    rules = attribute_rules()
    assert len(rules) == 621 - 1 + 35
    assert len({rule.tag for rule in rules}) == len(rules)
    assert {rule.basic for rule in rules} == {
        "X", "D", "U", "Z", "X/D", "X/Z", "X/Z/D", "Z/D", "X/Z/U*",
    }  # fmt: skip


def test_every_option_of_the_table_is_an_option_of_profiles() -> None:
    columns = {option for rule in attribute_rules() for option in rule.options}
    without_a_column = {
        Option.CLEAN_PIXEL_DATA,
        Option.CLEAN_VISUAL_FEATURES,
        Option.RETAIN_SAFE_PRIVATE,
    }
    assert columns == set(Option) - without_a_column


@pytest.mark.parametrize(
    ("sop_class", "tag", "path", "wanted"),
    [
        # X/Z/D: type 3 in General Equipment, so it goes.
        (CT, 0x00080080, (), Do.REMOVE),
        # Z/D: type 2 in Patient, and it becomes the pseudonym.
        (CT, 0x00100020, (), Do.PATIENT_ID),
        # Z: type 2 in General Study.
        (CT, 0x00080020, (), Do.EMPTY),
        # X/Z: type 3 in CT Image, type 2 nowhere.
        (CT, 0x00080022, (), Do.REMOVE),
        # Z/D of a content date that General Image has as type 2C.
        (CT, 0x00080023, (), Do.EMPTY),
        # X/D: type 3 in General Series.
        (MR, 0x00181030, (), Do.REMOVE),
        # Z of a type 2 attribute of Structure Set.
        (RTSTRUCT, 0x30060008, (), Do.EMPTY),
        # D whatever the type.
        (RTSTRUCT, 0x30060002, (), Do.DUMMY),
        # X/Z/U*: type 3, so the sequence goes.
        (CT, 0x00081140, (), Do.REMOVE),
        # A class that nobody knows keeps everything valid.
        ("1.2.3.4", 0x00080080, (), Do.DUMMY),
    ],
)
def test_a_choice_follows_the_type_of_the_attribute_in_the_iod(
    sop_class: str, tag: int, path: tuple[int, ...], wanted: Do
) -> None:
    assert Rules(profile(), "CT", sop_class).do(tag, path) is wanted


def test_a_type_is_looked_up_at_its_own_depth() -> None:
    rules = Rules(profile(), "CT", CT)
    # InstitutionName within the identification of a reading physician is 1C.
    assert rules.do(0x00080080, (0x00081072,)) is Do.DUMMY


def test_text_outside_the_table_is_kept_only_from_the_list() -> None:
    rules = Rules(profile(), "CT", CT)
    assert rules.do(0x00080070, ()) is Do.KEEP_TEXT  # Manufacturer
    assert rules.do(0x00100033, ()) is Do.REMOVE  # birth date of another calendar
    assert rules.do(0x00280010, ()) is Do.KEEP  # Rows
    assert rules.do(0x004400EE, ()) is Do.REMOVE  # no edition knows it


def test_an_unlisted_uid_is_replaced_unless_it_names_a_class() -> None:
    rules = Rules(profile(), "CT", CT)
    assert rules.do(0x00083012, ()) is Do.UID
    assert rules.do(0x00080016, ()) is Do.KEEP


@pytest.mark.parametrize("name", ["basic", "autosegmentation"])
def test_nothing_comes_out_of_what_our_own_table_lists(
    tmp_path: Path, name: str
) -> None:
    tags = [
        (rule.tag >> 16, rule.tag & 0xFFFF)
        for rule in attribute_rules()
        if rule.tag >> 24 not in (0x50, 0x60)
    ]
    assert oracle.let_out(tags, name, tmp_path) == []


def test_nothing_comes_out_of_what_dicom_anonymizer_lists(tmp_path: Path) -> None:
    peer = os.environ.get("THEATRUM_DICOM_ANONYMIZER", "")
    if not peer:
        pytest.skip(
            "dicom-anonymizer: set THEATRUM_DICOM_ANONYMIZER to a Python that has it"
        )
    done = subprocess.run(
        [peer, "-c", oracle.PEER_LIST], capture_output=True, text=True, check=True
    )
    tags = [tuple(tag) for tag in json.loads(done.stdout) if len(tag) == 2]
    assert len(tags) > 640
    assert oracle.let_out(tags, "basic", tmp_path) == []
