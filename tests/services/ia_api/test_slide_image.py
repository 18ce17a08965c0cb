"""The same pixels for a node, whether a slide comes as files or tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from theatrum.node import Image

from services.ia_api.errors import Gone
from services.ia_api.pathology_server import (
    Callback,
    PathologyServer,
    Transport,
    TransportSettings,
)
from services.ia_api.slide_image import FileSlide, TileSlide, Unreadable, opened
from tests import pathology_server as double
from tests import slides

from .running_site import Site


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slide")
    spec = slides.SlideSpec(width=700, height=500, downsamples=(1,))
    return slides.write_slide(folder / "slide.svs", spec)


@pytest.fixture(scope="module")
def by_files(slide: Path) -> Iterator[FileSlide]:
    with opened(slide.parent, [slide.name], slide.parent / "tmp", 0.25) as image:
        yield image


@pytest.fixture(scope="module")
def by_tiles(slide: Path) -> Iterator[TileSlide]:
    # PNG: what comes is exactly what the server drew.
    held = double.slide_of_file("sl-1", slide, formats=("png",))
    with double.PathologyServer([held]) as sps:
        sps.add_application("probe", {"displayName": "probe"})
        callback = Callback(sps.url, "probe", sps.tokens.issue("probe"))
        transport = Transport(TransportSettings(software_version="1"))
        server = PathologyServer(transport, callback)
        yield TileSlide(server, server.slide("sl-1"))
        transport.close()


def test_both_are_images_of_the_same_size_and_scale(
    by_files: FileSlide, by_tiles: TileSlide
) -> None:
    assert isinstance(by_files, Image)
    assert isinstance(by_tiles, Image)
    assert (by_files.width, by_files.height) == (by_tiles.width, by_tiles.height)
    assert by_files.mpp_x == pytest.approx(by_tiles.mpp_x)
    assert by_tiles.levels[0].downsample == 1


@pytest.mark.parametrize(
    "box", [(0, 0, 700, 500), (250, 130, 300, 256), (640, 400, 200, 200), (13, 7, 1, 1)]
)
def test_both_give_the_same_pixels_at_full_resolution(
    by_files: FileSlide, by_tiles: TileSlide, box: tuple[int, int, int, int]
) -> None:
    ours, theirs = by_files.region(*box), by_tiles.region(*box)
    assert ours.shape == theirs.shape == (box[3], box[2], 3)
    inside = np.s_[: min(box[3], 500 - box[1]), : min(box[2], 700 - box[0])]
    difference = np.abs(ours[inside].astype(int) - theirs[inside].astype(int))
    # Two decoders of the same JPEG may round differently.
    assert difference.max() <= 4


def test_both_give_about_the_same_picture_at_a_coarser_scale(
    by_files: FileSlide, by_tiles: TileSlide
) -> None:
    mpp = 3 * (by_files.mpp_x or 0)
    ours = by_files.region(0, 0, 690, 480, mpp=mpp)
    theirs = by_tiles.region(0, 0, 690, 480, mpp=mpp)
    assert ours.shape == theirs.shape == (160, 230, 3)
    assert np.abs(ours.astype(int) - theirs.astype(int)).mean() < 4


def test_files_that_are_no_slide_are_told_without_their_names(tmp_path: Path) -> None:
    (tmp_path / "SMITH-JOHN.dat").write_bytes(b"nothing")
    with (
        pytest.raises(Unreadable) as refusal,
        opened(tmp_path, ["SMITH-JOHN.dat"], tmp_path / "tmp", None),
    ):
        pass
    assert "SMITH" not in str(refusal.value)


def test_a_slide_that_is_removed_meanwhile_is_not_taken_for_an_empty_one(
    slide: Path,
) -> None:
    with double.PathologyServer([double.slide_of_file("sl-2", slide)]) as sps:
        sps.add_application("probe", {"displayName": "probe"})
        callback = Callback(sps.url, "probe", sps.tokens.issue("probe"))
        transport = Transport(TransportSettings(software_version="1"))
        server = PathologyServer(transport, callback)
        image = TileSlide(server, server.slide("sl-2"))
        image.region(0, 0, 10, 10)
        image.check()
        del sps.slides["sl-2"]
        assert (np.asarray(image.region(600, 400, 10, 10)) == 255).all()
        with pytest.raises(Gone):
            image.check()
        transport.close()


@pytest.mark.parametrize("streamable", [True, False])
def test_marks_are_never_put_onto_a_picture_of_another_size(
    ia_api_site: Site, streamable: bool
) -> None:
    held = ia_api_site.file_slide()
    told = replace(held, picture=double.Pattern(640, 480), streamable=streamable)
    ia_api_site.server.add(told)
    ia_api_site.viewer("probe-files").create(held.slide_id)
    wanted = "Width 640 px" if streamable else "Analysis failed (other-size)"
    ia_api_site.wait_text(held, wanted, "probe-files")
