"""Uploads in parts."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from theatrum.catalog.ingest.errors import BadUpload
from theatrum.catalog.ingest.uploads import Uploads


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_parts_in_any_order_make_the_file_again(tmp_path: Path) -> None:
    content = os.urandom(10_000)
    uploads = Uploads(tmp_path)
    key = uploads.begin("../series .zip", size=len(content), owner="ann")
    parts = [(at, content[at : at + 3000]) for at in range(0, 10_000, 3000)]
    for at, part in [parts[3], parts[0], parts[2], parts[0]]:
        uploads.part(key, at, part, sha256=digest(part))
    # Another process of the service goes on where the first one was.
    status = Uploads(tmp_path).status(key)
    assert status.missing == ((3000, 6000),)
    assert status.received == 7000
    with pytest.raises(BadUpload, match="Bytes 3000 to 6000"):
        uploads.complete(key, sha256=digest(content))
    uploads.part(key, *parts[1], sha256=digest(parts[1][1]))
    path = uploads.complete(key, sha256=digest(content))
    assert path.read_bytes() == content
    assert path.name == "series_.zip"
    assert uploads.complete(key, sha256=digest(content)) == path


def test_a_part_or_a_file_of_another_checksum_is_refused(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    key = uploads.begin("a", size=4, owner="ann")
    with pytest.raises(BadUpload, match="checksum"):
        uploads.part(key, 0, b"1234", sha256=digest(b"0000"))
    uploads.part(key, 0, b"1234", sha256=digest(b"1234"))
    with pytest.raises(BadUpload, match="checksum"):
        uploads.complete(key, sha256=digest(b"0000"))
    assert uploads.status(key).received == 0


def test_parts_outside_and_keys_that_are_none_are_refused(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    key = uploads.begin("a", size=4, owner="ann")
    for offset in (-1, 2, 99):
        with pytest.raises(BadUpload, match="outside"):
            uploads.part(key, offset, b"123", sha256=digest(b"123"))
    for wrong in ("", "../x", "0" * 32):
        with pytest.raises(BadUpload, match="no such upload"):
            uploads.status(wrong)
    with pytest.raises(BadUpload):
        uploads.begin("a", size=0, owner="ann")


def test_many_connections_send_parts_at_once(tmp_path: Path) -> None:
    content = os.urandom(64_000)
    uploads = Uploads(tmp_path)
    key = uploads.begin("a", size=len(content), owner="ann")

    def send(start: int) -> None:
        for at in range(start * 1000, 64_000, 8000):
            part = content[at : at + 1000]
            Uploads(tmp_path).part(key, at, part, sha256=digest(part))

    threads = [threading.Thread(target=send, args=(one,)) for one in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    path = uploads.complete(key, sha256=digest(content))
    assert path.read_bytes() == content


def test_what_nobody_goes_on_with_is_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    key = uploads.begin("a", size=4, owner="ann")
    assert uploads.expire() == 0
    os.utime(tmp_path / key / "state.json", (0, 0))
    assert uploads.expire() == 1
    assert list(tmp_path.iterdir()) == []
