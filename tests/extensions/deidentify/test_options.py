"""Each option of Annex E, by what it lets through and what it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from theatrum import deidentify
from theatrum.deidentify.safe_private import SafeList

from tests.extensions.deidentify.running import (
    MODIFIED,
    image,
    package,
    profile,
    put,
    through,
)


def test_full_dates_are_kept_and_the_birth_date_is_not(tmp_path: Path) -> None:
    one = image()
    done, _ = through(tmp_path, one, "retain_longitudinal_full_dates")
    assert done.StudyDate == one.StudyDate
    assert done.SeriesTime == one.SeriesTime
    assert done.PatientBirthDate == ""


def test_modified_dates_keep_intervals(tmp_path: Path) -> None:
    one = image()
    done, _ = through(tmp_path, one, MODIFIED)
    assert done.StudyDate not in ("", one.StudyDate)
    assert done.ContentTime == one.ContentTime


def test_patient_characteristics_are_kept(tmp_path: Path) -> None:
    one = image("PT")
    one.PatientSize, one.PatientWeight, one.PatientAge = "1.71", "68", "051Y"
    one.Allergies = "latex seen by Hildegunde"
    done, content = through(tmp_path, one, "retain_patient_characteristics")
    assert (done.PatientWeight, done.PatientSize) == (68, 1.71)
    assert (done.PatientSex, done.PatientAge) == ("F", "051Y")
    assert b"Hildegunde" not in content
    assert "PatientWeight" not in through(tmp_path, one)[0]


def test_device_identity_is_kept(tmp_path: Path) -> None:
    one = image()
    one.StationName, one.DeviceSerialNumber = "CTSCANNER7", "SN48213"
    done, _ = through(tmp_path, one, "retain_device_identity")
    assert done.StationName == "CTSCANNER7"
    assert done.DeviceSerialNumber == "SN48213"
    assert "StationName" not in through(tmp_path, one)[0]


def test_institution_identity_is_kept(tmp_path: Path) -> None:
    one = image()
    done, _ = through(tmp_path, one, "retain_institution_identity")
    assert done.InstitutionName == "Saint Zyprianus Infirmary"


def test_uids_are_kept_and_name_the_file(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    one = image()
    put(one, source / "one.dcm")
    done = package(source, tmp_path / "out", profile("retain_uids"))
    assert done.names == {1: f"{one.SOPInstanceUID}.dcm"}
    assert list(done.report.series) == [one.SeriesInstanceUID]


def test_safe_private_attributes_are_kept_with_their_creator(tmp_path: Path) -> None:
    one = image("MR")
    one.add_new(0x00190011, "LO", "SIEMENS MR HEADER")
    one.add_new(0x0019110C, "IS", "1000")
    one.add_new(0x0019110D, "CS", "Not A Code Of Lieselotte")
    one.add_new(0x00191150, "LO", "unlisted")
    one.add_new(0x00210010, "LO", "OTHER CREATOR")
    one.add_new(0x0021100C, "IS", "7")
    done, content = through(tmp_path, one, "retain_safe_private")
    assert done[0x0019110C].value == 1000
    assert done[0x00190011].value == "SIEMENS MR HEADER"
    assert 0x0019110D not in done
    assert 0x00191150 not in done
    assert 0x00210010 not in done
    assert b"Lieselotte" not in content


def test_the_safe_list_is_the_table_without_bytes_of_any_meaning() -> None:
    vrs = SafeList.of(profile("retain_safe_private")).vrs
    assert len(vrs) == 479 - 20 - 5  # without OB and OW, and what has no VR
    assert {creator for creator, _, _ in vrs} > {"NQLeft", "Philips Imaging DD 129"}
    assert vrs["GEMS_PARM_01", 0x0043, 0x6F] == "DS"
    assert vrs["Philips Imaging DD 001", 0x2001, 0x5F] == "SQ"
    assert not {"OB", "OW", "UN", "DA", "PN"} & set(vrs.values())


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_text_of_safe_private_attributes_is_cleared_whatever_the_syntax(
    tmp_path: Path, syntax: str
) -> None:
    one = image("MR")
    surname = str(one.PatientName).split("^")[0]
    one.add_new(0x20010010, "LO", "Philips Imaging DD 001")
    one.add_new(0x200110C1, "LO", f"Stack of {surname}")
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm", syntax)
    made = package(source, tmp_path / "out", profile("retain_safe_private"))
    done = dcmread(tmp_path / "out" / made.names[1])
    assert done[0x200110C1].value == "Stack of"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_safe_private_sequence_is_cleaned_inside(tmp_path: Path, syntax: str) -> None:
    one, stack = image("MR"), Dataset()
    stack.PatientName = "Roswitha^Gandersheim"
    stack.Rows = 7
    stack.ReferencedSOPInstanceUID = "1.2.3.4.5.6.7.8.9"
    stack.add_new(0x20010010, "LO", "Philips Imaging DD 001")
    stack.add_new(0x2001102D, "SS", 12)
    stack.add_new(0x20011050, "LO", "by Roswitha")
    stack.add_new(0x20011052, "LO", "unlisted")
    one.add_new(0x20010010, "LO", "Philips Imaging DD 001")
    one.add_new(0x2001105F, "SQ", Sequence([stack]))
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm", syntax)
    made = package(source, tmp_path / "out", profile("retain_safe_private"))
    content = (tmp_path / "out" / made.names[1]).read_bytes()
    (inside,) = dcmread(tmp_path / "out" / made.names[1])[0x2001105F].value
    assert (inside[0x2001102D].value, inside.Rows) == (12, 7)
    assert inside[0x20011050].value == "by"
    assert inside.ReferencedSOPInstanceUID.startswith("2.25.")
    assert 0x20011052 not in inside
    assert b"Gandersheim" not in content


def test_a_uid_in_a_safe_private_attribute_is_replaced_as_everywhere(
    tmp_path: Path,
) -> None:
    one = image("MR")
    one.add_new(0x00990010, "LO", "NQHeader")
    one.add_new(0x00991002, "UI", str(one.SeriesInstanceUID))
    done, _ = through(tmp_path, one, "retain_safe_private")
    assert done[0x00991002].value == done.SeriesInstanceUID
    one.PatientID += "X"
    kept, _ = through(tmp_path, one, "retain_safe_private", "retain_uids")
    assert kept[0x00991002].value == one.SeriesInstanceUID


def test_a_profile_adds_safe_private_attributes(tmp_path: Path) -> None:
    one = image()
    one.add_new(0x00110010, "LO", "HOUSE")
    one.add_new(0x00111042, "DS", "1.5")
    entry = "{creator: HOUSE, group: '0011', element: '42', vr: DS}"
    done, _ = through(
        tmp_path, one, "retain_safe_private", more=f"safe_private: [{entry}]"
    )
    assert done[0x00111042].value == 1.5


def test_descriptors_keep_only_words_that_say_nothing(tmp_path: Path) -> None:
    one = image()
    one.SeriesDescription = "Thorax 3.0 B30f for Mrs Kunigunde, Ward 7C"
    done, content = through(tmp_path, one, "clean_descriptors")
    assert done.SeriesDescription.startswith("Thorax 3.0")
    assert b"Kunigunde" not in content
    assert b"Mrs" not in content
    assert done.StudyDescription == "CT chest of"


def test_structured_content_is_cleaned_inside(tmp_path: Path) -> None:
    one = Dataset()
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    one.SOPInstanceUID, one.Modality = "1.2.3.456789.1", "SR"
    one.PatientName, one.PatientID = "Roswitha^Gandersheim", "R77812"
    one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3.456789.2", "1.2.3.456789.3"
    text, who = Dataset(), Dataset()
    text.ValueType, text.TextValue = "TEXT", "Nodule in left lung of Roswitha"
    who.ValueType, who.PersonName = "PNAME", "Gandersheim^Doctor"
    one.ContentSequence = Sequence([text, who])
    done, content = through(tmp_path, one, "clean_structured_content")
    assert done.ContentSequence[0].TextValue == "Nodule in left lung of"
    assert b"Roswitha" not in content
    assert b"Gandersheim" not in content
    done, content = through(tmp_path, one)
    assert b"Nodule" not in content
    assert len(done.ContentSequence) == 2


def test_graphics_keep_their_shape_and_lose_their_text(tmp_path: Path) -> None:
    one = image()
    note, text, line = Dataset(), Dataset(), Dataset()
    text.UnformattedTextValue = "lesion of Walburga"
    line.GraphicData, line.GraphicType = [1.0, 2.0, 3.0, 4.0], "POLYLINE"
    note.TextObjectSequence = Sequence([text])
    note.GraphicObjectSequence = Sequence([line])
    one.GraphicAnnotationSequence = Sequence([note])
    bare, content = through(tmp_path, one, "clean_graphics")
    note = bare.GraphicAnnotationSequence[0]
    assert "lesion" not in note.TextObjectSequence[0].UnformattedTextValue
    done, content = through(tmp_path, one, "clean_graphics", "clean_descriptors")
    kept = done.GraphicAnnotationSequence[0]
    assert kept.GraphicObjectSequence[0].GraphicData == [1.0, 2.0, 3.0, 4.0]
    assert kept.TextObjectSequence[0].UnformattedTextValue == "lesion of"
    assert b"Walburga" not in content


def ultrasound() -> Dataset:
    one = image("US")
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 8, 16
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 55, 63
    one.SequenceOfUltrasoundRegions = Sequence([region])
    one.BurnedInAnnotation = "YES"
    return one


@pytest.mark.parametrize("compressed", [False, True])
def test_pixels_outside_a_known_region_are_blackened(
    tmp_path: Path, *, compressed: bool
) -> None:
    from pydicom.uid import RLELossless

    one = ultrasound()
    before = one.PixelData
    if compressed:
        one.ensure_file_meta()
        one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        one.compress(RLELossless, generate_instance_uid=False)
    source = tmp_path / "in"
    source.mkdir()
    put(
        one,
        source / "one.dcm",
        one.file_meta.TransferSyntaxUID if compressed else "1.2.840.10008.1.2.1",
    )
    done = package(source, tmp_path / "out", profile("clean_pixel_data"))
    assert done.names, done.report.as_json()
    from pydicom import dcmread

    after = dcmread(tmp_path / "out" / done.names[1])
    pixels = after.pixel_array
    whole = np.frombuffer(before, "<u2").reshape(64, 64)
    assert (pixels[16:64, 8:56] == whole[16:64, 8:56]).all()
    assert not pixels[:16].any()
    assert not pixels[:, :8].any()
    assert after.BurnedInAnnotation == "NO"


def test_pixels_are_not_blackened_without_the_option(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    put(ultrasound(), source / "one.dcm")
    done = package(source, tmp_path / "out", profile())
    assert [entry.reason for entry in done.report.held] == ["burned_in"]


def test_a_head_is_held_where_faces_must_not_come_out(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    head, chest, unknown = image(), image(), image()
    head.BodyPartExamined = "HEAD"
    del unknown.BodyPartExamined
    for number, one in enumerate((head, chest, unknown)):
        one.SOPInstanceUID += f".{number}"
        put(one, source / f"{number}.dcm")
    using = profile("clean_recognizable_visual_features")
    done = package(source, tmp_path / "out", using)
    assert [entry.number for entry in done.report.held] == [1, 3]
    assert {e.reason for e in done.report.held} == {"recognizable_visual_features"}
    from pydicom import dcmread

    assert dcmread(tmp_path / "out" / done.names[2]).RecognizableVisualFeatures == "NO"


@pytest.mark.parametrize("option", list(deidentify.Option))
def test_each_option_is_told_by_its_code(
    tmp_path: Path, option: deidentify.Option
) -> None:
    from theatrum.deidentify.annex_e import CODES

    done, _ = through(tmp_path, image(), option.value)
    codes = [item.CodeValue for item in done.DeidentificationMethodCodeSequence]
    assert codes == ["113100", CODES[option][0]]
