"""Changed bytes in every kind of file: served, refused, never a surprise."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import slides, stacks, vendor_slides
from tile_server.errors import TileServerError
from tile_server.probing import Prober, ProbeSettings
from tile_server.readers import open_slide

_CASES = int(os.environ.get("FUZZ_CASES", "10000"))
_SMALL = stacks.StackSpec(width=90, height=70, channels=2, depths=2, levels=2)
_FLAT = replace(_SMALL, channels=1, levels=1, dtype="int16")
_FILES = replace(_SMALL, levels=1)
_PICTURE = Image.fromarray(slides.picture(90, 70))


def _strips(path: Path) -> Path:
    return stacks.write_ome_tiff(path, _SMALL, tile=None, rowsperstrip=7)


def _picture(path: Path) -> Path:
    _PICTURE.save(path)
    return path


_WRITERS: dict[str, Callable[[Path], Path]] = {
    "tiles.ome.tiff": lambda path: stacks.write_ome_tiff(path, _SMALL),
    "strips.ome.tiff": _strips,
    "imagej.tif": lambda path: stacks.write_imagej(path, _FLAT),
    "plain.nii": lambda path: stacks.write_nifti(path, _FLAT),
    "packed.nii.gz": lambda path: stacks.write_nifti(path, _FLAT),
    "scan.dcm": lambda path: stacks.write_dicom(path, stacks.numbers(_FLAT)[0, 0]),
    "cells.ome.zarr.zip": lambda path: stacks.write_zarr(path, _SMALL),
    "picture.png": _picture,
    "picture.jpg": _picture,
    "picture.tif": _picture,
    "t0_c0.ome.tif": lambda path: stacks.write_ome_files(path.parent, _FILES),
    "slide.czi": lambda path: vendor_slides.write_czi(path.parent)[0],
    "slide.ndpi": lambda path: vendor_slides.write_ndpi(path.parent)[0],
    "slide.scn": lambda path: vendor_slides.write_scn(path.parent)[0],
    "slide.bif": lambda path: vendor_slides.write_bif(path.parent)[0],
    "philips.tiff": lambda path: vendor_slides.write_philips(path.parent)[0],
}
_WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80")


def changed(whole: bytes, chance: random.Random) -> bytes:
    """`whole` with a few changes, most of them near its beginning."""
    file = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        reach = min(len(file), chance.choice([64, 512, 4096, len(file)]))
        at, kind = chance.randrange(reach), chance.random()
        if kind < 0.5:
            file[at] = chance.randrange(256)
        elif kind < 0.7:
            file[at : at + 4] = chance.choice(_WORDS)
        elif kind < 0.8:
            del file[at : at + chance.randrange(1, 64)]
        else:
            file[at:at] = chance.randbytes(chance.randrange(1, 16))
    return bytes(file) or b"\0"


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober(ProbeSettings(workers=1)) as started:
        started.warm_up()
        yield started


def _look(path: Path, prober: Prober, case: int) -> None:
    """Open in a worker and here, as the service does, and read.

    What is wrong is said with the file's name alone.
    """
    said = ""
    try:
        prober.probe(path, str(case))
        with open_slide(path) as reader:
            for number in range(len(reader.levels)):
                assert reader.read(number, 0, 0, (40, 30)).dtype == np.uint8
    except TileServerError as error:
        said = str(error)
    assert str(path.parent) not in said


@pytest.mark.parametrize("name", _WRITERS)
def test_changed_bytes_are_served_or_refused(
    tmp_path: Path, prober: Prober, name: str
) -> None:
    _fuzz(tmp_path, prober, name, seed=1, cases=40)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", _WRITERS)
def test_very_many_changed_bytes_are_served_or_refused(
    tmp_path: Path, prober: Prober, name: str
) -> None:
    _fuzz(tmp_path, prober, name, seed=2, cases=_CASES)


def _fuzz(folder: Path, prober: Prober, name: str, *, seed: int, cases: int) -> None:
    path = _WRITERS[name](folder / name)
    whole = path.read_bytes()
    chance = random.Random(seed)  # noqa: S311 - the same cases every time are wanted
    for case in range(cases):
        path.write_bytes(changed(whole, chance))
        _look(path, prober, case)
