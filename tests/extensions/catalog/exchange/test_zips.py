"""An archive is what every zip reader reads, and as long as was said before."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.exchange import zips
from theatrum.catalog.exchange.zips import Archive, Member, of_bytes, of_file

NAMES = st.text("abcé/ 0-_", min_size=1, max_size=12).filter(
    lambda name: not name.startswith("/")
)
CONTENTS = st.dictionaries(NAMES, st.binary(max_size=300), max_size=8)


def archive(contents: dict[str, bytes]) -> Archive:
    return Archive(of_bytes(name, content) for name, content in contents.items())


def whole(of: Archive) -> bytes:
    return b"".join(of.stream())


@settings(deadline=None)
@given(CONTENTS)
def test_it_reads_back_as_what_went_in_and_is_as_long_as_was_said(
    contents: dict[str, bytes],
) -> None:
    made = archive(contents)
    sent = whole(made)
    assert len(sent) == made.size
    with zipfile.ZipFile(io.BytesIO(sent)) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == contents
        assert all(one.compress_type == zipfile.ZIP_STORED for one in read.infolist())


@settings(deadline=None)
@given(CONTENTS, st.data())
def test_a_range_is_the_slice_of_the_whole(
    contents: dict[str, bytes], data: st.DataObject
) -> None:
    sent = whole(archive(contents))
    first = data.draw(st.integers(0, len(sent) - 1))
    last = data.draw(st.integers(first, len(sent) - 1))
    assert b"".join(archive(contents).stream(first, last)) == sent[first : last + 1]


@settings(deadline=None)
@given(CONTENTS)
def test_the_forms_for_large_archives_read_back_too(contents: dict[str, bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # As if everything were beyond four gigabytes.
        patch.setattr(zips, "_LONG", 10)
        made = archive(contents)
        sent = whole(made)
        assert len(sent) == made.size
    with zipfile.ZipFile(io.BytesIO(sent)) as read:
        assert {name: read.read(name) for name in read.namelist()} == contents


def test_more_than_65535_members_are_all_found() -> None:
    made = Archive(of_bytes(f"{number}", b"") for number in range(70_000))
    sent = whole(made)
    assert len(sent) == made.size
    with zipfile.ZipFile(io.BytesIO(sent)) as read:
        assert len(read.namelist()) == 70_000


def test_places_beyond_four_gigabytes_are_told_right(tmp_path: Path) -> None:
    hole = tmp_path / "hole"
    with hole.open("wb") as file:
        file.truncate(2**32 + 5)
    made = Archive([of_file("hole", hole), of_bytes("behind", b"here")])
    end = made.size
    assert end is not None
    offset = 2**32 + 5 + 30 + 4 + 20 + 24
    # Of the directory only where the second member begins, so that nothing is read.
    made._crcs.update({0: 1, 1: 2})
    tail = b"".join(made.stream(offset, end - 1))
    assert tail.startswith(b"PK\3\4")
    listed = zipfile.ZipFile(_Sparse(offset, tail)).infolist()
    assert [one.header_offset for one in listed] == [0, offset]
    assert listed[0].file_size == 2**32 + 5


class _Sparse(io.RawIOBase):
    """The end of a file whose beginning is holes."""

    def __init__(self, begin: int, tail: bytes) -> None:
        self._begin, self._tail, self._at = begin, tail, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        size = self._begin + len(self._tail)
        self._at = (0, self._at, size)[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = None if size < 0 else self._at - self._begin + size
        found = self._tail[self._at - self._begin : end]
        self._at += len(found)
        return found


def test_members_of_unknown_size_are_sent_without_one() -> None:
    def late(_: int) -> Iterator[bytes]:
        yield b"made "
        yield b"now"

    made = Archive([Member("late", None, late), of_bytes("early", b"x")])
    assert made.size is None
    with zipfile.ZipFile(io.BytesIO(whole(made))) as read:
        assert read.read("late") == b"made now"
        assert read.read("early") == b"x"
    with pytest.raises(BadRecord):
        next(made.stream(3))


def test_a_file_that_changes_while_it_is_sent_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    longer = Archive([of_file("file", path)])
    path.write_bytes(b"x" * 101)
    with pytest.raises(zips.Changed):
        whole(longer)


def test_a_resumed_download_does_not_read_what_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 100)
    begun: list[int] = []
    member = of_file("file", path)

    def watched(begin: int) -> Iterator[bytes]:
        begun.append(begin)
        return member.blocks(begin)

    sent = whole(Archive([member]))
    again = Archive([replace(member, blocks=watched)])
    assert b"".join(again.stream(20_000)) == sent[20_000:]
    assert begun == [20_000 - 34]


def test_equal_members_are_equal_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    assert whole(Archive([of_file("n", one)])) == whole(Archive([of_file("n", two)]))


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(BadRecord):
        Archive([of_bytes("a", b""), of_bytes("a", b"")])


def test_unzip_reads_it(tmp_path: Path) -> None:
    unzip = shutil.which("unzip")
    if unzip is None:
        pytest.skip("unzip is not installed")
    path = tmp_path / "made.zip"
    path.write_bytes(whole(archive({"a/é.txt": b"one", "b": b"two"})))
    run = subprocess.run([unzip, "-t", path], capture_output=True, check=False)
    assert run.returncode == 0, run.stdout
