"""Builds the demo: the slide, its place in the catalogue, and the course.

A build that was cut off goes on where it stopped; one that is done is not looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from nbgrader.api import Gradebook
from rich.console import Console
from rich.progress import Progress
from sqlalchemy.orm import Session

from hub import course as course_file
from hub import demo_signin, demo_slide
from hub.course import Course
from hub.home import Home
from hub.settings import ROOT, load
from hub.wiring import RESEARCHERS
from services.catalog import store
from services.courses.exchange import Exchange
from services.courses.packages import pack

COURSE = ROOT / "notebooks" / "courses" / "histology101"
SLIDE_TITLE = "Colon, FHL2 immunohistochemistry"

console = Console(highlight=False)


def build(home: Home) -> None:
    """Build what is missing of the demo in `home`, unless it is all there.

    Afterwards, in accounts mode, the folders belong to the accounts that work on them,
    and root never writes there again.
    """
    if home.demo_built.exists():
        return
    os.umask(0o077)
    home.prepare()
    if home.images.stat().st_uid != os.geteuid():
        console.print("This home was begun without the demo; it is not built later.")
        return
    demo_signin.passwords(home.demo_accounts)
    course = course_file.read(COURSE / "course.toml")
    slide = home.images / f"{course.image}.svs"
    if not slide.exists():
        _build_slide(slide)
    _register(home, course, slide)
    if not (home.courses / course.id / "course.toml").exists():
        _install_course(home, course)
    home.demo_built.touch()


def _build_slide(slide: Path) -> None:
    with Progress(console=console) as bar:
        task = bar.add_task("Building the demo slide", total=1.0)
        demo_slide.build(slide, lambda done: bar.update(task, completed=done))


def _register(home: Home, course: Course, slide: Path) -> None:
    engine = store.open_store(home)
    with Session(engine) as session:
        collection = store.ensure_collection(
            session,
            course.collection,
            (course.student_group, course.teacher_group, RESEARCHERS),
        )
        store.add_image(session, collection, slide, title=SLIDE_TITLE)
    engine.dispose()


def _install_course(home: Home, course: Course) -> None:
    """Set the course up as its teacher would: generate and release its assignments."""
    console.print(f"Setting up the course {course.title} ...")
    target = home.courses / course.id
    staging = target.with_name(f".{course.id}.new")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(COURSE, staging)
    environment = os.environ | {
        "JUPYTER_CONFIG_PATH": str(ROOT / "hub" / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(staging / ".jupyter"),
        "THEATRUM_COURSE": course.id,
        "THEATRUM_COURSE_DIR": str(staging),
    }
    with Gradebook(f"sqlite:///{staging / 'gradebook.db'}", course.id) as gradebook:
        for student in course.students:
            gradebook.add_student(student, last_name=student, first_name="Demo")
    table = tomllib.loads((COURSE / "course.toml").read_text("utf-8"))
    for assignment in table["assignments"]:
        name = assignment["name"]
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", "generate_assignment", name, "--create"],
            cwd=staging,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            console.print(done.stderr, markup=False)
            raise SystemExit(
                f"The assignment {name} could not be generated; see above."
            )
        Exchange(home.exchange).release(
            course.id, name, pack(staging / "release" / name), force=True
        )
    staging.rename(target)


if __name__ == "__main__":
    build(Home(load().home))
