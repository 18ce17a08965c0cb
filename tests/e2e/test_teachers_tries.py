"""A teacher who tries the questions changes nobody's points and tells nobody."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import pytest

from tests.browser import ROOT
from tests.hub_process import RunningHub

pytestmark = [pytest.mark.hub]

COURSE, WORK = "histology101", "slide1"


def test_a_teachers_tries_do_not_travel_to_the_students(hub: RunningHub) -> None:
    course = hub.home / "courses" / COURSE
    environment = {
        "PATH": str(ROOT / ".venv" / "bin"),
        "HOME": str(course),
        "THEATRUM_COURSE": COURSE,
        "THEATRUM_COURSE_DIR": str(course),
        "JUPYTER_CONFIG_PATH": str(ROOT / "hub" / "jupyter"),
    }
    tries = course / "source" / WORK / ".tries"
    tries.mkdir(exist_ok=True)
    (tries / "q1.answer.json").write_text("{}")
    generated = subprocess.run(
        [sys.executable, "-m", "nbgrader", "generate_assignment", WORK, "--force"],
        cwd=course,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert generated.returncode == 0, generated.stderr
    with hub.api("student2") as student:
        package = student.get(
            f"services/courses/api/v1/courses/{COURSE}/assignments/{WORK}"
        ).content
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        assert archive.namelist() == [f"{WORK}.ipynb"]
    released = course / "release" / WORK
    assert [path.name for path in released.iterdir()] == [f"{WORK}.ipynb"]
