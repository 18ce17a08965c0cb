"""`theatrum deidentify IN OUT`, as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from theatrum import deidentify
from typer.testing import CliRunner, Result

from services.cli import app
from tests.extensions.deidentify.running import KEY, PERSON, image, put


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    put(image(), tmp_path / "in" / "one.dcm")
    (tmp_path / "key").write_bytes(KEY)
    return tmp_path


def run(here: Path, *more: str, out: str = "out") -> Result:
    call = ["deidentify", str(here / "in"), str(here / out)]
    key = [] if "--key-file" in more else ["--key-file", str(here / "key")]
    return CliRunner().invoke(app, [*call, *key, *more])


def hold(here: Path) -> None:
    one = image()
    one.SOPInstanceUID += ".1"
    one.BurnedInAnnotation = "YES"
    put(one, here / "in" / f"{PERSON.name}.dcm")


def test_all_given_out_ends_with_0(here: Path) -> None:
    done = run(here, "--profile", "basic")
    assert done.exit_code == 0, done.output
    report = json.loads((here / "out" / "report.json").read_text())
    assert report["counts"]["given_out"] == 1


def test_some_that_stayed_end_with_3_where_that_is_asked_for(here: Path) -> None:
    hold(here)
    assert run(here, "--strict").exit_code == 3
    assert run(here, out="again").exit_code == 0
    report = json.loads((here / "out" / "report.json").read_text())
    assert report["held"][0]["reason"] == "burned_in"


def test_nothing_given_out_ends_with_4_where_that_is_asked_for(here: Path) -> None:
    (here / "in" / "one.dcm").write_text("no image")
    assert run(here, "--strict").exit_code == 4
    assert run(here, out="again").exit_code == 0


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (("--profile", "nosuch"), "There is no profile"),
        (("--key-file", "/nonexistent/key"), "head -c 32 /dev/urandom"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_to_do(
    here: Path, more: tuple[str, ...], wanted: str
) -> None:
    done = run(here, *more)
    assert done.exit_code == 2
    assert wanted in done.output
    assert not (here / "out").exists()


def test_a_short_key_is_refused(here: Path) -> None:
    (here / "key").write_bytes(b"short")
    assert run(here).exit_code == 2


def test_a_full_folder_is_not_written_to(here: Path) -> None:
    assert run(here).exit_code == 0
    before = sorted(here.rglob("*"))
    assert run(here).exit_code == 2
    assert sorted(here.rglob("*")) == before


def test_out_may_not_lie_in_in(here: Path) -> None:
    assert run(here, out="in/out").exit_code == 2
    assert [file.name for file in (here / "in").iterdir()] == ["one.dcm"]


def test_a_profile_of_ones_own_is_a_file(here: Path) -> None:
    (here / "mine.yaml").write_text("format: 1\nname: mine\nversion: '7'\n")
    assert run(here, "--profile", str(here / "mine.yaml")).exit_code == 0
    report = json.loads((here / "out" / "report.json").read_text())
    assert report["profile"]["name"] == "mine"


def test_nothing_that_is_said_names_a_patient(here: Path) -> None:
    hold(here)
    done = run(here)
    everything = done.output + (here / "out" / "report.json").read_text()
    for word in (*PERSON.name.split("^"), PERSON.patient_id):
        assert word.lower() not in everything.lower()


def test_the_mapping_and_the_operators_list_stay_outside(here: Path) -> None:
    hold(here)
    kept = here / "case.map"
    done = run(here, "--mapping", str(kept), "--operator-list", str(here / "list"))
    assert done.exit_code == 0
    mapping = deidentify.load_mapping(kept, "case.map", KEY)
    assert PERSON.patient_id in str(mapping.patients.values())
    line = (here / "list").read_text().splitlines()
    assert line == [f"burned_in\t{here / 'in' / (PERSON.name + '.dcm')}"]
    inside = str(here / "out2" / "case.map")
    assert run(here, "--mapping", inside, out="out2").exit_code == 2
