"""Bioimages: CZI, LIF, ND2, OME-TIFF of one image and of many, OME-Zarr, pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from theatrum.catalog.formats import Damaged, open_scenes, sniff

from tests import slides, stacks, vendor_slides
from tests.extensions.catalog.formats import microscopes


@pytest.mark.parametrize("compression", [0, 5, 6])
def test_the_tiles_of_a_czi_are_laid_where_they_belong(
    tmp_path: Path, compression: int
) -> None:
    path = tmp_path / "a.czi"
    data = microscopes.write_czi(path, compression=compression)
    (scene,) = open_scenes([path])
    assert scene.dims == ("c", "z", "y", "x")
    assert np.array_equal(scene.array.values, data)
    assert scene.spacing == pytest.approx({"x": 2e-4, "y": 2e-4, "z": 1e-3})
    assert [one.name for one in scene.channels] == ["DAPI", "GFP"]
    assert scene.channels[0].emission_nm == 461


@pytest.mark.parametrize("codec", ["plain", "zstd", "jpeg xr"])
def test_a_czi_slide_in_colour_is_the_picture(tmp_path: Path, codec: str) -> None:
    path, levels = vendor_slides.write_czi(tmp_path, codec=codec)
    (scene,) = open_scenes([path])
    assert scene.dims == ("c", "y", "x")
    found = scene.array.transpose("y", "x", "c").values
    difference = np.abs(found.astype(int) - levels[0].astype(int))
    assert difference.max() <= (0 if codec != "jpeg xr" else 60)
    assert scene.acquisition.modality == "SM"


def test_every_image_of_a_lif_is_a_scene(tmp_path: Path) -> None:
    path = tmp_path / "a.lif"
    data = microscopes.write_lif(path)
    first, second = open_scenes([path])
    assert first.dims == ("c", "z", "y", "x")
    assert np.array_equal(first.array.values, data)
    assert np.array_equal(second.array.values, data + 7)
    assert first.spacing == pytest.approx({"x": 2.5e-4, "y": 2.5e-4, "z": 1e-3})
    assert second.index == 1


class _Nd2:
    """What ND2File shows of a file: two positions, two times, three depths."""

    sizes = {"T": 2, "P": 2, "Z": 3, "C": 2, "Y": 8, "X": 9}  # noqa: RUF012
    dtype = np.dtype(np.uint16)
    experiment = (
        SimpleNamespace(type="TimeLoop", parameters=SimpleNamespace(periodMs=500.0)),
    )
    metadata = SimpleNamespace(
        channels=[
            SimpleNamespace(
                channel=SimpleNamespace(
                    name=name, color=(0, 255, 0), emissionLambdaNm=emission,
                    excitationLambdaNm=None,
                ),
                microscope=SimpleNamespace(objectiveMagnification=20.0),
            )
            for name, emission in (("DAPI", 461.0), ("GFP", 509.0))
        ]
    )  # fmt: skip
    loop_indices = tuple(
        {"T": t, "P": p, "Z": z} for t in range(2) for p in range(2) for z in range(3)
    )

    def __init__(self, path: Path) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def voxel_size(self):
        return SimpleNamespace(x=0.5, y=0.5, z=2.0).__dict__.values()

    def read_frame(self, number: int):
        c, y, x = np.indices((2, 8, 9))
        return (1000 * number + 100 * c + 10 * y + x).astype(np.uint16)

    def close(self) -> None:
        pass


def test_every_position_of_an_nd2_is_a_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no writer of ND2 but Nikon's: the reader stands for a file here, in the
    # shape that nd2 documents.
    from theatrum.catalog.formats import nikon

    monkeypatch.setattr(nikon.nd2, "ND2File", _Nd2)
    path = tmp_path / "a.nd2"
    path.write_bytes(b"\xda\xce\xbe\x0a" + bytes(100))
    assert sniff(path) == "nd2"
    first, second = open_scenes([path])
    assert first.dims == ("t", "c", "z", "y", "x")
    assert first.shape == (2, 2, 3, 8, 9)
    assert first.spacing == pytest.approx({"x": 5e-4, "y": 5e-4, "z": 2e-3, "t": 0.5})
    # The second position of the second time, its third depth, is frame 11.
    assert int(second.array.isel(t=1, c=1, z=2, y=3, x=4)) == 11134
    assert [one.emission_nm for one in first.channels] == [461, 509]


def test_a_damaged_nd2_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nd2"
    path.write_bytes(b"\xda\xce\xbe\x0a" + bytes(1000))
    with pytest.raises(Damaged):
        open_scenes([path])


def test_an_ome_tiff_has_its_channels_times_and_levels(tmp_path: Path) -> None:
    spec = stacks.CONFOCAL
    path = stacks.write_ome_tiff(tmp_path / "a.ome.tif", spec)
    (scene,) = open_scenes([path])
    assert np.array_equal(scene.array.values, stacks.numbers(spec))
    assert len(scene.levels) == 2
    assert scene.spacing == pytest.approx(
        {"x": 2.5e-4, "y": 5e-4, "z": 2e-3, "t": 0.04}
    )
    assert scene.channels[1].name == "dye 1"
    assert scene.channels[1].color == "#0ac81e"
    coarse = scene.levels[1]
    assert float(coarse.x[1] - coarse.x[0]) == pytest.approx(5e-4)


def test_facts_of_planes_come_out_of_the_ome_xml(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    plane = {
        "ExposureTime": [0.1, 0.2],
        "PositionX": [3.0, 4.0],
        "PositionXUnit": ["µm", "µm"],
    }
    tifffile.imwrite(
        path,
        np.zeros((2, 64, 64), np.uint8),
        ome=True,
        tile=(32, 32),
        photometric="minisblack",
        metadata={"axes": "CYX", "Plane": plane},
    )
    (scene,) = open_scenes([path])
    assert list(scene.planes["exposure_ms"]) == [100, 200]
    assert list(scene.planes["position_x_mm"]) == pytest.approx([0.003, 0.004])
    assert scene.channels[1].exposure_ms == 200


def test_every_image_of_an_ome_tiff_is_a_scene(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    first = np.arange(3 * 40 * 50, dtype=np.uint16).reshape(3, 40, 50)
    second = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(first, metadata={"axes": "ZYX", "Name": "one", "PhysicalSizeX": 2.0})
        tiff.write(second, metadata={"axes": "YX", "Name": "two"})
    one, two = open_scenes([path])
    assert (one.name, two.name) == ("one", "two")
    assert np.array_equal(one.array.values, first)
    assert np.array_equal(two.array.values, second)
    assert one.spacing["x"] == pytest.approx(0.002)


@pytest.mark.parametrize("options", [{}, {"zarr_format": 3}])
@pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.zarr.zip"])
def test_ome_zarr_of_both_versions_counts_in_millimetres(
    tmp_path: Path, name: str, options: dict
) -> None:
    spec = stacks.CONFOCAL
    path = stacks.write_zarr(tmp_path / name, spec, **options)
    (scene,) = open_scenes([path])
    assert np.array_equal(scene.array.values, stacks.numbers(spec))
    assert scene.spacing == pytest.approx(
        {"x": 2.5e-4, "y": 2.5e-4, "z": 2e-3, "t": 5.0}
    )
    assert scene.channels[0].window == (10, 900)


def test_ome_xml_cannot_expand_entities(tmp_path: Path) -> None:
    text = (
        '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaa">]>'
        "<OME><Image><Pixels/></Image></OME>"
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((64, 64), "u1"), description=text, metadata=None)
    with pytest.raises(Damaged, match="OME-XML"):
        open_scenes([path])


def test_a_slide_is_lazy_and_has_its_levels_in_millimetres(tmp_path: Path) -> None:
    path = slides.write_slide(tmp_path / "a.svs", slides.SlideSpec())
    (scene,) = open_scenes([path])
    assert scene.acquisition.modality == "SM"
    assert scene.dims == ("c", "y", "x")
    height, width = scene.array.sizes["y"], scene.array.sizes["x"]
    expected = slides.picture(width, height)
    part = scene.array.isel(y=slice(100, 140), x=slice(60, 90))
    found = part.transpose("y", "x", "c").values.astype(int)
    assert np.abs(found - expected[100:140, 60:90]).mean() < 12


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_grey_pictures_have_no_channels(tmp_path: Path, ending: str) -> None:
    pixels = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path)
    (scene,) = open_scenes([path])
    assert (scene.dims, scene.shape) == (("y", "x"), (60, 80))
    assert scene.channels == ()
    assert np.abs(scene.array.values.astype(int) - pixels).max() < 4


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "jp2", "webp", "ppm"])
def test_plain_pictures_are_colour_channels(tmp_path: Path, ending: str) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:, :40] = (250, 10, 10)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path)
    (scene,) = open_scenes([path])
    assert scene.shape == (3, 60, 80)
    left = scene.array.isel(y=30, x=10).values.astype(int)
    assert np.abs(left - [250, 10, 10]).max() < 30
    assert scene.acquisition.modality == "OT"
