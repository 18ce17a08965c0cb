"""Copies of slides of the TIFF family: every pixel, and not a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests import philips_slides, slides, vendor_slides
from tests.identified_slides import PLANTED, write_identified_svs
from tile_server.deidentified import CannotCopy, copy_tiff, texts_of
from tile_server.readers import open_slide


def _same_pixels(one: Path, other: Path) -> bool:
    with open_slide(one) as a, open_slide(other) as b:
        return len(a.levels) == len(b.levels) and all(
            np.array_equal(
                a.read(number, 0, 0, (level.width, level.height)),
                b.read(number, 0, 0, (level.width, level.height)),
            )
            for number, level in enumerate(a.levels)
        )


def test_nothing_that_was_planted_in_a_slide_stands_in_its_copy(
    tmp_path: Path,
) -> None:
    planted = write_identified_svs(tmp_path / "Muster.svs")
    target = tmp_path / "copy.tiff"
    copy_tiff(planted.path, target)
    before = planted.found_in(planted.path.read_bytes())
    # The profile's text is cut to what it has room for.
    assert len(before) >= len(planted.secrets) - 1
    assert planted.found_in(target.read_bytes()) == []
    assert _same_pixels(planted.path, target)


def test_label_macro_and_thumbnail_are_left_behind(tmp_path: Path) -> None:
    planted = write_identified_svs(tmp_path / "slide.svs")
    copy_tiff(planted.path, tmp_path / "copy.tiff")
    with tifffile.TiffFile(tmp_path / "copy.tiff") as tiff:
        assert [page.is_tiled for page in tiff.pages] == [True, True]
    with open_slide(tmp_path / "copy.tiff") as copied:
        assert copied.facts.associated == ()


def test_scale_objective_and_colours_are_kept(tmp_path: Path) -> None:
    planted = write_identified_svs(tmp_path / "slide.svs")
    copied = copy_tiff(planted.path, tmp_path / "copy.tiff")
    assert copied.size == (1000, 700)
    with open_slide(tmp_path / "copy.tiff") as reader:
        assert reader.facts.mpp_x == pytest.approx(0.5)
        assert reader.facts.objective == 20
        assert reader.facts.profile is not None


def test_the_words_of_a_slide_are_known(tmp_path: Path) -> None:
    planted = write_identified_svs(tmp_path / "slide.svs")
    known = texts_of(planted.path)
    in_tags = ["Description", "Level", "Artist", "Software", "Host", "Xmp", "LabelText"]
    assert {PLANTED[place] for place in in_tags} <= known


def test_the_same_slide_makes_the_same_bytes(tmp_path: Path) -> None:
    planted = write_identified_svs(tmp_path / "slide.svs")
    for name in ("one", "two"):
        copy_tiff(planted.path, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    "spec",
    [slides.RGB_ODD, slides.WHOLE_STREAMS, slides.DEFLATE, slides.SPARSE],
    ids=["rgb", "generic", "deflate", "sparse"],
)
def test_every_pixel_is_the_slides_own(tmp_path: Path, spec: slides.SlideSpec) -> None:
    slide = slides.write_slide(tmp_path / "slide.tiff", spec)
    copy_tiff(slide, tmp_path / "copy.tiff")
    assert _same_pixels(slide, tmp_path / "copy.tiff")


def test_glass_that_philips_leaves_out_is_glass_in_the_copy(tmp_path: Path) -> None:
    slide = philips_slides.write_philips(tmp_path / "slide.tiff")
    copy_tiff(slide, tmp_path / "copy.tiff")
    assert _same_pixels(slide, tmp_path / "copy.tiff")
    assert b"Philips" not in (tmp_path / "copy.tiff").read_bytes()


@pytest.mark.parametrize("codec", ["lzw", "none", "jpeg2000"])
def test_other_codings_are_copied_too(tmp_path: Path, codec: str) -> None:
    pixels = slides.picture(300, 200)
    tifffile.imwrite(
        tmp_path / "slide.tiff",
        pixels,
        tile=(128, 128),
        photometric="rgb",
        compression=None if codec == "none" else codec,
        predictor=codec == "lzw",
        metadata=None,
    )
    copy_tiff(tmp_path / "slide.tiff", tmp_path / "copy.tiff")
    assert _same_pixels(tmp_path / "slide.tiff", tmp_path / "copy.tiff")


def test_a_format_without_whole_tiles_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    slide, *_ = vendor_slides.write_ndpi(tmp_path)
    with pytest.raises(CannotCopy, match="hamamatsu"):
        copy_tiff(slide, tmp_path / "copy.tiff")


def test_words_behind_plain_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "slide.tiff",
        slides.picture(256, 256),
        tile=(128, 128),
        photometric="rgb",
        metadata=None,
    )
    with tifffile.TiffFile(tmp_path / "slide.tiff", mode="r+") as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        tag.overwrite([tag.value[0] - 1, *tag.value[1:]])
    with pytest.raises(CannotCopy):
        copy_tiff(tmp_path / "slide.tiff", tmp_path / "copy.tiff")
