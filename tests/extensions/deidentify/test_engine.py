"""One data set through the engine: every depth, every kind of value, any damage."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from tests.extensions.deidentify.running import MODIFIED, PERSON, image, through


def test_the_required_attributes_say_what_was_done(tmp_path: Path) -> None:
    done, _ = through(tmp_path, image(), MODIFIED)
    assert done.PatientIdentityRemoved == "YES"
    assert done.DeidentificationMethod
    codes = {item.CodeValue for item in done.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113107"}
    assert done.LongitudinalTemporalInformationModified == "MODIFIED"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), "REMOVED"),
        ((MODIFIED,), "MODIFIED"),
        (("retain_longitudinal_full_dates",), "UNMODIFIED"),
    ],
)
def test_what_became_of_dates_is_told(
    tmp_path: Path, options: tuple[str, ...], wanted: str
) -> None:
    done, _ = through(tmp_path, image(), *options)
    assert done.LongitudinalTemporalInformationModified == wanted


def test_the_file_meta_information_is_made_anew(tmp_path: Path) -> None:
    one = image()
    one.ensure_file_meta()
    one.file_meta.SourceApplicationEntityTitle = "SOURCEAE"
    one.preamble = b"WHO IS IT".ljust(128, b"\0")
    done, content = through(tmp_path, one)
    assert content[:128] == bytes(128)
    assert b"SOURCEAE" not in content
    assert done.file_meta.MediaStorageSOPInstanceUID == done.SOPInstanceUID
    assert {element.tag.element for element in done.file_meta} == {
        0x0000, 0x0001, 0x0002, 0x0003, 0x0010, 0x0012, 0x0013,
    }  # fmt: skip


def test_uids_are_replaced_alike_at_every_depth(tmp_path: Path) -> None:
    one = image()
    for _ in range(3):
        item = Dataset()
        item.ReferencedSOPClassUID = one.SOPClassUID
        item.ReferencedSOPInstanceUID = one.SOPInstanceUID
        if "ReferencedInstanceSequence" in one:
            item.ReferencedInstanceSequence = one.ReferencedInstanceSequence
        one.ReferencedInstanceSequence = Sequence([item])
    done, content = through(tmp_path, one)
    at = done
    for _ in range(3):
        at = at.ReferencedInstanceSequence[0]
        assert at.ReferencedSOPInstanceUID == done.SOPInstanceUID
        assert at.ReferencedSOPClassUID == one.SOPClassUID
    assert str(one.SOPInstanceUID).encode() not in content
    assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", done.SOPInstanceUID)


def test_dates_of_one_patient_move_by_one_number_of_whole_days(tmp_path: Path) -> None:
    from datetime import date

    one = image()
    one.StudyDate, one.SeriesDate = "20200229", "20200302"
    one.AcquisitionDateTime = "20200301103000.5+0100"
    done, _ = through(tmp_path, one, MODIFIED)

    def day(text: str) -> date:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))

    shift = day(done.StudyDate) - date(2020, 2, 29)
    assert -365 <= shift.days <= -1
    assert day(done.SeriesDate) - date(2020, 3, 2) == shift
    assert day(str(done.AcquisitionDateTime)) - date(2020, 3, 1) == shift
    assert str(done.AcquisitionDateTime)[8:] == "103000.5"
    assert done.StudyTime == one.StudyTime
    assert done.PatientBirthDate == ""


def test_a_date_that_is_none_does_not_come_out(tmp_path: Path) -> None:
    one = image()
    one.add_new(0x00080021, "DA", "")
    one["SeriesDate"]._value = "ask Berthold"
    done, content = through(tmp_path, one, MODIFIED)
    assert done.SeriesDate == ""
    assert b"berthold" not in content.lower()


def test_private_elements_go(tmp_path: Path) -> None:
    one = image()
    one.add_new(0x00110010, "LO", "HOUSE")
    one.add_new(0x00111001, "LO", "secretly")
    done, content = through(tmp_path, one)
    assert not any(element.tag.is_private for element in done.iterall())
    assert b"secretly" not in content


@pytest.mark.parametrize(
    "damage",
    [
        # private, UN of open length whose items never end
        struct.pack("<HH2sHL", 0x0011, 0x1001, b"UN", 0, 0xFFFFFFFF) + b"junk" * 5,
        # private, longer than the file
        struct.pack("<HH2sHL", 0x0011, 0x1001, b"OB", 0, 0x7FFFFFFF) + b"junk" * 5,
        # private, a sequence of defined length that holds no items
        struct.pack("<HH2sHL", 0x0011, 0x1001, b"SQ", 0, 20) + b"junk" * 5,
        # private, a VR that is none, with 16 bits of length
        struct.pack("<HH2sH", 0x0011, 0x1001, b"??", 20) + b"junk" * 5,
        # public by its group, in no dictionary, longer than the file
        struct.pack("<HH2sHL", 0x0012, 0x9F01, b"UN", 0, 0x7FFFFF00) + b"junk" * 5,
        # public by its group, no VR at all
        struct.pack("<HHL", 0x0012, 0x9F01, 20) + b"junk" * 5,
    ],
)
def test_a_damaged_private_or_unknown_element_refuses_no_file(
    tmp_path: Path, damage: bytes
) -> None:
    from tests.extensions.deidentify.running import package, profile, put

    source = tmp_path / "in"
    source.mkdir()
    path = put(image(), source / "one.dcm")
    content = path.read_bytes()
    at = content.index(struct.pack("<HH2s", 0x0018, 0x0015, b"CS"))
    path.write_bytes(content[:at] + damage + content[at:])
    done = package(source, tmp_path / "out", profile())
    assert done.report.given_out == 1, done.report.as_json()
    from pydicom import dcmread

    read = dcmread(tmp_path / "out" / done.names[1])
    assert read.BodyPartExamined == "CHEST"
    assert read.Rows == 64
    assert read.PixelData == image().PixelData
    assert b"junk" not in (tmp_path / "out" / done.names[1]).read_bytes()


def test_a_number_that_is_a_name_is_not_kept(tmp_path: Path) -> None:
    one = image()
    one["SliceThickness"]._value = None
    one.add_new(0x00180050, "LO", "Wilhelmina")
    _, content = through(tmp_path, one)
    assert b"Wilhelmina" not in content


def test_a_name_in_text_that_is_kept_is_taken_out(tmp_path: Path) -> None:
    one = image()
    surname = PERSON.name.split("^")[0]
    one.Manufacturer = f"SIEMENS ({surname.upper()})"
    one.ConvolutionKernel = "B30f"
    done, content = through(tmp_path, one)
    assert surname.lower().encode() not in content.lower()
    assert "SIEMENS" in done.Manufacturer
    assert done.ConvolutionKernel == "B30f"


def test_a_uid_in_text_that_is_kept_is_taken_out(tmp_path: Path) -> None:
    one = image()
    one.SoftwareVersions = f"VB42C 5.1.2 for {one.StudyInstanceUID}"
    done, content = through(tmp_path, one)
    assert done.SoftwareVersions.split() == ["VB42C", "5.1.2", "for"]
    assert str(one.StudyInstanceUID).encode() not in content


def test_names_in_other_alphabets_are_taken_out(tmp_path: Path) -> None:
    one = image()
    one.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    one.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    _, content = through(tmp_path, one)
    for text in ("山田", "やまだ"):
        assert text.encode("iso2022_jp") not in content
    one = image()
    one.SpecificCharacterSet = "ISO_IR 192"
    one.PatientName = "Müßiggänger^Éloïse"
    one.SoftwareVersions = "v2 Müßiggänger"
    done, content = through(tmp_path, one)
    assert "müßig" not in content.decode("utf-8", "ignore").lower()
    assert done.SoftwareVersions == "v2"


def test_overlays_and_curves_go_and_their_descriptions_with_them(
    tmp_path: Path,
) -> None:
    one = image()
    one.add_new(0x60020010, "US", 64)
    one.add_new(0x60023000, "OW", b"\1" * 512)
    one.add_new(0x60021500, "LO", "drawn by Roswitha")
    one.add_new(0x50040005, "US", 2)
    one.add_new(0x50043000, "OW", b"\2" * 32)
    done, _ = through(tmp_path, one)
    assert not [element for element in done if element.tag.group >> 8 in (0x50, 0x60)]


def test_graphics_in_unused_bits_of_the_pixels_are_cleared(tmp_path: Path) -> None:
    import numpy as np

    one = image()
    plain = np.frombuffer(one.PixelData, "<u2")
    one.PixelData = (plain | 0x4000).astype("<u2").tobytes()
    one.add_new(0x60000010, "US", 64)
    one.add_new(0x60000100, "US", 16)
    one.add_new(0x60000102, "US", 14)
    done, _ = through(tmp_path, one)
    assert done.PixelData == plain.tobytes()


def test_group_lengths_and_padding_go(tmp_path: Path) -> None:
    one = image()
    one.add_new(0xFFFCFFFC, "OB", b"hidden")
    _, content = through(tmp_path, one)
    assert b"hidden" not in content


def test_a_file_without_a_patient_id_gets_a_pseudonym_of_its_own(
    tmp_path: Path,
) -> None:
    one, other = image(), image()
    for index, each in enumerate((one, other)):
        each.PatientID = ""
        each.PatientName = f"Nobody{index}^Known"
    first, _ = through(tmp_path, one)
    second, _ = through(tmp_path, other)
    assert first.PatientID
    assert first.PatientID != second.PatientID


def test_pixels_stay_the_same_bytes(tmp_path: Path) -> None:
    one = image("MR")
    done, _ = through(tmp_path, one)
    assert done.PixelData == one.PixelData


def test_what_follows_the_last_pixel_is_cut(tmp_path: Path) -> None:
    one = image()
    one.PixelData += b"tail of Sieglinde"
    _, content = through(tmp_path, one)
    assert b"Sieglinde" not in content
