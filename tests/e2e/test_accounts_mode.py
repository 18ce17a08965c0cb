"""The accounts mode for real: root starts the hub, people are isolated."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub import system_accounts
from hub.demo_signin import ACCOUNTS
from hub.leftovers import processes
from tests import kernel
from tests.browser import ROOT
from tests.hub_process import RunningHub, running_hub, start

pytestmark = [
    pytest.mark.hub,
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: accounts need root"),
]


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """A hub in accounts mode, with the demo; its accounts are removed afterwards."""
    # pytest's own folders are closed to other accounts.
    with tempfile.TemporaryDirectory(prefix="theatrum-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        try:
            system_accounts.refuse_if_impossible(ROOT, home)
        except system_accounts.AccountError as err:
            pytest.skip(f"NOT TESTED: {err}")
        made = set(_accounts())
        try:
            with running_hub(home, THEATRUM_MODE="accounts") as running:
                yield running
        finally:
            for name in set(_accounts()) - made:
                subprocess.run(["userdel", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def outcome(hub: RunningHub) -> dict[str, object]:
    """What student1's kernel could do, while student2's server runs as well."""
    with hub.api("student2") as second:
        kernel.start_server(second, "student2")
        kernel.run(hub, second, "student2", "open('mine.txt', 'w').write('private')")
        with hub.api("student1") as first:
            kernel.start_server(first, "student1")
            printed = kernel.run(hub, first, "student1", _attempts(hub.home))
    found: dict[str, object] = json.loads(printed)
    return found


def test_each_server_runs_under_the_account_of_its_person(
    outcome: dict[str, object],
) -> None:
    entry = pwd.getpwnam("student1")
    assert outcome["uid"] == entry.pw_uid >= system_accounts.FIRST_PERSON_UID


def test_homes_are_closed_to_others(hub: RunningHub, outcome: object) -> None:
    for name in ("student1", "student2"):
        home = hub.home / "homes" / name
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert home.stat().st_uid == pwd.getpwnam(name).pw_uid


@pytest.mark.parametrize(
    "what",
    [
        "the other's home",
        "the other's file",
        "the grade book",
        "the course's source",
        "what was handed in",
        "the hub's database",
        "the passwords",
        "the cookie secret",
        "the tile key",
        "the catalogue",
        "the slides",
        "the log",
    ],
)
def test_a_student_cannot_read(outcome: dict[str, object], what: str) -> None:
    assert outcome[what] == "PermissionError"


def test_a_student_sees_no_other_token_in_the_processes(
    outcome: dict[str, object],
) -> None:
    assert outcome["tokens seen"] == 1


def test_a_student_can_write_to_their_own_home(outcome: dict[str, object]) -> None:
    assert outcome["own file"] == "written"


def test_the_slide_is_seen_through_the_service(outcome: dict[str, object]) -> None:
    assert outcome["slide"] == [240, 320, 3]


def test_nothing_that_meets_people_runs_as_root(hub: RunningHub) -> None:
    meeting = {
        (process.environ().get("JUPYTERHUB_SERVICE_NAME", "a person's server"), who)
        for process, person in processes(hub.home)
        if (who := process.username())
        and (person or "JUPYTERHUB_SERVICE_NAME" in process.environ())
    }
    assert ("histology101", "grader-histology101") in meeting
    assert ("tiles", system_accounts.SERVICES) in meeting
    assert [name for name, who in meeting if who == "root"] == []


def test_a_plain_user_is_told_that_the_mode_needs_root(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    code = (
        "import os; os.setuid(%d)\n"
        "from pathlib import Path\n"
        "from hub.system_accounts import refuse_if_impossible\n"
        "refuse_if_impossible(Path('/'), Path('/'))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code % nobody.pw_uid],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "run it as root" in told.stderr


def test_on_a_new_machine_files_are_still_those_of_their_person(tmp_path: Path) -> None:
    name, folder = "theatrum-test-ada", tmp_path / "homes" / "theatrum-test-ada"
    folder.mkdir(parents=True)
    os.chown(folder, 54321, 54321)
    try:
        assert system_accounts.ensure_person(name, folder).pw_uid == 54321
        other = tmp_path / "other"
        other.mkdir()
        os.chown(other, 54321, 54321)
        with pytest.raises(system_accounts.AccountError, match="not unique"):
            system_accounts.ensure_person("theatrum-test-eve", other)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["root", "daemon", "a b", "-x", "A"])
def test_a_name_of_the_system_or_no_name_at_all_is_no_person(name: str) -> None:
    with pytest.raises(system_accounts.AccountError):
        system_accounts.ensure_person(name, Path("/nonexistent"))


def test_a_home_that_others_cannot_enter_is_refused_at_the_start(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    process = start(closed / "home", "--no-demo", THEATRUM_MODE="accounts")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Other accounts cannot reach" in said


def _accounts() -> list[str]:
    wanted = {*ACCOUNTS, system_accounts.SERVICES, "grader-histology101"}
    return [entry.pw_name for entry in pwd.getpwall() if entry.pw_name in wanted]


def _attempts(home: Path) -> str:
    """Code that tries to read what is not its own, and tells what came of it."""
    targets = {
        "the other's home": "homes/student2",
        "the other's file": "homes/student2/mine.txt",
        "the grade book": "courses/histology101/gradebook.db",
        "the course's source": "courses/histology101/source",
        "what was handed in": "exchange/histology101",
        "the hub's database": "jupyterhub.sqlite",
        "the passwords": "demo-accounts.json",
        "the cookie secret": "jupyterhub_cookie_secret",
        "the tile key": "tile.key",
        "the catalogue": "catalog/theatrum.sqlite",
        "the slides": "images/ihc.svs",
        "the log": "logs/hub.log",
    }
    return f"""
