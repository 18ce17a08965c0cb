"""The exchange's store: packages come in whole, and never lead elsewhere."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.courses.errors import (
    BadNameError,
    BadPackageError,
    NotFoundError,
    ReleasedAlreadyError,
)
from services.courses.exchange import Exchange
from services.courses.packages import pack, recover, unpack

COURSE, WORK = "histo1", "slide1"


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    exchange = Exchange(tmp_path / "exchange")
    exchange.release(COURSE, WORK, _zip({"slide1.ipynb": b"{}"}))
    return exchange


def test_what_was_released_comes_back_byte_for_byte(exchange: Exchange) -> None:
    assert _names(exchange.assignment(COURSE, WORK)) == {"slide1.ipynb": b"{}"}
    assert exchange.released(COURSE) == {WORK: ("slide1",)}


def test_a_released_assignment_is_not_replaced_unasked(exchange: Exchange) -> None:
    with pytest.raises(ReleasedAlreadyError):
        exchange.release(COURSE, WORK, _zip({"slide1.ipynb": b"[]"}))
    exchange.release(COURSE, WORK, _zip({"slide1.ipynb": b"[]"}), force=True)
    assert _names(exchange.assignment(COURSE, WORK)) == {"slide1.ipynb": b"[]"}


def test_a_withdrawn_assignment_keeps_what_was_handed_in(exchange: Exchange) -> None:
    exchange.submit(COURSE, WORK, "student1", _zip({"slide1.ipynb": b"1"}))
    exchange.withdraw(COURSE, WORK)
    assert exchange.released(COURSE) == {}
    assert len(exchange.submissions(COURSE)) == 1


def test_two_students_submissions_never_mix(exchange: Exchange) -> None:
    for student in ("student1", "student2"):
        exchange.submit(COURSE, WORK, student, _zip({"a.json": student.encode()}))
    for student in ("student1", "student2"):
        (only,) = exchange.submissions(COURSE, WORK, student)
        files = exchange.submission(COURSE, WORK, student, only.timestamp)
        assert _names(files) == {"a.json": student.encode()}


def test_a_second_submission_leaves_the_first(exchange: Exchange) -> None:
    for content in (b"1", b"2"):
        exchange.submit(COURSE, WORK, "student1", _zip({"a.json": content}))
    found = exchange.submissions(COURSE, WORK, "student1")
    files = [
        exchange.submission(COURSE, WORK, "student1", one.timestamp) for one in found
    ]
    assert [_names(package)["a.json"] for package in files] == [b"1", b"2"]


def test_feedback_belongs_to_one_submission(exchange: Exchange) -> None:
    handed_in = exchange.submit(COURSE, WORK, "student1", _zip({"a.json": b"1"}))
    page = _zip({"slide1.html": b"<p>good</p>"})
    exchange.give_feedback(COURSE, WORK, "student1", handed_in.timestamp, page)
    (found,) = exchange.submissions(COURSE)
    assert list(found.feedback) == ["slide1"]
    with pytest.raises(NotFoundError):
        exchange.feedback(COURSE, WORK, "student2", handed_in.timestamp)


def test_feedback_on_nothing_is_refused(exchange: Exchange) -> None:
    with pytest.raises(NotFoundError):
        exchange.give_feedback(
            COURSE, WORK, "student1", "2026-01-01 00:00:00.000000 UTC", _zip({})
        )


def test_nothing_is_handed_in_to_what_is_not_released(exchange: Exchange) -> None:
    with pytest.raises(NotFoundError):
        exchange.submit(COURSE, "slide2", "student1", _zip({"a": b""}))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\0b", "-x", ".x"])
def test_a_name_that_leads_elsewhere_is_refused(exchange: Exchange, name: str) -> None:
    with pytest.raises(BadNameError):
        exchange.submit(COURSE, WORK, name, _zip({"a": b""}))
    with pytest.raises(BadNameError):
        exchange.assignment(name, WORK)


@pytest.mark.parametrize("name", ["../a", "/a", "b/../../a", "..\\a"])
def test_an_entry_that_leads_out_of_the_package_is_refused(
    exchange: Exchange, tmp_path: Path, name: str
) -> None:
    before = _tree(tmp_path)
    with pytest.raises(BadPackageError):
        exchange.submit(COURSE, WORK, "student1", _zip({"fine": b"", name: b""}))
    assert _tree(tmp_path) - before <= {"exchange/histo1/submitted"} | _parents()


def test_a_symbolic_link_in_a_package_is_refused(exchange: Exchange) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("passwd")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadPackageError, match="symbolic"):
        exchange.submit(COURSE, WORK, "student1", buffer.getvalue())


def test_a_package_that_unpacks_to_too_much_is_refused(exchange: Exchange) -> None:
    bomb = _zip({f"{part}": bytes(30_000_000) for part in range(4)})
    assert len(bomb) < 1_000_000
    with pytest.raises(BadPackageError, match="100 MB"):
        exchange.submit(COURSE, WORK, "student1", bomb)


@settings(deadline=None, max_examples=60)
@given(body=st.binary(max_size=300), cut=st.integers(0, 200))
def test_a_broken_package_is_refused_and_nothing_is_stored(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    whole = _zip({"a.json": b"1" * 300})
    for package in (body, whole[: cut % len(whole)], body + _zip({})[:-1]):
        with pytest.raises(BadPackageError):
            unpack(package, folder / "target")
    assert list(folder.iterdir()) == []


def test_a_file_that_inflates_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    package = bytearray(_zip({"a": bytes(5_000_000)}))
    size = (5_000_000).to_bytes(4, "little")
    while (place := package.find(size)) >= 0:
        package[place : place + 4] = (1).to_bytes(4, "little")
    with pytest.raises(BadPackageError):
        unpack(bytes(package), tmp_path / "target")


@settings(deadline=None, max_examples=100)
@given(place=st.integers(30, 10_000), value=st.integers(0, 255))
def test_a_package_with_a_damaged_byte_is_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    content = bytes(range(256)) * 12
    package = bytearray(_zip({"a.json": content, "b/c.json": b"1" * 3000}))
    package[place % len(package)] = value
    target = tmp_path_factory.mktemp("damaged") / "target"
    try:
        unpack(bytes(package), target)
    except BadPackageError:
        assert not target.exists()


@pytest.mark.parametrize("name", ["a" * 300, "a/b", "x/" * 1000 + "y"])
def test_paths_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadPackageError):
        unpack(_zip({"a": b"", name: b""}), tmp_path / "target")


def test_a_folder_in_the_place_of_the_time_is_refused(tmp_path: Path) -> None:
    package = _zip({"timestamp.txt/x": b""})
    with pytest.raises(BadPackageError, match=r"timestamp\.txt"):
        unpack(package, tmp_path / "target", {"timestamp.txt": b"now"})


def test_a_replacement_that_was_cut_off_is_finished_at_the_next_start(
    exchange: Exchange,
) -> None:
    released = exchange.root / COURSE / "released"
    (released / WORK).rename(released / f".{WORK}.replaced")
    (released / ".new-0123").mkdir()
    recover(exchange.root)
    assert exchange.released(COURSE) == {WORK: ("slide1",)}
    assert [path.name for path in released.iterdir()] == [WORK]


def test_links_in_a_folder_are_left_out_of_its_package(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("1")
    (tmp_path / "others.txt").symlink_to("/etc/passwd")
    assert list(_names(pack(tmp_path))) == ["own.txt"]


def test_checkpoints_and_feedback_stay_out_of_a_package(tmp_path: Path) -> None:
    for name in (".ipynb_checkpoints/a.ipynb", "feedback/b.html", "c.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    left_out = [".ipynb_checkpoints", "feedback"]
    assert list(_names(pack(tmp_path, leave_out=left_out))) == ["c.ipynb"]


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _names(package: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _parents() -> set[str]:
    top = "exchange/histo1/submitted/slide1"
    return {top, f"{top}/student1"}
