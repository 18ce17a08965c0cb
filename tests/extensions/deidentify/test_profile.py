"""Profiles: read strictly, with errors that a person can act on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from theatrum import deidentify

from tests.extensions.deidentify.running import image, through


@pytest.mark.parametrize("name", ["basic", "autosegmentation"])
def test_the_shipped_profiles_are_valid_and_versioned(name: str) -> None:
    profile = deidentify.load_profile(name)
    assert profile.name == name
    assert profile.version
    assert len(profile.digest) == 64


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("format: 2\nname: a\nversion: '1'", "format"),
        ("format: 1\nversion: '1'", "name: Field required"),
        ("format: 1\nname: a\nversion: '1'\noption: []", "option: Extra inputs"),
        ("format: 1\nname: a\nversion: '1'\noptions: [keep_all]", "options.0"),
        (
            "format: 1\nname: a\nversion: '1'\nattributes: {StudyDescripton: K}",
            "'StudyDescripton' is no attribute",
        ),
        (
            "format: 1\nname: a\nversion: '1'\nattributes: {StudyDescription: Q}",
            "attributes.StudyDescription",
        ),
        (
            "format: 1\nname: a\nversion: '1'\nattributes: {'(0009,1001)': K}",
            "safe_private",
        ),
        (
            "format: 1\nname: a\nversion: '1'\noptions: "
            "[retain_longitudinal_full_dates, retain_longitudinal_modified_dates]",
            "in full or shifted, not both",
        ),
        ("format: 1\nname: a\nname: b\nversion: '1'", "stands there twice"),
        ("[1, 2]", "start with `format: 1`"),
        ("{", "neither YAML nor JSON"),
        ("format: 1\nname: a\nversion: '1'\npatient_id: same", "patient_id"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_place(text: str, wanted: str) -> None:
    with pytest.raises(deidentify.ProfileError) as refused:
        deidentify.parse_profile(text, "mine.yaml")
    assert wanted in str(refused.value)


def test_json_is_a_profile_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"format": 1, "name": "mine", "version": "3"}))
    assert deidentify.load_profile(file).version == "3"


def test_a_profile_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(deidentify.ProfileError, match="autosegmentation, basic"):
        deidentify.load_profile("harmless")


def test_an_attribute_of_the_profile_overrules_the_table(tmp_path: Path) -> None:
    more = "attributes: {SeriesDescription: K, Manufacturer: X}"
    done, _ = through(tmp_path, image(), more=more)
    assert done.SeriesDescription == "Thorax routine"
    assert "Manufacturer" not in done


def test_a_modality_has_options_of_its_own(tmp_path: Path) -> None:
    more = "by_modality: {PT: {options: [retain_patient_characteristics]}}"
    for modality, wanted in (("PT", True), ("CT", False)):
        one = image(modality)
        one.PatientWeight = "68"
        done, _ = through(tmp_path, one, more=more)
        assert ("PatientWeight" in done) is wanted


def test_autosegmentation_has_what_builders_of_rtstruct_read(tmp_path: Path) -> None:
    one = image()
    del one.StudyID, one.StudyTime
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    from pydicom import dcmread

    from tests.extensions.deidentify.running import package, put

    put(one, source / "one.dcm")
    package(source, target, deidentify.load_profile("autosegmentation"))
    (file,) = target.glob("*.dcm")
    done = dcmread(file)
    assert done.StudyID == ""
    assert done.StudyTime == ""
    assert done.StudyDate
    assert str(done.PatientName).startswith("DRAW^")


def test_any_change_changes_the_digest() -> None:
    text = "format: 1\nname: a\nversion: '1'\n"
    one = deidentify.parse_profile(text, "a")
    other = deidentify.parse_profile(text + "attributes: {PatientSex: K}", "a")
    assert one.digest != other.digest
