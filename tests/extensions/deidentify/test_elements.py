"""Cutting a file into elements: exact for what is whole, harmless for what is not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from theatrum import deidentify
from theatrum.deidentify import part10
from theatrum.deidentify.elements import encode, parse
from theatrum.deidentify.engine import Scrubber
from theatrum.deidentify.identifiers import Identifiers

from tests.extensions.deidentify.running import (
    KEY,
    PERSON,
    image,
    package,
    profile,
    put,
)

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]

TEXTS = [0x00080070, 0x00080080, 0x00081090, 0x00100020]
SEQUENCES = [0x00081110, 0x00081115, 0x00081140]

texts = st.text("abcdefgh XYZ09", max_size=20)
data_sets = st.recursive(
    st.lists(st.tuples(st.just("LO"), texts), max_size=4),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=8,
)


def built(shape: object, depth: int = 0) -> Dataset:
    """A data set of private-free elements from a nested list."""
    made = Dataset()
    assert isinstance(shape, list)
    for number, part in enumerate(shape):
        if isinstance(part, tuple):
            made.add_new(TEXTS[number], part[0], part[1])
        else:
            made.add_new(SEQUENCES[number], "SQ", Sequence([built(part, depth + 1)]))
    return made


@given(data_sets, st.sampled_from(SYNTAXES), st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_cut_up_and_put_together_reads_the_same(
    shape: object, syntax: str, undefined: bool
) -> None:
    one = built(shape)
    for element in one.iterall():
        if element.VR == "SQ" and undefined:
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    implicit = syntax == ImplicitVRLittleEndian
    file = io.BytesIO()
    one.save_as(file, implicit_vr=implicit, little_endian=True)
    cut = parse(file.getvalue(), explicit=not implicit)
    again = b"".join(encode(cut.elements, explicit=not implicit))
    assert cut.damaged == []
    assert _read(again, syntax) == _read(file.getvalue(), syntax)


def _read(body: bytes, syntax: str) -> Dataset:
    head = b"".join(part10.write(part10.DataSet([], syntax, []), "1.2.3", "1.2.4"))
    return dcmread(io.BytesIO(head + body))


@pytest.mark.parametrize("syntax", [*SYNTAXES, DeflatedExplicitVRLittleEndian])
def test_every_transfer_syntax_comes_through(tmp_path: Path, syntax: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    one = image()
    put(one, source / "one.dcm", syntax)
    done = package(source, tmp_path / "out", profile())
    read = dcmread(tmp_path / "out" / done.names[1])
    assert read.PixelData == one.PixelData
    assert read.ImagePositionPatient == one.ImagePositionPatient
    assert (
        PERSON.patient_id.encode()
        not in (tmp_path / "out" / done.names[1]).read_bytes()
    )


def test_big_endian_comes_out_little_endian(tmp_path: Path) -> None:
    import numpy as np

    source = tmp_path / "in"
    source.mkdir()
    one = image()
    pixels = np.frombuffer(one.PixelData, "<u2")
    one["PixelData"].VR = "OW"
    one.PixelData = pixels.astype(">u2").tobytes()
    put(one, source / "one.dcm", ExplicitVRBigEndian)
    done = package(source, tmp_path / "out", profile())
    assert done.names, done.report.as_json()
    read = dcmread(tmp_path / "out" / done.names[1])
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (read.pixel_array.ravel() == pixels).all()
    assert read.Rows == 64


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part10, "MAX_INFLATED_BYTES", 1 << 20)
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = machine.compress(bytes(1 << 24)) + machine.flush()
    with pytest.raises(deidentify.Refused):
        part10._inflate(body)


def test_pixels_that_end_too_early_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    content = put(image(), source / "one.dcm").read_bytes()
    (source / "one.dcm").write_bytes(content[:-100])
    one = image()
    one.PixelData = one.PixelData[:-100]
    put(one, source / "two.dcm")
    done = package(source, tmp_path / "out", profile())
    assert [entry.reason for entry in done.report.refused] == ["damaged", "damaged"]


def test_sequences_nested_without_end_are_refused() -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    start = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    content = bytes(128) + b"DICM" + (start + item) * 5000
    with pytest.raises(deidentify.Refused):
        part10.read(content)


def damaged(content: bytes, position: int, change: bytes) -> bytes:
    at = position % max(1, len(content) - len(change))
    return content[:at] + change + content[at + len(change) :]


def survives(content: bytes) -> None:
    """Any bytes are given out clean or stay inside, and nothing else is raised."""
    worker = deidentify.Deidentifier(profile(), KEY)
    scrubber = Scrubber.of(Identifiers())
    try:
        done = worker.file(content, scrubber)
    except deidentify.NotGivenOut:
        return
    assert b"".join(done.header)[128:132] == b"DICM"


@given(st.integers(132, 3500), st.binary(min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_raises_nothing_unexpected(position: int, change: bytes) -> None:
    survives(damaged(_content(), position, change))


@pytest.mark.fuzz
@pytest.mark.long
@given(st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=40))))
@settings(max_examples=20_000, deadline=None)
def test_a_file_damaged_in_many_places_raises_nothing_unexpected(
    changes: list[tuple[int, bytes]],
) -> None:
    content = _content()
    for position, change in changes:
        content = damaged(content, position, change)
    survives(content)


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_dicom_raise_nothing_unexpected(content: bytes) -> None:
    survives(content)
    survives(bytes(128) + b"DICM" + content)


_KEPT: list[bytes] = []


def _content() -> bytes:
    """One file with nested sequences, made once."""
    if not _KEPT:
        from benchmarks.deidentify.corpus import plant

        one = image()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plant(one, "x", PERSON, 1)
            one.ensure_file_meta()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            file = io.BytesIO()
            one.save_as(file, enforce_file_format=True)
        _KEPT.append(file.getvalue())
    return _KEPT[0]
