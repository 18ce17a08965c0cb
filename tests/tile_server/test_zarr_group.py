"""A slide as a Zarr group, opened by zarr over a real socket."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray
import zarr

from tests import dicom_slides, slides, stacks
from tests.tile_server.conftest import SPECS, Server
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.planes import Plane
from tile_server.readers.rendering import plane_facts, planes_of


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


@pytest.mark.parametrize("kind", ["zarr", "zarr2"])
def test_xarray_opens_a_level_lazily(
    server: Server, made_slides: dict[str, Path], kind: str
) -> None:
    place = address(server, made_slides["ycbcr"], kind)
    form = 3 if kind == "zarr" else 2
    group = zarr.open_group(place, mode="r", zarr_format=form)
    coarser = [name for name in group.array_keys() if name != "0"]
    assert coarser
    slide = xarray.open_zarr(
        place, chunks=None, drop_variables=coarser, zarr_format=form
    )
    level = slide["0"]
    assert level.dims == ("t", "c", "z", "y", "x")
    assert not level.variable._in_memory
    part = level.isel(t=0, z=0, y=slice(3, 9), x=slice(5, 12))
    assert not level.variable._in_memory
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


MADE: dict[str, Callable[[Path], Path]] = {
    "colour": lambda folder: slides.write_slide(folder / "a.svs", slides.YCBCR),
    "planes": lambda folder: stacks.write_ome_tiff(
        folder / "a.ome.tiff", stacks.CONFOCAL
    ),
    "floats": lambda folder: stacks.write_ome_tiff(
        folder / "a.ome.tiff", stacks.FLOATS
    ),
    "colours in depth": lambda folder: dicom_slides.write_dicom_slide(
        folder / "dicom", dicom_slides.COLOUR["sparse paths"]
    ),
}


@pytest.mark.parametrize("kind", ["zarr", "zarr2"])
@pytest.mark.parametrize("name", MADE)
def test_the_group_validates_with_ome_zarr(
    server: Server, tmp_path: Path, name: str, kind: str
) -> None:
    models = pytest.importorskip("ome_zarr_models")
    reader = pytest.importorskip("ome_zarr.reader")
    io = pytest.importorskip("ome_zarr.io")
    path = MADE[name](tmp_path)
    place = address(server, path, kind)
    form = 3 if kind == "zarr" else 2
    group = zarr.open_group(place, mode="r", zarr_format=form)
    # Its model of 0.4 misses a name that pydantic 2.13 and later want.
    names = {"ArraySpec": pytest.importorskip("pydantic_zarr.v2").ArraySpec}
    models.v04.image.Image.model_rebuild(force=True, _types_namespace=names)
    valid = models.open_ome_zarr(group, version="0.5" if kind == "zarr" else "0.4")
    assert type(valid).__name__ == "Image"
    location = io.parse_url(place)
    assert location is not None
    (node,) = list(reader.Reader(location)())
    with open_slide(path) as slide:
        facts = plane_facts(slide)
        assert node.metadata["channel_names"] == [one.name for one in facts.channels]
        full = slide.levels[0]
        # Lazy: dask arrays of the file's own numbers, no chunk of them read.
        assert node.data[0].shape == (
            *(facts.times, len(facts.channels), facts.depths),
            *(full.height, full.width),
        )
        assert node.data[0].dtype == facts.number_type
        for channel, z in itertools.product(
            range(len(facts.channels)), range(facts.depths)
        ):
            wanted = planes_of(slide).read_plane(
                0, 7, 5, (30, 20), plane=Plane(channel, z)
            )
            part = node.data[0][0, channel, z, 5:25, 7:37].compute()
            assert np.array_equal(part, wanted)
