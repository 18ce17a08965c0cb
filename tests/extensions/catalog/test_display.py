"""How channels are shown: by what is in them, not by how many there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from theatrum.catalog import picture, zarr_store
from theatrum.catalog.arrays import open_array
from theatrum.catalog.display import usual_colour

from tile_server.readers import open_slide


def _shown(path: Path) -> npt.NDArray[np.uint8]:
    """What the tile service makes of a group, at full resolution."""
    with open_slide(path) as reader:
        full = reader.levels[0]
        return np.asarray(reader.read(0, 0, 0, (full.width, full.height)))


def _stains(dtype: str, low: float, high: float) -> xr.DataArray:
    """A nucleus on the left and a membrane on the right, on a dim background."""
    numbers = np.full((2, 40, 60), low)
    numbers[0, 10:30, 5:25] = high
    numbers[1, 10:30, 35:55] = high
    return xr.DataArray(
        numbers.astype(dtype),
        dims=("c", "y", "x"),
        coords={"c": ["DAPI", "Cy3"]},
    )


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("float32", 3.0, 90.0), ("uint16", 200, 1500), ("float64", -0.2, 0.1)],
)
def test_stains_are_seen_in_their_colours_whatever_their_numbers_are(
    tmp_path: Path, dtype: str, low: float, high: float
) -> None:
    path = tmp_path / "a.ome.zarr"
    written = zarr_store.write_image(path, _stains(dtype, low, high))
    shown = _shown(path)
    assert shown[20, 15].tolist() == [0, 0, 255]
    assert shown[20, 45].tolist() == [255, 0, 0]
    assert shown[2, 2].tolist() == [0, 0, 0]
    assert [one.color for one in written.channels] == ["#0000ff", "#ff0000"]
    assert written.channels[0].window == pytest.approx((low, high))


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("float32", 1)])
def test_a_part_of_a_colour_picture_keeps_its_colours(
    tmp_path: Path, dtype: str, most: float
) -> None:
    pixels = np.full((3, 30, 40), 0.9)
    pixels[:, 10:20, 10:20] = np.array([0.8, 0.4, 0.6])[:, None, None]
    array = xr.DataArray(
        (pixels * most).astype(dtype),
        dims=("c", "y", "x"),
        coords={"c": ["red", "green", "blue"]},
    )
    path = tmp_path / "a.ome.zarr"
    zarr_store.write_image(path, array)
    shown = _shown(path)
    assert np.abs(shown[15, 15] - np.array([204.0, 102, 153])).max() <= 1
    assert np.abs(shown[1, 1] - 229.5).max() <= 1


def test_colours_that_a_file_names_go_along_into_what_is_made_of_it(
    tmp_path: Path,
) -> None:
    array = _stains("uint16", 10, 900)
    array.attrs["channel_colors"] = {"DAPI": "#112233"}
    first = tmp_path / "a.ome.zarr"
    zarr_store.write_image(first, array)
    again = open_array(first)
    assert again.attrs["channel_colors"] == {"DAPI": "#112233", "Cy3": "#ff0000"}
    second = zarr_store.write_image(tmp_path / "b.ome.zarr", again.isel(c=[1, 0]) * 2.0)
    assert [(one.name, one.color) for one in second.channels] == [
        ("Cy3", "#ff0000"),
        ("DAPI", "#112233"),
    ]


def test_three_stains_of_eight_bits_are_no_colour_picture() -> None:
    numbers = np.zeros((3, 8, 8), np.uint8)
    numbers[:, 2:6, 2:6] = np.array([10, 20, 40], np.uint8)[:, None, None]
    stains = xr.DataArray(
        numbers, dims=("c", "y", "x"), attrs={"channels": ["DAPI", "GFP", "Cy5"]}
    )
    assert np.asarray(picture.draw(stains))[4, 4].tolist() == [255, 255, 255]
    colours = stains.assign_attrs(channels=["red", "green", "blue"])
    assert np.asarray(picture.draw(colours))[4, 4].tolist() == [10, 20, 40]


def test_uneven_pixels_are_repeated_and_never_mixed() -> None:
    numbers = np.array([[0, 200], [100, 50]], np.uint8)
    array = xr.DataArray(
        numbers, dims=("y", "x"), coords={"y": [0.0, 3.0], "x": [0.0, 1.0]}
    )
    drawn = np.asarray(picture.draw(array, window=(0, 255)))
    assert np.array_equal(drawn, np.repeat(numbers, 3, axis=0))


def test_one_channel_without_a_known_name_is_white() -> None:
    assert usual_colour("probe 7", 0, 1) == "#ffffff"
    assert usual_colour("probe 7", 1, 2) == "#00ff00"
    assert usual_colour("Opal 690", 0, 5) == "#ff00ff"
