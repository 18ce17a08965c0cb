"""A local slide as an image: its arrays, their coordinates, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from theatrum import open_image
from theatrum.errors import (
    BadRegion,
    FileMissing,
    ImageError,
    NoSuchImage,
    Replaced,
    Unreadable,
)
from theatrum.image import Image
from theatrum.local import tile_service

from tests import slides


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    slides.write_slide(folder / "slide.svs", slides.YCBCR)
    slides.write_slide(folder / "plain.tiff", slides.WHOLE_STREAMS)
    return folder


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return open_image(folder / "slide.svs")


def test_a_local_slide_knows_its_geometry(image: Image) -> None:
    assert (image.id, image.name) == ("slide.svs", "slide")
    assert (image.width, image.height, image.mpp_x, image.mpp_y) == (
        1000,
        700,
        0.5,
        0.5,
    )
    assert image.objective == 20
    downsamples = [level.downsample for level in image.levels]
    assert downsamples == [1, 2, 4, 8, 16]
    assert "1000 x 700" in repr(image)


def test_a_region_is_the_slide_s_pixels_with_µm_at_their_centres(image: Image) -> None:
    region = image.region(100, 200, 80, 60)
    assert isinstance(region, xarray.DataArray)
    assert region.dims == ("y", "x", "c")
    assert region.dtype == np.uint8
    truth = slides.picture(1000, 700)[200:260, 100:180]
    assert np.abs(region.values.astype(int) - truth).mean() < 3
    assert region.x.values[[0, -1]] == pytest.approx([100.5 * 0.5, 179.5 * 0.5])
    assert region.y.values[[0, -1]] == pytest.approx([200.5 * 0.5, 259.5 * 0.5])
    assert list(region.c.values) == ["R", "G", "B"]
    assert region.attrs["units"] == region.x.attrs["units"] == "µm"


@pytest.mark.parametrize("how", [{"level": 2}, {"mpp": 2.0}])
def test_a_coarse_region_lies_at_the_same_µm(
    image: Image, how: dict[str, float]
) -> None:
    coarse = image.region(160, 320, 320, 160, **how)  # type: ignore[arg-type]
    assert coarse.shape == (40, 80, 3)
    assert coarse.x.values[:2] == pytest.approx([162 * 0.5, 166 * 0.5])
    assert coarse.y.values[-1] == pytest.approx((320 + 158) * 0.5)


def test_a_slide_of_unknown_resolution_is_measured_in_pixels(folder: Path) -> None:
    region = open_image(folder / "plain.tiff").region(10, 20, 4, 4)
    assert region.attrs["units"] == region.y.attrs["units"] == "px"
    assert region.x.values.tolist() == [10.5, 11.5, 12.5, 13.5]


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        ((0, 0, 10, 10), {"level": 1, "mpp": 1.0}),
        ((0, 0, 0, 10), {}),
        ((0, 0, 10, -1), {}),
        ((0, 0, 10, 10), {"level": 99}),
        ((0, 0, 1e6, 1e6), {}),
    ],
)
def test_a_region_that_cannot_be_is_refused_with_a_reason(
    image: Image, arguments: tuple[float, float, float, float], how: dict[str, float]
) -> None:
    with pytest.raises(BadRegion) as error:
        image.region(*arguments, **how)  # type: ignore[arg-type]
    assert error.value.detail


def test_a_thumbnail_is_small_and_upright(image: Image) -> None:
    assert image.thumbnail(200).size == (200, 140)


def test_files_that_cannot_be_opened_are_told_by_name_and_reason(folder: Path) -> None:
    (folder / "text.svs").write_text("no slide")
    slides.write_truncated(folder / "cut.svs", slides.YCBCR, 0.01)
    for path, error in (
        (folder / "absent.svs", FileMissing),
        (folder / "text.svs", Unreadable),
        (folder / "cut.svs", Unreadable),
        (folder, Unreadable),
    ):
        with pytest.raises(error, match=path.name) as told:
            open_image(path)
        assert str(folder.parent) not in str(told.value)
    with pytest.raises(NoSuchImage, match=r"no file absent\.svs"):
        open_image("absent.svs")


def test_a_slide_that_is_replaced_is_not_read_as_if_it_were_the_old_one(
    folder: Path,
) -> None:
    path = slides.write_slide(folder / "changing.svs", slides.YCBCR)
    image = open_image(path)
    slides.write_slide(path, slides.RGB_ODD)
    with pytest.raises(Replaced):
        image.renew()
    with pytest.raises(ImageError):
        open_image(folder / "gone" / "changing.svs")


def test_a_tile_service_that_was_killed_is_started_again(image: Image) -> None:
    before = tile_service()
    before.process.kill()
    before.process.wait()
    assert image.region(0, 0, 4, 4).shape == (4, 4, 3)
    assert tile_service().process.pid != before.process.pid
