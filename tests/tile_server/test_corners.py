"""Every reader, at the four corners of every level: each pixel is where it belongs.

A stored level has the pixels that were written, to none of error; a composed one lies
at most half of one of its own pixels from its place, and neighbouring tiles join.

Planes: `l_` pixels of a level of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tests import dicom_slides, slides, stacks, vendor_slides
from tests.slides import Pixels, picture, shrunken
from tests.tile_server import test_tiff_tiles
from tests.tile_server.conftest import SPECS
from tile_server.ladder import Rung
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.rendering import plane_facts, styled
from tile_server.readers.style import ChannelStyle, Style

WIDTH, HEIGHT = 700, 500
# The texture of the picture is 96 pixels wide: farther up it is a blur.
_COARSEST = 3
_SMALLEST = 16
_PATCH = 96


@dataclass(frozen=True)
class Written:
    """A file and what was written into it.

    Attributes
    ----------
    full
        Level 0 as it has to be shown.
    levels
        Those that are in the file, full resolution first.
    lossless
        The file keeps every number as it was written.
    """

    path: Path
    full: Pixels
    levels: list[Pixels]
    lossless: bool = True


Write = Callable[[Path], Written]


def _slide(name: str, folder: Path) -> Written:
    spec = SPECS[name]
    path = slides.write_slide(folder / "slide.tiff", spec)
    full = picture(spec.width, spec.height)
    levels = [shrunken(full, one) for one in spec.downsamples]
    return Written(path, full, levels, lossless=spec.codec == "deflate")


def _codec(name: str, folder: Path) -> Written:
    path = test_tiff_tiles.write(folder / "slide.tiff", name)
    full = picture(700, 500)
    return Written(path, full, [full, shrunken(full, 4)])


def _vendor(name: str, folder: Path) -> Written:
    path, levels = vendor_slides.WRITERS[name](folder)
    return Written(path, levels[0], levels, lossless=name == "zeiss")


def _dicom(name: str, folder: Path) -> Written:
    spec = dicom_slides.COLOUR[name]
    path = dicom_slides.write_dicom_slide(folder / "dicom", spec)
    middle = spec.depths // 2
    levels = [
        dicom_slides.truth(
            spec, level, depth=dicom_slides.stored_depth(spec, level, middle)
        )
        for level in range(len(spec.downsamples))
    ]
    return Written(path, levels[0], levels, lossless=spec.codec != "jpeg")


def _dicom_channels(folder: Path) -> Written:
    spec = replace(dicom_slides.MONOCHROME["sparse channels"], codec="jpeg2000")
    spec = replace(spec, channels=3, depths=1)
    path = dicom_slides.write_dicom_slide(folder / "dicom", spec)
    full = picture(spec.width, spec.height)
    return Written(path, full, [full, shrunken(full, 4)])


def _planes(write: Any, name: str, folder: Path, **options: Any) -> Written:
    """By a writer of stacks, with the picture's colours as channels."""
    full = picture(WIDTH, HEIGHT)
    spec = stacks.StackSpec(WIDTH, HEIGHT, channels=3, dtype="uint8", levels=2)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(stacks, "numbers", lambda _: _as_planes(full))
        changed.setattr(
            stacks,
            "pyramid",
            lambda _, count: [_as_planes(shrunken(full, 2**k)) for k in range(count)],
        )
        path = write(folder / name, spec, **options)
    stored = 2 if write in (stacks.write_ome_tiff, stacks.write_zarr) else 1
    return Written(path, full, [shrunken(full, 2**k) for k in range(stored)])


def _ome_files(folder: Path) -> Written:
    full = picture(WIDTH, HEIGHT)
    spec = stacks.StackSpec(WIDTH, HEIGHT, channels=3, dtype="uint8")
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(stacks, "numbers", lambda _: _as_planes(full))
        return Written(stacks.write_ome_files(folder, spec), full, [full])


