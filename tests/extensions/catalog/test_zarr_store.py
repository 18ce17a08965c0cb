"""T10: what is written is OME-Zarr 0.5, whole, and as it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from theatrum.catalog import zarr_store
from theatrum.catalog.arrays import open_array, open_tree
from theatrum.catalog.errors import BadArray, NotOpened
from theatrum.catalog.formats import open_scenes

from tests.extensions.catalog.formats import scans


def _array(dims: str, *shape: int, dtype: str = "uint16") -> xr.DataArray:
    numbers = np.random.default_rng(3).integers(0, 200, shape).astype(dtype)
    return xr.DataArray(numbers, dims=tuple(dims))


@pytest.mark.parametrize(
    ("dims", "shape", "dtype"),
    [
        ("yx", (700, 300), "uint8"),
        ("zyx", (40, 300, 310), "int16"),
        ("tczyx", (2, 3, 4, 64, 65), "float32"),
        ("cyx", (3, 1200, 900), "uint16"),
        ("yxc", (80, 90, 3), "uint8"),
        ("yx", (1, 1), "float64"),
        ("yx", (50, 60), "bool"),
    ],
)
def test_what_is_written_is_read_back(
    tmp_path: Path, dims: str, shape: tuple[int, ...], dtype: str
) -> None:
    array = _array(dims, *shape, dtype=dtype)
    written = zarr_store.write(array, tmp_path / "a.ome.zarr")
    back = open_array(written.path)
    assert np.array_equal(back.values, array.transpose(*back.dims).values)
    assert zarr_store.verify(written.path) == written.sha256_tree


def test_ome_zarr_py_finds_it_valid_and_reads_all_levels(tmp_path: Path) -> None:
    io = pytest.importorskip("ome_zarr.io")
    reader = pytest.importorskip("ome_zarr.reader")
    array = _array("czyx", 2, 40, 600, 500)
    spacing = {"z": 0.002, "y": 0.0005, "x": 0.0005}
    path = tmp_path / "a.ome.zarr"
    zarr_store.write(array, path, zarr_store.Description(spacing=spacing))
    (node, *_) = list(reader.Reader(io.parse_url(str(path)))())
    assert [one.shape for one in node.data] == [
        (2, 40, 600, 500),
        (2, 40, 300, 250),
        (2, 40, 150, 125),
    ]
    assert np.array_equal(node.data[0].compute(), array.values)
    models = pytest.importorskip("ome_zarr_models")
    models.open_ome_zarr(str(path), version="0.5")


def test_xarray_opens_it_as_a_tree(tmp_path: Path) -> None:
    array = _array("zyx", 8, 600, 600)
    path = zarr_store.write(array, tmp_path / "a.ome.zarr").path
    tree = xr.open_datatree(path, engine="zarr", consolidated=False)
    assert sorted(tree.children) == ["scale0", "scale1", "scale2"]
    assert np.array_equal(tree["scale0/image"].values, array.values)
    ours = open_tree(path)
    assert ours["scale1/image"].shape == tree["scale1/image"].shape


def test_the_place_in_the_body_and_the_channels_are_kept(tmp_path: Path) -> None:
    (scene,) = open_scenes(scans.write_series(tmp_path / "s"), "dicom")
    path = tmp_path / "a.ome.zarr"
    zarr_store.write(scene.array, path, zarr_store.describe(scene))
    (back,) = open_scenes([path])
    assert np.allclose(back.affine, scene.affine)
    assert (back.convention, back.orientation) == ("LPS", scene.orientation)
    assert back.spacing == pytest.approx(dict(scene.spacing))
    assert back.acquisition.protocol["echo_time_ms"] == 4.5
    assert "Jane" not in (path / "zarr.json").read_text()


def test_a_coarser_level_lies_around_the_same_place(tmp_path: Path) -> None:
    numbers = np.zeros((1, 600, 600), np.float32)
    numbers[0, 300:302, 400:402] = 4
    array = xr.DataArray(numbers, dims=("z", "y", "x"))
    array.attrs["affine"] = np.eye(4).tolist()
    path = tmp_path / "a.ome.zarr"
    zarr_store.write_image(path, array)
    coarse = open_array(path, level=1)
    (place,) = np.argwhere(coarse.values == 4)
    z, y, x = (int(one) for one in place)
    world = np.asarray(coarse.attrs["affine"]) @ [x, y, z, 1]
    # The middle of the four voxels.
    assert world[:2] == pytest.approx([400.5, 300.5])


@pytest.mark.parametrize("is_label", [False, True])
def test_every_pixel_of_a_coarser_level_lies_where_its_numbers_come_from(
    tmp_path: Path, *, is_label: bool
) -> None:
    # A ramp of millimetres: what a pixel holds is where its centre is.
    step, sizes = 0.5, {"y": 301, "x": 603}
    y, x = (np.arange(sizes[dim]) * step for dim in "yx")
    ramp = (np.add.outer(1000 * y, x) / step).astype(np.float64)
    array = xr.DataArray(
        ramp,
        dims=("y", "x"),
        coords={
            "y": ("y", y, {"units": "mm"}),
            "x": ("x", x, {"units": "mm"}),
        },
        attrs={"affine": np.diag([step, step, 1, 1]).tolist(), "is_label": is_label},
    )
    path = zarr_store.write_image(tmp_path / "a.ome.zarr", array).path
    levels = [open_array(path, level=number) for number in range(3)]
    for number, level in enumerate(levels):
        inner = level.isel(y=slice(0, -1), x=slice(0, -1))  # the last is half a pixel
        wanted = np.add.outer(1000 * inner.y.values, inner.x.values)
        assert np.allclose(inner.values * step, wanted)
        affine = np.asarray(level.attrs["affine"])
        assert affine[0, 0] == pytest.approx(step * 2**number)
        assert affine[0, 3] == pytest.approx(float(level.x[0]))


def test_labels_are_never_averaged(tmp_path: Path) -> None:
    array = xr.DataArray(
        np.tile(np.array([[0, 9], [9, 0]], np.uint8), (200, 200)), dims=("y", "x")
    )
    about = zarr_store.Description(is_label=True)
    path = zarr_store.write(array, tmp_path / "a.ome.zarr", about).path
    assert set(np.unique(open_array(path, level=1).values)) <= {0, 9}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    import dask.array as da

    def fail(block):
        raise ValueError("this block cannot be made")

    numbers = da.zeros((600, 600), chunks=300).map_blocks(
        fail, dtype="f8", meta=np.empty((0, 0))
    )
    array = xr.DataArray(numbers, dims=("y", "x"))
    with pytest.raises(ValueError, match="cannot be made"):
        zarr_store.write(array, tmp_path / "a.ome.zarr")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    zarr_store.write(_array("yx", 4, 4), path)
    with pytest.raises(BadArray, match="ever overwritten"):
        zarr_store.write(_array("yx", 4, 4), path)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = zarr_store.write(_array("yx", 300, 300), tmp_path / "a.ome.zarr").path
    listed = path.with_name(path.name + zarr_store.CHECKSUMS)
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", listed.name], cwd=tmp_path, check=False
    )
    assert done.returncode == 0
    chunk = path / "scale0/image/c/0/0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(NotOpened, match="scale0/image/c/0/0"):
        zarr_store.verify(path)


def test_dimensions_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArray, match="no image"):
        zarr_store.write(_array("qx", 4, 4), tmp_path / "a.ome.zarr")
    with pytest.raises(BadArray, match="not kept"):
        zarr_store.write(_array("yx", 4, 4, dtype="complex64"), tmp_path / "a.ome.zarr")


def test_the_version_and_units_stand_in_the_metadata(tmp_path: Path) -> None:
    array = _array("tyx", 2, 4, 4)
    about = zarr_store.Description(spacing={"t": 2.5, "y": 0.001, "x": 0.001})
    path = zarr_store.write(array, tmp_path / "a.ome.zarr", about).path
    ome = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert ome["multiscales"][0]["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "y", "type": "space", "unit": "millimeter"},
        {"name": "x", "type": "space", "unit": "millimeter"},
    ]
