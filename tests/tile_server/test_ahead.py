"""Reading ahead: a view is fetched as a whole, single tiles are not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tile_server.test_tiff_tables import write_huge
from tile_server.ladder import Rung
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.reading import read_now


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[tuple[Pyramid, Rung]]:
    """A slide of which nothing but its table is in the system's memory."""
    path = write_huge(tmp_path / "huge.tiff", 240 * 60, 240 * 60, apart=True)
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        full = pyramid.ladder.rungs[0]
        for y in range(full.rows):
            pyramid.place(full, 0, y)  # reads the table
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if in_memory(pyramid, full, 30, 30):
            pytest.skip("this file system keeps all in memory")
        yield pyramid, full


def in_memory(pyramid: Pyramid, rung: Rung, t_x: int, t_y: int) -> bool:
    place = pyramid.place(rung, t_x, t_y)
    return place is not None and read_now(place) is not None


def test_two_neighbours_bring_the_rows_of_their_view(
    cold: tuple[Pyramid, Rung],
) -> None:
    pyramid, full = cold
    assert pyramid.cold_tile(full, 30, 30) is not None
    assert not in_memory(pyramid, full, 33, 32)
    assert pyramid.cold_tile(full, 31, 30) is not None
    deadline = time.monotonic() + 10
    wanted = [(x, y) for x in range(27, 36) for y in range(28, 33)]
    while not all(in_memory(pyramid, full, x, y) for x, y in wanted):
        assert time.monotonic() < deadline
    assert not in_memory(pyramid, full, 30, 45)


def test_tiles_here_and_there_bring_no_others(cold: tuple[Pyramid, Rung]) -> None:
    pyramid, full = cold
    for spot in ((5, 5), (50, 10), (20, 40), (40, 55)):
        assert pyramid.cold_tile(full, *spot) is not None
    assert not in_memory(pyramid, full, 5, 7)
    assert not in_memory(pyramid, full, 24, 41)


def test_the_view_at_a_corner_ends_with_the_slide(cold: tuple[Pyramid, Rung]) -> None:
    pyramid, full = cold
    last = full.columns - 1, full.rows - 1
    assert pyramid.cold_tile(full, *last) is not None
    assert pyramid.cold_tile(full, last[0] - 1, last[1]) is not None
    assert pyramid.cold_tile(full, 0, 0) is not None
    assert pyramid.cold_tile(full, 0, 1) is not None
