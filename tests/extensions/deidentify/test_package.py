"""Folders in, folders out: everything or nothing of a file, and of a package."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest
from theatrum import deidentify

from tests.extensions.deidentify.running import (
    MODIFIED,
    PERSON,
    image,
    package,
    profile,
    put,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three slices, a held one, and two that are no images."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for at in range(3):
        one = image()
        one.SOPInstanceUID += f".{at}"
        put(one, folder / "deeper" / f"{PERSON.name.split('^')[0]} {at}.dcm")
    held = image()
    held.SOPInstanceUID += ".9"
    held.SeriesInstanceUID += ".9"
    held.BurnedInAnnotation = "YES"
    put(held, folder / "burned.dcm")
    (folder / "notes.txt").write_text("no image")
    (folder / "empty.dcm").touch()
    return folder


def test_files_come_out_under_their_new_uids(source: Path, tmp_path: Path) -> None:
    from pydicom import dcmread

    done = package(source, tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {*done.names.values(), "report.json"}
    for name in done.names.values():
        assert f"{dcmread(tmp_path / 'out' / name).SOPInstanceUID}.dcm" == name


def test_the_report_lists_what_stayed_and_why(source: Path, tmp_path: Path) -> None:
    package(source, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"] == {"files": 6, "given_out": 3, "held": 1, "refused": 2}
    assert [(e["file"], e["reason"]) for e in report["held"]] == [
        ("burned.dcm", "burned_in")
    ]
    assert {(e["file"], e["reason"]) for e in report["refused"]} == {
        ("notes.txt", "not_dicom"),
        ("empty.dcm", "not_dicom"),
    }
    assert report["profile"]["sha256"]


def test_no_name_of_the_input_is_in_the_report(tmp_path: Path) -> None:
    source = tmp_path / "in" / "Wilfrieda Brunnhilde"
    source.mkdir(parents=True)
    (source / "Wilfrieda 19510829 scan.dcm").write_bytes(b"nothing")
    package(tmp_path / "in", tmp_path / "out")
    text = (tmp_path / "out" / "report.json").read_text()
    assert "Wilfrieda" not in text
    assert "19510829" not in text
    assert json.loads(text)["refused"][0]["number"] == 1


def test_two_runs_with_one_key_are_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        package(source, tmp_path / out, profile(MODIFIED))
    first = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    second = {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}
    assert first == second


def test_another_key_gives_other_pseudonyms(source: Path, tmp_path: Path) -> None:
    ours = package(source, tmp_path / "a")
    other = deidentify.Deidentifier(profile(), b"another key of sixteen or more")
    theirs = other.package(deidentify.files_below(source), tmp_path / "b")
    assert not set(ours.names.values()) & set(theirs.names.values())
    assert not ours.mapping.patients.keys() & theirs.mapping.patients.keys()


def test_nothing_that_exists_is_overwritten(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("keep me")
    with pytest.raises(deidentify.FolderError, match="not empty"):
        package(source, target)
    assert [file.name for file in target.iterdir()] == ["mine.txt"]


def test_an_empty_folder_may_be_the_target(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    package(source, target)
    assert len(list(target.iterdir())) == 4


def test_a_run_that_is_cut_off_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from theatrum.deidentify import package as module

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_publish", stop)
    with pytest.raises(KeyboardInterrupt):
        package(source, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_files_are_staged_where_only_their_owner_reads(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from theatrum.deidentify import package as module

    modes: list[int] = []
    publish = module._publish

    def look(staging: Path, target: Path) -> None:
        modes.append(stat.S_IMODE(staging.stat().st_mode))
        publish(staging, target)

    monkeypatch.setattr(module, "_publish", look)
    package(source, tmp_path / "out")
    assert modes == [0o700]


def test_a_series_stays_whole_where_that_is_asked(source: Path, tmp_path: Path) -> None:
    bad = image()
    bad.SOPInstanceUID += ".7"
    put(bad, source / "short.dcm")
    content = (source / "short.dcm").read_bytes()
    (source / "short.dcm").write_bytes(content[:-4000])
    assert package(source, tmp_path / "a").report.given_out == 3
    done = package(source, tmp_path / "b", whole_series=True)
    reasons = sorted(entry.reason for entry in done.report.held)
    assert reasons == ["burned_in", "series", "series", "series"]
    assert done.report.given_out == 0


def test_a_double_is_refused(source: Path, tmp_path: Path) -> None:
    put(image(), source / "a.dcm")
    put(image(), source / "b.dcm")
    done = package(source, tmp_path / "out")
    assert [e.reason for e in done.report.refused].count("duplicate") == 1


def test_a_directory_of_patients_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    one = image()
    one.SOPClassUID = "1.2.840.10008.1.3.10"
    put(one, source / "DICOMDIR")
    done = package(source, tmp_path / "out")
    assert [entry.reason for entry in done.report.refused] == ["unsupported"]


def test_an_identifier_of_one_file_is_taken_out_of_another(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    one, other = image(), image()
    one.PatientName = "Hroswitha^Ottilie"
    other.SOPInstanceUID += ".1"
    other.SoftwareVersions = "of Hroswitha"
    put(one, source / "a.dcm")
    put(other, source / "b.dcm")
    package(source, tmp_path / "out")
    for file in (tmp_path / "out").iterdir():
        assert b"hroswitha" not in file.read_bytes().lower()


def test_one_data_set_in_memory(tmp_path: Path) -> None:
    one = image()
    done = deidentify.data_set(one, b"sixteen bytes or more")
    assert done.PatientIdentityRemoved == "YES"
    assert done.SOPInstanceUID != one.SOPInstanceUID
    assert one.PatientName == PERSON.name
    one.BurnedInAnnotation = "YES"
    with pytest.raises(deidentify.Held):
        deidentify.data_set(one, b"sixteen bytes or more")


def test_what_a_killed_run_left_is_removed_by_the_next(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for folder in (target, tmp_path):
        left = folder / ".partial-0123456789ab"
        left.mkdir()
        (left / "half.dcm").write_bytes(b"x")
    package(source, target)
    assert not list(target.glob(".partial-*"))
    package(source, tmp_path / "other")
    assert not list(tmp_path.glob(".partial-*"))


def test_what_another_run_still_writes_is_left_alone(
    source: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / ".partial-0123456789ab"
    theirs.mkdir()
    (theirs / "half.dcm").write_bytes(b"x")
    handle = os.open(theirs, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    package(source, tmp_path / "out")
    assert (theirs / "half.dcm").exists()
    os.close(handle)


def test_a_full_disk_gives_out_nothing_and_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from theatrum.deidentify import package as module

    def full(_path: Path, _pieces: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(deidentify.DeidentifyError, match="No space left"):
        package(source, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_a_name_that_is_no_text_refuses_its_own_file_only(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    put(image(), source / "good.dcm")
    Path(os.fsdecode(os.fsencode(source) + b"/1\xff.dcm")).write_bytes(b"none")
    (source / "1\n2.dcm").write_bytes(b"none")
    report = package(source, tmp_path / "out").report
    assert (report.given_out, len(report.refused)) == (1, 2)
    assert all(entry.file.isprintable() for entry in report.refused)


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    put(image(), source / "good.dcm")
    os.mkfifo(source / "pipe.dcm")
    (source / "gone.dcm").symlink_to(tmp_path / "nowhere")
    report = package(source, tmp_path / "out").report
    assert report.given_out == 1
    assert [entry.reason for entry in report.refused] == ["unreadable"] * 2
