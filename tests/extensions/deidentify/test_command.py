"""`theatrum deidentify IN OUT`, as somebody types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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


# A run that is killed when it has brought so many files to OUT.
_KILLED = """
import os, signal, sys
from theatrum.deidentify import command, package

whole, left = os.link, [int(sys.argv.pop(1))]

def link(*given):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    whole(*given)

package.os.link = link
command.main()
"""


@pytest.mark.parametrize("brought", [0, 2, 3])
def test_a_run_killed_while_it_brings_files_to_a_folder_can_be_repeated(
    here: Path, brought: int
) -> None:
    for number in (2, 3):
        one = image()
        one.SOPInstanceUID += f".{number}"
        put(one, here / "in" / f"{number}.dcm")
    given = {file: file.read_bytes() for file in (here / "in").iterdir()}
    out = here / "out"
    out.mkdir()
    out.chmod(0o750)  # whatever the mask is
    call = [str(here / "in"), str(out), "--key-file", str(here / "key")]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(brought), *call],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(out.glob("*.dcm"))) == brought
    assert not (out / "report.json").exists()

    assert run(here).exit_code == 0
    assert run(here, out="whole").exit_code == 0
    made = {file.name: file.read_bytes() for file in out.iterdir()}
    assert made == {f.name: f.read_bytes() for f in (here / "whole").iterdir()}
    assert len(made) == 4
    assert out.stat().st_mode & 0o777 == 0o750
    assert {file: file.read_bytes() for file in (here / "in").iterdir()} == given


def test_what_a_killed_run_left_beside_a_whole_package_takes_none_of_it_back(
    here: Path,
) -> None:
    assert run(here).exit_code == 0
    out, left = here / "out", here / "out" / ".partial-0123456789ab"
    before = sorted(out.iterdir())
    left.mkdir()
    for file in before:
        os.link(file, left / file.name)
    assert run(here).exit_code == 2
    assert sorted(out.iterdir()) == before
    # The same while it was being removed: its report went first.
    left.mkdir()
    for file in out.glob("*.dcm"):
        os.link(file, left / file.name)
    assert run(here).exit_code == 2
    assert sorted(out.iterdir()) == before
