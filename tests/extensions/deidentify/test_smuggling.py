"""Places of a file where nobody looks for a name, and where one is put here."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian
from theatrum import deidentify
from theatrum.deidentify import part10
from theatrum.deidentify.elements import Element, encode

from tests.extensions.deidentify.running import KEY, image, package, profile, put

# Stands nowhere else in the package, so that no list of its identifiers helps.
SECRET = b"ZORGELMANN"
JPEG, JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"


def written(tmp_path: Path, *more: Element, drop: tuple[int, ...] = ()) -> Path:
    """A folder with one plain slice, some of whose elements are others."""
    source = tmp_path / "in"
    source.mkdir(exist_ok=True)
    path = put(image(), source / "one.dcm")
    parsed = part10.read(path.read_bytes())
    gone = {element.tag for element in more} | set(drop)
    kept = [element for element in parsed.elements if element.tag not in gone]
    kept = sorted([*kept, *more], key=lambda element: element.tag)
    head = path.read_bytes()[: _data_set_at(path.read_bytes())]
    path.write_bytes(head + b"".join(encode(kept, explicit=True)))
    return source


def _data_set_at(content: bytes) -> int:
    return 132 + 12 + struct.unpack_from("<L", content, 140)[0]


def given(source: Path, target: Path) -> tuple[bytes, list[str]]:
    """All that was given out, names too, and why files stayed inside."""
    done = package(source, target)
    content = b"".join(
        path.name.encode() + path.read_bytes() for path in target.iterdir()
    )
    report = done.report
    return content, [entry.reason for entry in [*report.held, *report.refused]]


def sequence(tag: int, *elements: Element) -> Element:
    return Element(tag, "SQ", items=[list(elements)])


@pytest.mark.parametrize(
    "hidden",
    [
        Element(0x00180050, "OB", SECRET),  # SliceThickness, DS
        Element(0x00200013, "OB", SECRET),  # InstanceNumber, IS
        Element(0x00180050, "CS", SECRET),
        Element(0x00180015, "OW", SECRET),  # BodyPartExamined, CS
        Element(0x00180015, "US", SECRET),
        Element(0x00280103, "OB", SECRET),  # PixelRepresentation, US
        Element(0x00280106, "US", SECRET),  # SmallestImagePixelValue, one US
        Element(0x00200052, "UI", b"1.2.840.10008." + SECRET),
        Element(0x00200052, "UI", b"1.2.840.10008.5.1.4.1.1.2." + SECRET),
        Element(0x00080018, "UI", b"1.2.840.10008." + SECRET),
        Element(0x00080018, "UI", b"1.2.840.10008./../" + SECRET),
        Element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2" + SECRET),
        Element(0x00080005, "CS", SECRET),
        Element(0x7FE00020, "OW", SECRET),  # CoefficientsSDVN
        Element(0x7FE00008, "OF", SECRET + b"12"),  # beside the pixels
        sequence(0x00540016, Element(0x7FE00010, "OW", SECRET)),
        sequence(0x00540016, Element(0x00091001, "UN", SECRET)),
    ],
    ids=lambda element: f"{element.tag:08x}-{element.vr}",
)
def test_no_element_carries_what_is_none_of_its_kind(
    tmp_path: Path, hidden: Element
) -> None:
    content, _ = given(written(tmp_path, hidden), tmp_path / "out")
    assert SECRET.lower() not in content.lower()


def test_a_long_number_under_the_standards_root_is_replaced(tmp_path: Path) -> None:
    uid = b"1.2.840.10008.19560203.99887766"
    content, reasons = given(
        written(tmp_path, Element(0x00200052, "UI", uid)), tmp_path / "out"
    )
    assert reasons == []
    assert b"19560203" not in content


def test_an_unknown_transfer_syntax_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path)
    path = source / "one.dcm"
    content = path.read_bytes()
    syntax = ExplicitVRLittleEndian.encode() + b"\0"
    # As long as the true one.
    path.write_bytes(content.replace(syntax, b"1.2.3.4.5." + SECRET, 1))
    content, reasons = given(source, tmp_path / "out")
    assert reasons == ["unsupported"]
    assert SECRET not in content


def test_a_character_set_that_is_none_is_quoted_by_no_warning(tmp_path: Path) -> None:
    source = written(tmp_path, Element(0x00080005, "CS", SECRET))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        given(source, tmp_path / "out")
    assert not [one for one in heard if SECRET.decode() in str(one.message)]


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_what_follows_the_image_is_not_given_out(tmp_path: Path, frames: int) -> None:
    one = image()
    whole = one.PixelData
    tail = SECRET * 2 + bytes(len(whole)) * frames
    source = written(tmp_path, Element(0x7FE00010, "OW", whole + tail))
    content, _ = given(source, tmp_path / "out")
    assert SECRET not in content


@pytest.mark.parametrize("tag", [0x00280010, 0x00280011, 0x00280100])
def test_pixels_of_no_size_are_refused(tmp_path: Path, tag: int) -> None:
    pixels = Element(0x7FE00010, "OW", SECRET)
    source = written(tmp_path, pixels, drop=(tag,))
    content, reasons = given(source, tmp_path / "out")
    assert reasons == ["damaged"]
    assert SECRET not in content


@pytest.mark.parametrize("signed", [0, 1])
def test_graphics_in_unused_bits_go_though_no_overlay_is_declared(
    tmp_path: Path, signed: int
) -> None:
    one = image()
    one.BitsStored, one.HighBit, one.PixelRepresentation = 12, 11, signed
    values = np.arange(one.Rows * one.Columns) % 2048
    pixels = (values | 0x5000).astype("<u2")
    one.PixelData = pixels.tobytes()
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm")
    done = package(source, tmp_path / "out")
    after = dcmread(tmp_path / "out" / done.names[1])
    assert np.array_equal(np.frombuffer(after.PixelData, "<u2"), values)


def test_signs_in_unused_bits_stay(tmp_path: Path) -> None:
    one = image()
    one.BitsStored, one.HighBit, one.PixelRepresentation = 12, 11, 1
    pixels = (np.arange(one.Rows * one.Columns) % 4096 - 2048).astype("<i2")
    one.PixelData = pixels.tobytes()
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm")
    done = package(source, tmp_path / "out")
    after = dcmread(tmp_path / "out" / done.names[1])
    assert after.PixelData == pixels.tobytes()


def picture(kind: str) -> bytes:
    target = io.BytesIO()
    shades = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    Image.fromarray(shades).save(target, kind)
    return target.getvalue()


def jpeg(marker: int, body: bytes) -> bytes:
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    whole = picture("JPEG")
    return whole[:20] + segment + whole[20:]  # after JFIF


def codestream() -> bytes:
    whole = picture("JPEG2000")
    return whole[whole.index(b"\xff\x4f\xff\x51") :]


def commented() -> bytes:
    whole = codestream()
    comment = struct.pack(">HHH", 0xFF64, len(SECRET) + 4, 1) + SECRET
    (size,) = struct.unpack_from(">H", whole, 4)
    return whole[: 4 + size] + comment + whole[4 + size :]


@pytest.mark.parametrize(
    ("comment", "stays"),
    [
        (b"Created by OpenJPEG version 2.5.0", True),
        (b"Creator: JasPer Version 1.701.0", True),
        (b"Created by OpenJPEG for " + SECRET, False),
    ],
)
def test_only_encoders_may_sign(tmp_path: Path, comment: bytes, stays: bool) -> None:
    source = tmp_path / "in"
    source.mkdir()
    put(compressed(jpeg(0xFE, comment)), source / "one.dcm", JPEG)
    content, reasons = given(source, tmp_path / "out")
    assert reasons == []
    assert (comment in content) is stays


def boxed() -> bytes:
    box = struct.pack(">L4s", 8 + len(SECRET), b"xml ") + SECRET
    whole = picture("JPEG2000")
    at = whole.index(b"jp2c") - 4
    return whole[:at] + box + whole[at:]


def compressed(frame: bytes, fragments: int = 1) -> Dataset:
    one = image()
    one.Rows = one.Columns = 64
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit = 7
    one.PixelData = encapsulate([frame], fragments_per_frame=fragments)
    one["PixelData"].VR = "OB"
    return one


@pytest.mark.parametrize("fragments", [1, 7])
@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (JPEG, jpeg(0xFE, SECRET)),
        (JPEG, jpeg(0xE1, b"Exif\0\0" + SECRET)),
        (JPEG, jpeg(0xE0, b"JFXX\0\x10" + SECRET)),
        (JPEG, jpeg(0xE2, b"FPXR\0" + SECRET)),
        (JPEG, picture("JPEG") + SECRET),
        (JPEG_2000, commented()),
        (JPEG_2000, codestream() + SECRET),
        (JPEG_2000, boxed()),
    ],
    ids=["comment", "exif", "thumbnail", "unknown", "rest", "j2k", "j2k-rest", "box"],
)
def test_compressed_frames_hold_pixels_only(
    tmp_path: Path, syntax: str, frame: bytes, fragments: int
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    path = put(compressed(frame, fragments), source / "one.dcm", syntax)
    # A name that lies across two fragments must not be missed.
    assert fragments > 1 or SECRET in path.read_bytes()
    done = package(source, tmp_path / "out")
    after = dcmread(tmp_path / "out" / done.names[1])
    (stream,) = generate_frames(after.PixelData, number_of_frames=1)
    assert SECRET not in stream
    with Image.open(io.BytesIO(stream)) as seen, Image.open(io.BytesIO(frame)) as was:
        assert np.array_equal(np.asarray(seen), np.asarray(was))


def test_a_frame_that_the_file_does_not_tell_of_is_refused(tmp_path: Path) -> None:
    one = compressed(picture("JPEG"))
    one.PixelData = encapsulate([picture("JPEG"), picture("JPEG")])
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm", JPEG)
    assert given(source, tmp_path / "out")[1] == ["damaged"]


def test_a_table_of_frames_that_is_none_is_refused(tmp_path: Path) -> None:
    one = compressed(picture("JPEG"))
    one.PixelData = (
        b"\xfe\xff\x00\xe0" + struct.pack("<L", 12) + SECRET + b"!!"
        + encapsulate([picture("JPEG")], has_bot=False)[8:]
    )  # fmt: skip
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm", JPEG)
    assert given(source, tmp_path / "out")[1] == ["damaged"]


def test_fragments_without_compression_are_refused(tmp_path: Path) -> None:
    value = encapsulate([SECRET]) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    hidden = Element(0x7FE00010, "OB", value, fragments=True)
    content, reasons = given(written(tmp_path, hidden), tmp_path / "out")
    assert reasons == ["damaged"]
    assert SECRET not in content


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path)
    path = source / "one.dcm"
    other = image()
    other.PatientName = other.StudyDescription = SECRET.decode()

    def change(phase: str, _done: int, _total: int) -> None:
        if phase == "survey":
            put(other, path)

    worker = deidentify.Deidentifier(profile(), KEY)
    done = worker.package([path], tmp_path / "out", progress=change)
    assert [entry.reason for entry in done.report.refused] == ["changed"]


def test_a_voice_is_held(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        Element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.9.4.1"),
        sequence(0x54000100, Element(0x54001010, "OB", SECRET)),
        drop=(0x7FE00010,),
    )
    content, reasons = given(source, tmp_path / "out")
    assert reasons == ["burned_in"]
    assert SECRET not in content
