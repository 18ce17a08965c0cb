"""Images that are read by processes of limited means."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from theatrum.catalog.apart import Apart, Means
from theatrum.catalog.arrays import open_scene
from theatrum.catalog.errors import Gone, NotOpened
from theatrum.catalog.zarr_store import write

from tests import stacks


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Apart(Means(processes=1)) as running:
        yield running


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return stacks.write_nifti(tmp_path / "a.nii", stacks.VOLUME)


def test_an_image_is_the_same_whoever_reads_it(apart: Apart, volume: Path) -> None:
    here, there = open_scene(volume), apart.scene(volume)
    assert np.array_equal(here.array.to_numpy(), there.array.to_numpy())
    part = {"z": 2, "y": slice(1, 3)}
    assert np.array_equal(here.array.isel(part), there.array.isel(part))
    xr.testing.assert_identical(
        here.array.coords.to_dataset(), there.array.coords.to_dataset()
    )
    assert here.affine_ras is not None
    assert there.affine_ras is not None
    assert np.array_equal(here.affine_ras, there.affine_ras)
    for name in ("format", "dims", "orientation", "spacing", "channels", "acquisition"):
        assert getattr(here, name) == getattr(there, name), name


def test_all_levels_of_a_group_come_over(apart: Apart, tmp_path: Path) -> None:
    values = np.arange(600 * 700, dtype=np.uint16).reshape(600, 700)
    path = tmp_path / "a.ome.zarr"
    write(xr.DataArray(values, dims=["y", "x"]), path)
    here, there = open_scene(path), apart.scene(path)
    assert len(there.levels) == len(here.levels) > 1
    for mine, its in zip(here.levels, there.levels, strict=True):
        assert np.array_equal(mine.to_numpy(), its.to_numpy())
    assert there.array.encoding["preferred_chunks"] == {"y": 600, "x": 700}


def test_a_plane_asks_for_no_more_than_the_plane(
    apart: Apart, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def read(path: str, scene: int, level: int, ranges: tuple[slice, ...]) -> object:
        asked.append(ranges)
        return Apart.read(apart, path, scene, level, ranges)

    array = apart.scene(volume).array
    monkeypatch.setattr(apart, "read", read)
    array.isel(y=3).to_numpy()
    sizes = array.sizes
    whole = {str(dim): slice(0, size) for dim, size in sizes.items()}
    assert asked == [tuple({**whole, "y": slice(3, 4)}.values())]


def test_a_reader_that_falls_fails_one_image_and_the_next_is_read(
    apart: Apart, volume: Path
) -> None:
    array = apart.scene(volume).array
    (process,) = apart._all
    # A process that is held is like a library in a loop; then it crashes.
    os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(array.to_numpy)
        os.kill(process.pid, signal.SIGKILL)
        failure = reading.exception()
    # It may have fallen before it was asked; then another one was.
    assert failure is None or "cannot be read safely" in str(failure)
    assert np.array_equal(array.to_numpy(), stacks.numbers(stacks.VOLUME).squeeze())
    assert process not in apart._all


def test_a_block_that_takes_for_ever_is_an_error_in_time(volume: Path) -> None:
    with (
        Apart(Means(seconds=1e-6, processes=1)) as slow,
        pytest.raises(NotOpened, match="after"),
    ):
        slow.scene(volume)


def test_what_is_gone_or_no_image_is_told_as_such(apart: Apart, tmp_path: Path) -> None:
    with pytest.raises(Gone, match="restore it"):
        apart.scene(tmp_path / "gone.nii")
    text = tmp_path / "a.txt"
    text.write_text("nothing")
    with pytest.raises(NotOpened, match=r"a\.txt is of no image format"):
        apart.scene(text)
