"""T3: opening reads headers, and a computation reads the chunks that it needs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray as xr
from theatrum.catalog import zarr_store
from theatrum.catalog.arrays import open_array
from theatrum.catalog.formats import FileChanged, open_scenes

from tests import stacks
from tests.extensions.catalog.formats import scans

SHAPE = (3, 2, 24, 256, 256)
"""t, c, z, y, x"""


def bytes_read(work: Callable[[], object]) -> int:
    """How many bytes this process read while it worked."""

    def so_far() -> int:
        text = Path("/proc/self/io").read_text()
        return int(text.partition("rchar: ")[2].split()[0])

    if not Path("/proc/self/io").exists():
        pytest.skip("only Linux counts what a process reads")
    # What the first of all computations imports is not the image's.
    xr.DataArray(np.zeros(4), dims="x").chunk().max().compute()
    before = so_far()
    work()
    return so_far() - before


def _numbers() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60_000, SHAPE, np.uint16)


def _nifti(folder: Path) -> Path:
    array = _numbers().transpose(4, 3, 2, 0, 1)  # x y z t c
    path = folder / "many.nii"
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


def _zarr(folder: Path) -> Path:
    array = xr.DataArray(_numbers(), dims=tuple("tczyx"))
    return zarr_store.write(array, folder / "many.ome.zarr").path


def _ome_tiff(folder: Path) -> Path:
    spec = stacks.StackSpec(
        channels=2, depths=24, times=3, width=256, height=256, levels=1
    )
    return stacks.write_ome_tiff(
        folder / "many.ome.tif", spec, tile=(256, 256), compression=None
    )


@pytest.mark.parametrize("make", [_nifti, _zarr, _ome_tiff])
def test_a_projection_of_one_time_and_channel_reads_its_planes_and_few_bytes_more(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    open_array(path)  # what is imported once is not the file's
    array = open_array(path).isel(t=1, c=1)
    expected: list[np.ndarray] = []
    needed = 24 * 256 * 256 * 2 if make is not _zarr else _stored_bytes(path)
    read = bytes_read(lambda: expected.append(array.max("z").values))
    assert read <= 1.2 * needed
    whole = open_array(path).values[1, 1]
    assert np.array_equal(expected[0], whole.max(0))


def _stored_bytes(path: Path) -> int:
    """Of the compressed shards that hold the planes of t 1 and c 1."""
    folder = path / "scale0" / "image" / "c" / "1" / "1"
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def test_a_projection_of_a_dicom_series_reads_the_pixels_and_no_more(
    tmp_path: Path,
) -> None:
    array = np.zeros((256, 256, 12), np.int16)
    files = scans.write_series(tmp_path, array)
    (scene,) = open_scenes(files, "dicom")
    needed = array.nbytes // 2
    half = scene.array.isel(z=slice(0, 6)).max("z")
    assert bytes_read(lambda: half.values) <= 1.2 * needed


def test_a_corner_of_one_plane_reads_that_plane_at_most(tmp_path: Path) -> None:
    array = open_array(_nifti(tmp_path)).isel(t=0, c=0, z=0)
    corner = array.isel(y=slice(0, 16), x=slice(0, 16))
    assert bytes_read(lambda: corner.values) <= 1.2 * 256 * 256 * 2


def test_a_corner_asked_for_at_once_reads_its_rows(tmp_path: Path) -> None:
    array = open_array(_nifti(tmp_path))
    corner = array.isel(t=0, c=0, z=0, y=slice(0, 16), x=slice(0, 16))
    assert bytes_read(lambda: corner.values) <= 1.2 * 16 * 256 * 2


def test_opening_reads_no_pixels(tmp_path: Path) -> None:
    path = _nifti(tmp_path)
    open_array(path)
    path.touch()
    assert bytes_read(lambda: open_array(path)) < 200_000


def test_an_array_can_be_sent_to_another_process(tmp_path: Path) -> None:
    array = open_array(_nifti(tmp_path)).isel(t=0, c=0)
    there = pickle.loads(pickle.dumps(array))  # noqa: S301 - our own
    assert np.array_equal(there.values, array.values)
    assert len(pickle.dumps(array)) < 100_000


def test_a_file_that_changed_since_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = _nifti(tmp_path)
    (scene,) = open_scenes([path])
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"\0\0\0\0")
    with pytest.raises(FileChanged, match="changed"):
        scene.array.isel(t=0, c=0, z=0).values  # noqa: B018


@pytest.mark.parametrize(
    "picked",
    [
        {"z": [5, 2, 2]},
        {"z": slice(20, 3, -4)},
        {"t": -1, "y": slice(None, None, 7)},
        {"c": np.array([True, False])},
        {"z": slice(4, 4)},
    ],
)
def test_any_way_of_indexing_gives_what_numpy_gives(tmp_path: Path, picked) -> None:
    lazy = open_array(_nifti(tmp_path))
    assert np.array_equal(lazy.isel(picked).values, lazy.compute().isel(picked).values)
