"""Made tiles are kept within their budgets, made once, and never needed to be kept."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_server.derived import DerivedTiles, slide_key, tile_key
from tile_server.pyramid import JPEG, PNG, Tile


def jpeg(number: int, size: int = 1000) -> Tile:
    return Tile(b"\xff\xd8" + bytes([number % 256]) * size, JPEG)


def test_two_threads_make_one_tile_once(tmp_path: Path) -> None:
    kept = DerivedTiles(tmp_path, disk_bytes=10**7, memory_bytes=10**6)
    made = []
    together = threading.Barrier(8)

    def make() -> Tile:
        made.append(1)
        return jpeg(7)

    def ask(_: int) -> Tile:
        together.wait(10)
        return kept.tile("k", make)

    with ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(ask, range(8)))
    assert tiles == [jpeg(7)] * 8
    assert len(made) == 1
    kept.close()


def test_a_tile_that_failed_is_tried_again(tmp_path: Path) -> None:
    kept = DerivedTiles(tmp_path, disk_bytes=10**7, memory_bytes=10**6)

    def fail() -> Tile:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        kept.tile("k", fail)
    assert kept.tile("k", lambda: jpeg(1)) == jpeg(1)
    kept.close()


def test_a_tile_may_need_other_tiles(tmp_path: Path) -> None:
    kept = DerivedTiles(tmp_path, disk_bytes=10**7, memory_bytes=10**6)

    def make(k: int) -> Tile:
        return kept.tile(f"{k - 1}", lambda: make(k - 1)) if k else jpeg(0)

    with ThreadPoolExecutor(4) as pool:
        tiles = list(pool.map(lambda k: kept.tile(f"{k}", lambda: make(k)), range(9)))
    assert tiles == [jpeg(0)] * 9
    kept.close()


def test_memory_and_disk_stay_within_their_budgets(tmp_path: Path) -> None:
    kept = DerivedTiles(tmp_path, disk_bytes=400_000, memory_bytes=50_000)
    for number in range(300):
        kept.tile(str(number), lambda number=number: jpeg(number, 10_000))
    assert sum(kept.recent(str(number)) is not None for number in range(300)) <= 5
    assert kept.recent("299") == jpeg(299, 10_000)
    kept.flush()
    kept.close()
    assert not (tmp_path / "cache.db-wal").exists()
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("*.*"))
    assert on_disk < 600_000


def test_the_media_type_survives_the_disk(tmp_path: Path) -> None:
    png = Tile(b"\x89PNG\r\n\x1a\n" + b"x" * 50, PNG)
    first = DerivedTiles(tmp_path, disk_bytes=10**7, memory_bytes=0)
    first.tile("png", lambda: png)
    first.tile("jpeg", lambda: jpeg(1))
    first.close()
    second = DerivedTiles(tmp_path, disk_bytes=10**7, memory_bytes=0)
    assert second.tile("png", lambda: jpeg(9)) == png
    assert second.tile("jpeg", lambda: png) == jpeg(1)
    second.close()


def test_a_disk_that_fails_does_not_stop_anyone(tmp_path: Path) -> None:
    kept = DerivedTiles(tmp_path / "cache", disk_bytes=10**7, memory_bytes=0)
    kept.close()
    (tmp_path / "cache" / "cache.db").write_bytes(b"no database" * 1000)
    for file in (tmp_path / "cache").glob("cache.db-*"):
        file.unlink()
    assert kept.tile("k", lambda: jpeg(3)) == jpeg(3)
    kept.close()


def test_nobody_waits_for_the_disk(tmp_path: Path) -> None:
    kept = DerivedTiles(tmp_path, disk_bytes=10**7, memory_bytes=10**6)
    other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # as another worker that is writing
    for number in range(100):
        assert kept.tile(f"{number}", lambda: jpeg(4)) == jpeg(4)
    assert kept.kept_bytes()[0] > 0
    other.execute("ROLLBACK")
    other.close()
    kept.flush()
    kept.close()
    again = DerivedTiles(tmp_path, disk_bytes=10**7, memory_bytes=0)
    assert all(again.tile(f"{n}", lambda: jpeg(9)) == jpeg(4) for n in range(100))
    again.close()


def test_a_disk_that_hangs_fills_no_memory(tmp_path: Path) -> None:
    kept = DerivedTiles(tmp_path, disk_bytes=10**8, memory_bytes=0)
    other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for number in range(50):
        kept.tile(f"{number}", lambda: jpeg(4, 1_000_000))
    other.execute("ROLLBACK")
    other.close()
    kept.flush()
    assert 1_000_000 <= kept.kept_bytes()[1] < 35_000_000
    kept.close()


keys = st.tuples(
    st.text(min_size=1, max_size=20),
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.integers(0, 20),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)


@given(keys, keys)
def test_different_tiles_have_different_keys(
    one: tuple[str, str, int, int, int], other: tuple[str, str, int, int, int]
) -> None:
    def key(parts: tuple[str, str, int, int, int]) -> str:
        return tile_key(slide_key(parts[0], parts[1]), *parts[2:])

    assert (key(one) == key(other)) == (one == other)
