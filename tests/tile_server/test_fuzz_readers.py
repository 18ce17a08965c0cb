"""Damaged files of every kind: refused or served, never a crash, a hang or a surprise.

The `long` test does the same with many more cases.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import slides
from tests.dicom_slides import COLOUR, MONOCHROME, DicomSpec, write_dicom_slide
from tests.tile_server.conftest import SPECS
from tile_server import jpeg_streams
from tile_server.errors import DamagedTile, TileServerError, UnreadableSlide
from tile_server.ladder import build
from tile_server.probing import Prober, ProbeSettings
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.dicom_frames import find_frames, read_frame
from tile_server.readers.dicom_pixels import jpeg_2000_size, jpeg_ls_size
from tile_server.readers.tiff_codecs import NAMES, TileCoding, decode

_SLOW_S = 5.0
_CASES = int(os.environ.get("FUZZ_CASES", "7000"))
_SMALL = {"width": 200, "height": 150, "downsamples": (1,)}


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober(ProbeSettings(workers=1, seconds=_SLOW_S)) as started:
        started.warm_up()
        yield started


def look_at(path: Path, prober: Prober) -> None:
    """Open a file and read some of it, as the service does: in a worker first.

    A file that ends the worker is refused; one that ended this process would end the
    test.
    """
    started = time.monotonic()
    try:
        prober.probe(path, f"{started}")
        with open_slide(path) as reader:
            build(reader.levels)
            pyramid = Pyramid(reader)
            # The coarsest rung of a level without copies takes all of it, whatever the
            # file; the service bounds the time of a tile.
            for rung in pyramid.ladder.rungs[:2]:
                try:
                    pyramid.tile(rung, rung.columns - 1, rung.rows - 1)
                except DamagedTile:
                    continue
            for name in reader.facts.associated:
                try:
                    reader.associated_image(name)
                except DamagedTile:
                    continue
    except TileServerError as error:
        told = str(error)
    else:
        told = ""
    assert str(path.parent) not in told
    assert time.monotonic() - started < _SLOW_S


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """The file with some bytes changed, most of them where its structure lies."""
    changed = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        reach = chance.choice((64, 1024, 8192, len(changed)))
        at = chance.randrange(min(reach, len(changed)))
        if chance.random() < 0.3:
            at = len(changed) - 1 - at
        value = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        changed[at : at + chance.choice((1, 1, 2, 4))] = bytes([value])
    if chance.random() < 0.1:
        del changed[chance.randrange(len(changed)) :]
    return bytes(changed)


def write_one(folder: Path, name: str) -> Path:
    """A small slide of a kind, alone in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in SPECS:
        spec = slides.replace(SPECS[name], width=200, height=150, downsamples=(1,))
        return slides.write_slide(folder / "one.tiff", spec)
    spec_of_dicom = {**COLOUR, **MONOCHROME}[name]
    fields = {**vars(spec_of_dicom), **_SMALL, "parts": 1, "left_out": frozenset()}
    return write_dicom_slide(folder, DicomSpec(**fields), label=False)


KINDS = [
    *("ycbcr", "rgb_odd", "whole_streams", "deflate"),
    *("full", "rgb", "sparse", "empty table", "fragments without table"),
    *("jpeg2000", "jpeg-ls", "rle", "plain", "sparse channels", "16 bit"),
]


def shake(tmp_path: Path, prober: Prober, name: str, cases: int, seed: int) -> None:
    path = write_one(tmp_path / "slide", name)
    whole = path.read_bytes()
    for case in range(cases):
        chance = random.Random(f"{name} {seed} {case}")  # noqa: S311 - no secret
        path.write_bytes(damaged(whole, chance))
        try:
            look_at(path, prober)
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}, case {case}")
            raise


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_refused_or_served(
    tmp_path: Path, prober: Prober, name: str
) -> None:
    shake(tmp_path, prober, name, cases=25, seed=0)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", KINDS)
def test_thousands_of_damaged_files_are_refused_or_served(
    tmp_path: Path, prober: Prober, name: str
) -> None:
    shake(tmp_path, prober, name, cases=_CASES, seed=1)


def test_a_tile_that_no_memory_holds_does_not_end_the_service(
    tmp_path: Path, prober: Prober
) -> None:
    path = write_one(tmp_path / "slide", "deflate")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["TileLength"].overwrite(2_130_706_560)
    with pytest.raises(UnreadableSlide, match="it has tiles of 128 x"):
        prober.probe(path, "1")
    # It is refused for what it says, and no worker falls any more.
    with pytest.raises(UnreadableSlide, match="it has tiles of 128 x"):
        open_slide(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_jpeg_header_or_none(noise: bytes) -> None:
    for stream in (noise, b"\xff\xd8" + noise, b"\xff\xd8\xff\xc0" + noise):
        jpeg_streams.read_header(stream)
        declared = jpeg_streams.Declared(64, 64, 3, rgb=True)
        jpeg_streams.passing_prefix(noise, stream, declared)


@given(st.binary(max_size=300))
def test_any_bytes_have_a_size_or_none(noise: bytes) -> None:
    for head in (b"", b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xf7"):
        assert min(jpeg_2000_size(head + noise)) >= 0
        assert min(jpeg_ls_size(head + noise)) >= 0


@settings(deadline=None)
@given(st.sampled_from(sorted(NAMES)), st.binary(max_size=600), st.booleans())
def test_any_bytes_are_a_tile_or_damaged(
    codec: int, noise: bytes, differences: bool
) -> None:
    try:
        seen = decode(noise, TileCoding(codec, 16, 3, differences=differences))
    except DamagedTile:
        return
    assert seen.shape == (16, 16, 3)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames") / "frames"


def _items(parts: list[bytes], cut: int) -> bytes:
    joined = b"".join(
        struct.pack("<II", 0xE000FFFE, len(part)) + part for part in parts
    )
    return joined[: len(joined) - cut]


def test_any_items_are_frames_or_refused(scratch: Path) -> None:
    @settings(deadline=None)
    @given(
        st.lists(st.binary(max_size=40), max_size=6),
        st.integers(0, 30),
        st.integers(0, 8),
        st.binary(max_size=40),
    )
    def check(parts: list[bytes], cut: int, frames: int, table: bytes) -> None:
        head = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
        scratch.write_bytes(head + _items([table, *parts], cut))
        read_all(scratch, frames)

    check()


def read_all(path: Path, frames: int) -> None:
    with path.open("rb") as file:
        look: Callable[[], int] = file.fileno
        try:
            index = find_frames(
                look(), 0, frames, explicit=True, native_bytes=0, extended=None
            )
        except UnreadableSlide:
            return
        assert len(index.starts) == frames
        for start, end in zip(index.starts, index.ends, strict=True):
            try:
                read_frame(look(), int(start), int(end), encapsulated=True)
            except DamagedTile:
                continue
