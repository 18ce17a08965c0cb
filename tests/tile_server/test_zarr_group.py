"""A slide as a Zarr group, opened by zarr over a real socket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray
import zarr

from tests.tile_server.conftest import SPECS, Server
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide


def address(server: Server, path: Path, kind: str) -> str:
    base = str(server.client.base_url).rstrip("/")
    return f"{base}{server.settings.base}s/{server.seal(path)}/{kind}"


@pytest.mark.parametrize("kind", ["zarr", "zarr2"])
@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_level_has_the_readers_pixels(
    server: Server, made_slides: dict[str, Path], name: str, kind: str
) -> None:
    path = made_slides[name]
    group = zarr.open_group(
        address(server, path, kind), mode="r", zarr_format=3 if kind == "zarr" else 2
    )
    attributes = group.attrs["ome"] if kind == "zarr" else group.attrs
    datasets = attributes["multiscales"][0]["datasets"]
    with open_slide(path) as reader:
        rungs = [one for one in Pyramid(reader).ladder.rungs if one.level is not None]
        assert len(datasets) == len(rungs)
        for dataset, rung in zip(datasets, rungs, strict=True):
            assert rung.level is not None
            array = group[dataset["path"]]
            level = reader.levels[rung.level]
            pixels = reader.read(rung.level, 0, 0, (level.width, level.height))
            assert array.shape == (1, 3, 1, level.height, level.width)
            assert np.array_equal(array[0, :, 0], pixels.transpose(2, 0, 1))


def test_xarray_opens_a_level_lazily(
    server: Server, made_slides: dict[str, Path]
) -> None:
    place = address(server, made_slides["ycbcr"], "zarr")
    group = zarr.open_group(place, mode="r")
    coarser = [name for name in group.array_keys() if name != "0"]
    assert coarser
    slide = xarray.open_zarr(place, chunks=None, drop_variables=coarser)
    level = slide["0"]
    assert not level.variable._in_memory
    part = level.isel(t=0, z=0, y=slice(3, 9), x=slice(5, 12))
    with open_slide(made_slides["ycbcr"]) as reader:
        pixels = reader.read(0, 5, 3, (7, 6))
    assert np.array_equal(part.transpose("y", "x", "c"), pixels)


@pytest.mark.parametrize(
    "rest",
    ["zarr/.zgroup", "zarr2/zarr.json", "zarr/99/zarr.json", "zarr/0/c/0/1/0/0/0"],
)
def test_what_the_group_does_not_have_is_absent(
    server: Server, made_slides: dict[str, Path], rest: str
) -> None:
    assert server.get(server.seal(made_slides["ycbcr"]), rest).status_code == 404


def test_planes_have_the_files_own_numbers(server: Server, shared_data: Path) -> None:
    path = shared_data / "multichannel" / "multi-channel.ome.tif"
    group = zarr.open_group(address(server, path, "zarr"), mode="r")
    stored = np.squeeze(tifffile.imread(path))
    assert np.array_equal(np.squeeze(group["0"][:]), stored)
    assert group["0"].dtype == stored.dtype
