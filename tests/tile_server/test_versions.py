"""A version follows everything that the pixels of an image follow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import zarr

from tests import stacks
from tests.tile_server.conftest import Server, serve
from tile_server import tokens, versions
from tile_server.service import TileSettings
from tile_server.versions import file_version

_SPEC = stacks.StackSpec(width=300, height=200, channels=1, depths=1, levels=1)


@pytest.fixture
def group(tmp_path: Path) -> Path:
    return stacks.write_zarr(tmp_path / "cells.ome.zarr", _SPEC)


def chunks(group: Path) -> list[Path]:
    """The chunks' files, deep below the group's folder."""
    found = [
        path
        for path in sorted(group.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".json"
    ]
    assert found
    return found


def overwrite(path: Path) -> None:
    """Write a file anew in place: neither its folder nor its size shows it."""
    before = path.stat()
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    # As if some time had gone by since it was made.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def test_a_chunk_overwritten_in_place_is_a_new_version(group: Path) -> None:
    seen = {file_version(group)}
    for chunk in chunks(group):
        overwrite(chunk)
        seen.add(file_version(group))
    assert len(seen) == 1 + len(chunks(group))
    assert file_version(group) == file_version(group)


def test_chunks_that_come_and_go_are_new_versions(group: Path) -> None:
    before = file_version(group)
    kept = chunks(group)[-1].rename(group.parent / "elsewhere")
    without = file_version(group)
    assert without != before
    shutil.move(kept, chunks(group)[0].parent / "other")
    assert file_version(group) not in (before, without)


def test_a_huge_group_is_looked_at_within_bounds(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_MOST_ENTRIES", 6)
    folder = chunks(group)[0].parent
    for number in range(20):
        (folder / f"more{number}").write_bytes(b"x")
    looks: list[str] = []
    line = versions._line

    def counted(name: str, status: os.stat_result) -> str:
        looks.append(name)
        return line(name, status)

    monkeypatch.setattr(versions, "_line", counted)
    before = file_version(group)
    assert len(looks) <= 6 + len(versions._METADATA)
    # What is not looked at one by one is still seen to come.
    (folder / "one more").write_bytes(b"x")
    assert file_version(group) != before
    for name in ("zarr.json", ".zattrs"):
        if (group / name).exists():
            before = file_version(group)
            overwrite(group / name)
            assert file_version(group) != before


@pytest.fixture
def watchful() -> Iterator[Server]:
    """A service that looks every file up each time."""
    yield from serve(TileSettings(tokens.new_key(), look_again_s=0))


def test_no_stale_pixels_are_served_after_a_chunk_was_overwritten(
    watchful: Server, group: Path
) -> None:
    before = watchful.seal(group)
    stale = watchful.get(before, "zarr/0/0/0/0/0/0").content
    numbers = zarr.open_group(group, mode="r+")["s0"]
    assert isinstance(numbers, zarr.Array)
    numbers[:] = 7
    gone = watchful.get(before, "zarr/0/0/0/0/0/0")
    assert gone.status_code == 410
    assert gone.json()["type"].endswith(":slide-replaced")
    now = watchful.get(watchful.seal(group), "zarr/0/0/0/0/0/0")
    assert now.status_code == 200
    assert now.content != stale