import glob, json, os
from pathlib import Path
home, found = Path({str(home)!r}), {{}}
for what, path in {targets!r}.items():
    try:
        path = home / path
        found[what] = str(os.listdir(path) if path.is_dir() else path.read_bytes()[:9])
    except OSError as err:
        found[what] = type(err).__name__
tokens = set()
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(path, "rb") as file:
            variables = file.read().split(b"\\0")
    except OSError:
        continue
    tokens |= {{v for v in variables if v.startswith(b"JUPYTERHUB_API_TOKEN=")}}
found["tokens seen"] = len(tokens)
found["uid"] = os.getuid()
Path("own.txt").write_text("mine")
found["own file"] = "written" if Path.home().joinpath("own.txt").exists() else ""
from theatrum import images
slide = images["histology101/ihc"]
found["slide"] = slide.region(8000, 8000, 320, 240).shape
print(json.dumps(found))
"""


@pytest.mark.usefixtures("outcome")
def test_work_travels_between_the_accounts_of_student_and_grader(
    hub: RunningHub,
) -> None:
    course, work = "histology101", "slide1"
    wanted = {"course_id": course, "assignment_id": work}
    with hub.api("student1") as student:
        for verb in ("fetch", "submit"):
            done = student.post(f"user/student1/assignments/{verb}", json=wanted)
            assert done.json()["success"], done.text
    with hub.sign_in("teacher") as teacher:
        formgrader = f"services/{course}/formgrader"
        teacher.get(f"{formgrader}/manage_assignments").raise_for_status()
        xsrf = next(
            cookie.value or ""
            for cookie in teacher.cookies.jar
            if cookie.name == "_xsrf" and course in cookie.path
        )
        headers = {"X-XSRFToken": xsrf, "Referer": hub.url}
        for action in (
            f"assignment/{work}/collect",
            f"submission/{work}/student1/autograde",
            f"assignment/{work}/generate_feedback",
            f"assignment/{work}/release_feedback",
        ):
            done = teacher.post(f"{formgrader}/api/{action}", headers=headers)
            assert done.json()["success"], done.text
    with hub.api("student1") as student:
        done = student.post("user/student1/assignments/fetch_feedback", json=wanted)
        assert done.json()["success"], done.text
    home = hub.home / "homes" / "student1" / course / work
    (feedback,) = home.glob("feedback/*/slide1.html")
    assert feedback.stat().st_uid == pwd.getpwnam("student1").pw_uid
    assert "(Score: 0.0 / 10.0)" in feedback.read_text()
