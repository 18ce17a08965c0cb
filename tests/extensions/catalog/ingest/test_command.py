"""`theatrum catalog ...` as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from sqlalchemy import create_engine, text
from theatrum.catalog import connect
from typer.testing import CliRunner

from services.cli import app
from tests import dcmtk, stacks
from tests.extensions.catalog.formats import scans


def _run(*arguments: object):
    return CliRunner().invoke(app, ["catalog", *map(str, arguments)])


def _count(home: Path, table: str = "image") -> int:
    file = home / "catalog" / "theatrum.sqlite"
    if not file.exists():
        return 0
    engine = create_engine(f"sqlite:///{file}")
    try:
        with engine.connect() as connection:
            found = connection.execute(text(f"SELECT count(*) FROM {table}"))  # noqa: S608
            return int(found.scalar_one())
    finally:
        engine.dispose()


def test_paths_that_are_not_there_are_a_wrong_call(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = _run("ingest", tmp_path / "nope", "--project", "study", "--home", home)
    assert done.exit_code == 2
    assert "There is no" in done.output
    assert not home.exists()


def test_ingest_says_what_it_took_and_writes_the_report(tmp_path: Path) -> None:
    scans.write_series(tmp_path / "source" / "scan")
    (tmp_path / "source" / "note.txt").write_text("hello")
    home, report = tmp_path / "home", tmp_path / "report.json"
    asked = ("ingest", tmp_path / "source", "--project", "study", "--home", home)
    done = _run(*asked, "--report", report)
    assert done.exit_code == 0, done.output
    assert 'images["study/t1-mprage"]' in done.output
    assert "left out note.txt" in done.output
    told = json.loads(report.read_text())
    assert told["counts"] == {"taken": 1, "known": 0, "waiting": 0, "refused": 1}
    assert told["taken"][0]["images"] == ["study/t1-mprage"]
    assert len(told["taken"][0]["files"]) == 4
    assert told["refused"][0]["files"] == ["note.txt"]
    assert told["refused"][0]["reason"]
    assert report.stat().st_mode & 0o077 == 0
    again = _run(*asked, "--strict")
    assert again.exit_code == 1
    assert "1 known already" in again.output
    assert _count(home) == 1


def test_a_project_that_cannot_be_named_so_is_told(tmp_path: Path) -> None:
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    done = _run("ingest", path, "--project", "No Such", "--home", tmp_path / "home")
    assert done.exit_code == 2
    assert "cannot name a project" in done.output


def test_the_inbox_is_reviewed_from_the_command_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)
    other = stacks.write_nifti(tmp_path / "b.nii", stacks.SIGNED)
    done = _run("ingest", path, other, "--project", "p", "--home", home, "--inbox")
    assert "2 waiting in the inbox" in done.output
    listed = _run("inbox", "list", "--home", home)
    assert "a.nii" in listed.output
    file = home / "catalog" / "theatrum.sqlite"
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        query = text("SELECT title, id FROM inbox_item")
        ids = {row.title: row.id for row in connection.execute(query)}
    engine.dispose()
    edited = _run("inbox", "edit", ids["a.nii"], "subject__label=m1", "--home", home)
    assert edited.exit_code == 0, edited.output
    accepted = _run("inbox", "accept", ids["a.nii"], "--home", home)
    assert accepted.exit_code == 0, accepted.output
    rejected = _run("inbox", "reject", ids["b.nii"], "--home", home)
    assert rejected.exit_code == 0, rejected.output
    assert _count(home) == _count(home, "subject") == 1
    wrong = _run("inbox", "reject", ids["b.nii"], "--home", home)
    assert wrong.exit_code == 2


def test_ctrl_c_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    source, home = tmp_path / "source", tmp_path / "home"
    source.mkdir()
    for number in range(400):
        image = nibabel.Nifti1Image(np.full((4, 4, 4), number, "i2"), np.eye(4))
        nibabel.save(image, source / f"{number:03d}.nii")
    report = tmp_path / "report.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from services.cli import app; app()"),
            *("catalog", "ingest", str(source), "--project", "p"),
            *("--home", str(home), "--report", str(report)),
        ],
        cwd=Path(__file__).resolve().parents[4],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    dcmtk.until(lambda: _taken(home) >= 3, limit_s=120)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert b"interrupted" in told
    written = json.loads(report.read_text())
    assert written["interrupted"]
    assert 3 <= len(written["taken"]) == _count(home) < 400


def _taken(home: Path) -> int:
    try:
        return _count(home)
    except Exception:  # the tables are being made
        return 0


def _started(*arguments: object) -> subprocess.Popen[bytes]:
    code = "from services.cli import app; app()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "catalog", *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[4],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _stopped(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told


def test_what_a_node_sends_to_the_command_is_an_image_soon(tmp_path: Path) -> None:
    files = scans.write_series(tmp_path / "scan")
    home, port = tmp_path / "home", dcmtk.free_port()
    process = _started("receive", "--project", "p", "--port", port, "--home", home)
    try:
        dcmtk.until(lambda: dcmtk.listens(port))
        sent = dcmtk.storescu(port, files=files)
        assert sent.returncode == 0, sent.stderr
        dcmtk.until(lambda: _taken(home) == 1)
        # What was staged is moved, and nothing of it is left.
        received = home / "images" / ".received"
        dcmtk.until(lambda: not list(received.glob("*/association-*")))
        # What nobody can read stays: its sender may have kept nothing.
        damaged = tmp_path / "damaged.dcm"
        image = pydicom.dcmread(files[0])
        image.SOPInstanceUID = pydicom.uid.generate_uid()
        image.Rows = 9999
        image.save_as(damaged)
        sent = dcmtk.storescu(port, files=[damaged])
        assert sent.returncode == 0, sent.stderr
        dcmtk.until(lambda: len(list(received.glob("*/refused/*/*.dcm"))) == 1)
    finally:
        _stopped(process)


def test_what_is_put_into_a_watched_folder_is_an_image_soon(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "watched"
    folder.mkdir()
    process = _started(
        *("watch", folder, "--project", "p", "--home", home, "--settled", 0.1)
    )
    try:
        dcmtk.until(lambda: (home / "catalog" / "theatrum.sqlite").exists())
        scans.write_series(folder / "scan")
        stacks.write_nifti(folder / "a.nii", stacks.VOLUME)
        dcmtk.until(lambda: _taken(home) == 2)
    finally:
        _stopped(process)


def test_a_modality_is_guessed_from_a_usual_name_and_told_as_a_guess(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    source = tmp_path / "scans"
    source.mkdir()
    for name in ("FLAIR", "anat", "t1w_brain", "liver"):
        values = np.full((4, 5, 6), len(name), np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), source / f"{name}.nii.gz")
    catalog = connect(home, user="ann")
    report = catalog.ingest(source, project="p")
    found = {one.name: one.modality for one in catalog.images}
    assert {name for name, one in found.items() if one == "MR"} == {
        name for name in found if not name.startswith("liver")
    }
    told = [one for one in report.entries if any("guessed" in w for w in one.warnings)]
    assert len(told) == 3
    # What somebody says counts.
    asked = ("--project", "q", "--home", home, "--modality", "CT")
    done = _run("ingest", source / "liver.nii.gz", *asked, "--subject", "ann-1")
    assert done.exit_code == 0, done.output
    (liver,) = catalog.images.filter(project="q")
    assert (liver.modality, liver.subject.label) == ("CT", "ann-1")
    catalog.close()