def _as_planes(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """(t, c, z, y, x) of a picture."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None, :, None])


def _single_dicom(folder: Path) -> Written:
    full = picture(WIDTH, HEIGHT)
    grey = full[:, :, :1] // 2 + full[:, :, 1:2] // 2
    path = stacks.write_dicom(folder / "one.dcm", grey[None, :, :, 0])
    shown = np.repeat(grey, 3, axis=2)
    return Written(path, shown, [shown])


def _png(folder: Path) -> Written:
    full = picture(WIDTH, HEIGHT)
    Image.fromarray(full).save(folder / "picture.png")
    return Written(folder / "picture.png", full, [full])


def _jpeg(folder: Path) -> Written:
    full = picture(WIDTH, HEIGHT)
    Image.fromarray(full).save(folder / "picture.jpg", quality=95, subsampling=0)
    return Written(folder / "picture.jpg", full, [full], lossless=False)


def _strips(folder: Path) -> Written:
    full = picture(WIDTH, HEIGHT)
    path = folder / "strips.tiff"
    tifffile.imwrite(path, full, photometric="rgb", rowsperstrip=16, metadata=None)
    return Written(path, full, [full])


def _large_strips(folder: Path) -> Written:
    """Deep and large enough to be imported, with its pyramid."""
    full = picture(2400, 1900)
    deep = full.transpose(2, 0, 1).astype(np.uint16)
    path = folder / "deep.ome.tiff"
    tifffile.imwrite(path, deep, ome=True, metadata={"axes": "CYX"}, rowsperstrip=16)
    return Written(path, full, [full])


_DICOM = (
    *("full", "rgb", "concatenation", "depths", "jpeg2000", "plain", "sparse paths"),
    *("paths in files", "depths in files", "fewer coarse depths"),
)
CASES: dict[str, Write] = {
    **{f"slide {name}": partial(_slide, name) for name in SPECS if name != "sparse"},
    **{f"tiff {name}": partial(_codec, name) for name in test_tiff_tiles.CODECS},
    **{f"scanner {name}": partial(_vendor, name) for name in vendor_slides.WRITERS},
    # The other ways of writing DICOM differ in where frames are found, not placed.
    **{f"dicom {name}": partial(_dicom, name) for name in _DICOM},
    "dicom channels": _dicom_channels,
    "dicom image": _single_dicom,
    "ome-tiff": partial(_planes, stacks.write_ome_tiff, "a.ome.tiff"),
    "ome-tiff in strips": partial(
        _planes, stacks.write_ome_tiff, "a.ome.tiff", tile=None, rowsperstrip=7
    ),
    "ome-tiff in files": _ome_files,
    "imagej": partial(_planes, stacks.write_imagej, "a.tif"),
    "ome-zarr 0.4": partial(_planes, stacks.write_zarr, "a.ome.zarr"),
    "ome-zarr 0.5": partial(_planes, stacks.write_zarr, "a.ome.zarr", zarr_format=3),
    "ome-zarr zip": partial(_planes, stacks.write_zarr, "a.ome.zarr.zip"),
    "nifti": partial(_planes, stacks.write_nifti, "a.nii"),
    "nifti packed": partial(_planes, stacks.write_nifti, "a.nii.gz"),
    "png": _png,
    "jpeg": _jpeg,
    "tiff in strips": _strips,
    "imported planes": _large_strips,
}


@dataclass(frozen=True)
class Opened:
    written: Written
    pyramid: Pyramid


@pytest.fixture(params=CASES, scope="module")
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    written = CASES[request.param](tmp_path_factory.mktemp("corners"))
    with open_slide(written.path) as reader:
        shown = reader
        channels = plane_facts(reader).channels
        if len(channels) <= 3 and request.param.split()[0] not in _IN_COLOUR:
            # One channel is grey, three are the picture's own colours.
            colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
            if len(channels) == 1:
                colours = [(255, 255, 255)]
            style = Style(
                channels=tuple(
                    ChannelStyle(number, colour, (0.0, 255.0))
                    for number, colour in enumerate(colours)
                )
            )
            shown = styled(reader, style)
        yield Opened(written, Pyramid(shown))


# Shown as they are; a style would only decode them.
_IN_COLOUR = ("slide", "tiff", "scanner", "png", "jpeg")


class TestEveryReader:
    def test_stored_levels_are_in_their_place_to_the_pixel(
        self, opened: Opened
    ) -> None:
        stored = 0
        for rung in _rungs(opened.pyramid, stored=True):
            wanted = _level(opened.written, rung)
            if wanted is None:
                continue
            stored += 1
            for place, seen in _corner_tiles(opened.pyramid, rung, wanted):
                there = _cut(wanted, place, seen)
                if rung.k <= _COARSEST:
                    assert np.abs(seen - there).mean() <= _LOSS
                shift = _shift(seen, wanted, place)
                assert shift == pytest.approx((0, 0), abs=0.1)
                # Without the JPEG in which a made tile leaves.
                assert rung.level is not None
                size = there.shape[1], there.shape[0]
                pixels = opened.pyramid.reader.read(rung.level, *place, size)
                error = np.abs(pixels - there)
                if opened.written.lossless:
                    assert not error.any()
                elif rung.k <= _COARSEST:
                    assert error.mean() <= _LOSS
        assert stored >= 1

    def test_composed_levels_lie_within_half_a_pixel(self, opened: Opened) -> None:
        for rung in _rungs(opened.pyramid, stored=False):
            if rung.k > _COARSEST or min(rung.width, rung.height) < _SMALLEST:
                continue
            wanted = shrunken(opened.written.full, rung.downsample)
            for place, seen in _corner_tiles(opened.pyramid, rung, wanted):
                shift = _shift(seen, wanted, place)
                assert max(map(abs, shift)) <= 0.5

    def test_all_four_corners_have_tiles_of_the_grid_and_nothing_lies_beyond(
        self, opened: Opened
    ) -> None:
        pyramid = opened.pyramid
        edge = pyramid.ladder.tile
        for rung in pyramid.ladder.rungs:
            assert (rung.columns - 1) * edge < rung.width <= rung.columns * edge
            assert (rung.rows - 1) * edge < rung.height <= rung.rows * edge
            tile = pyramid.tile(rung, rung.columns - 1, rung.rows - 1).decode()
            assert tile.shape == (edge, edge, 3)
            right = rung.width - (rung.columns - 1) * edge
            # JPEG smears a little over the edge of the picture.
            beyond = tile[:, right + 16 :].astype(int)
            background = pyramid.reader.facts.background
            assert np.all(np.abs(beyond - background) <= 8)


# Of JPEG, on average: as it was written, and as a made tile leaves.
_LOSS = 6.0


def _rungs(pyramid: Pyramid, *, stored: bool) -> list[Rung]:
    return [one for one in pyramid.ladder.rungs if (one.level is not None) == stored]


def _level(written: Written, rung: Rung) -> Pixels | None:
    """What was written for a rung; formats may pad a level at its right and bottom."""
    for level in written.levels:
        height, width = level.shape[:2]
        if 0 <= rung.width - width < 128 and 0 <= rung.height - height < 128:
            return level
    return None


def _corner_tiles(
    pyramid: Pyramid, rung: Rung, wanted: Pixels
) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.int16]]]:
    """Patches at the four corners of a picture, of several tiles where they meet."""
    edge = pyramid.ladder.tile
    # A picture may lie anywhere on the glass.
    rows_of_it, columns_of_it = np.nonzero((wanted < 255).any(axis=2))
    left, right = columns_of_it.min(), columns_of_it.max() + 1
    top, bottom = rows_of_it.min(), rows_of_it.max() + 1
    across, down = min(_PATCH, right - left), min(_PATCH, bottom - top)
    for l_x in {left, right - across}:
        for l_y in {top, bottom - down}:
            columns = range(l_x // edge, -(-(l_x + across) // edge))
            rows = range(l_y // edge, -(-(l_y + down) // edge))
            joined = np.vstack(
                [
                    np.hstack([pyramid.tile(rung, x, y).decode() for x in columns])
                    for y in rows
                ]
            )
            x, y = l_x - columns[0] * edge, l_y - rows[0] * edge
            patch = joined[y : y + down, x : x + across]
            yield (l_x, l_y), patch.astype(np.int16)


def _cut(
    wanted: Pixels, place: tuple[int, int], seen: npt.NDArray[np.int16]
) -> npt.NDArray[np.int16]:
    l_x, l_y = place
    part = wanted[l_y : l_y + seen.shape[0], l_x : l_x + seen.shape[1]]
    return part.astype(np.int16)


def _shift(
    seen: npt.NDArray[np.int16], wanted: Pixels, place: tuple[int, int]
) -> tuple[float, float]:
    """How far `seen` lies from its place, x and y, in pixels of the level.

    The whole pixels first, then the least squares of what is left against the slopes.
    """
    there = _cut(wanted, place, seen).astype(np.float64)
    inner = (slice(4, -4), slice(4, -4))
    shown = seen.astype(np.float64)
    whole = min(
        ((x, y) for x in range(-2, 3) for y in range(-2, 3)),
        key=lambda one: _difference(shown, there, one),
    )
    moved = np.roll(there, (-whole[1], -whole[0]), (0, 1))
    slope_y, slope_x = np.gradient(moved, axis=(0, 1))
    slopes = np.stack([slope_x[inner].ravel(), slope_y[inner].ravel()], axis=1)
    left = (shown - moved)[inner].ravel()
    (x, y), *_ = np.linalg.lstsq(slopes, left, rcond=None)
    return whole[0] + float(x), whole[1] + float(y)


def _difference(
    shown: npt.NDArray[np.float64],
    there: npt.NDArray[np.float64],
    shift: tuple[int, int],
) -> float:
    moved = np.roll(there, (-shift[1], -shift[0]), (0, 1))
    return float(np.abs(shown - moved)[4:-4, 4:-4].mean())
