"""The place of a stored tile leads to the very bytes that its reader gives."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests import slides
from tests.dicom_slides import COLOUR, write_dicom_slide
from tile_server import reading
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.reading import Place, read, read_now


def check(path: Path) -> int:
    """Compare all tiles of a slide; gives the number that pass."""
    passed = 0
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        for rung in pyramid.ladder.rungs:
            for x in range(rung.columns):
                for y in range(rung.rows):
                    place = pyramid.place(rung, x, y)
                    stored = pyramid.stored_tile(rung, x, y)
                    body = None if stored is None else stored.body
                    if place is None:
                        assert body is None or not pyramid.knows_places
                        continue
                    assert read(place) == body
                    # The file was just read: it is in memory, or nobody can say so.
                    assert read_now(place) in (body, None)
                    passed += body is not None
    return passed


def test_of_every_tiff_slide(made_slides: dict[str, Path]) -> None:
    counts = {name: check(path) for name, path in made_slides.items()}
    assert counts.pop("deflate") == 0
    assert all(count > 20 for count in counts.values())


@pytest.mark.parametrize("name", COLOUR)
def test_of_every_dicom_slide(tmp_path: Path, name: str) -> None:
    spec = COLOUR[name]
    count = check(write_dicom_slide(tmp_path, spec))
    assert (count > 20) == (spec.codec == "jpeg")


def test_of_real_slides(shared_data: Path) -> None:
    for name in ("CMU-1-Small-Region.svs", "dicom_cmu/volume_1500x1125.dcm"):
        assert check(shared_data / "wsi" / name) > 20


@pytest.mark.parametrize("damaged", [0, 5])
def test_a_damaged_tile_has_no_bytes(tmp_path: Path, damaged: int) -> None:
    path = slides.write_slide(tmp_path / "damaged.svs", slides.YCBCR)
    slides.damage_tile(path, 0, damaged)
    with open_slide(path) as reader:
        pyramid = Pyramid(reader)
        place = pyramid.place(pyramid.ladder.rungs[0], damaged, 0)
        assert place is not None
        assert read(place) is None
        assert read_now(place) is None


def test_what_lies_past_the_end_or_is_too_long_has_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xd8" * 2**20)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert read(Place(descriptor, 2**22, 10, b"")) is None
        assert read_now(Place(descriptor, 2**21 - 4, 10, b"")) is None
        assert read_now(Place(descriptor, 0, 2**20 + 1, b"")) is None
        assert read(Place(descriptor, 0, 2**20 + 1, b"")) is not None
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO])
def test_where_the_system_cannot_say_every_read_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xd8 a tile")

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    descriptor = os.open(path, os.O_RDONLY)
    try:
        place = Place(descriptor, 0, 9, b"<")
        monkeypatch.setattr(os, "preadv", refuse)
        assert read_now(place) is None
        monkeypatch.setattr(reading, "_NOT_WAITING", 0)
        assert read_now(place) is None
        assert read(place) == b"< a tile"
    finally:
        os.close(descriptor)
