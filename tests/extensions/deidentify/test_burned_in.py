"""Which files are held for what their pixels may show."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from theatrum import deidentify
from theatrum.deidentify import ocr

from tests.extensions.deidentify.running import image, package, profile, put


def reasons(tmp_path: Path, one: Dataset, *options: str) -> list[str]:
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm")
    done = package(source, tmp_path / "out", profile(*options))
    return [entry.reason for entry in [*done.report.held, *done.report.refused]]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BurnedInAnnotation", "YES"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7.4"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.77.1.4"),
        ("Modality", "US"),
        ("Modality", "XC"),
        ("ConversionType", "WSD"),
        ("ConversionType", "SD"),
        ("ImageType", ["DERIVED", "SECONDARY", "SCREEN SAVE"]),
        ("SeriesDescription", "Dose Report"),
    ],
)
@pytest.mark.parametrize("option", ["", "clean_pixel_data"])
def test_pixels_that_may_show_a_name_are_held(
    tmp_path: Path, keyword: str, value: object, option: str
) -> None:
    one = image()
    setattr(one, keyword, value)
    assert reasons(tmp_path, one, *([option] if option else [])) == ["burned_in"]


def test_a_document_is_held(tmp_path: Path) -> None:
    one = image()
    del one.PixelData
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    one.EncapsulatedDocument = b"%PDF-1.7 of somebody"
    assert reasons(tmp_path, one) == ["burned_in"]


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_plain_slice_is_not_held(tmp_path: Path, modality: str) -> None:
    one = image(modality)
    one.BurnedInAnnotation = "NO"
    assert reasons(tmp_path, one) == []


def test_a_region_known_by_the_scanner_is_blackened(tmp_path: Path) -> None:
    import numpy as np
    from pydicom import dcmread

    one = image("US")
    one.Manufacturer, one.ManufacturerModelName = "Philips", "EPIQ 7"
    one.Rows, one.Columns, one.BitsAllocated = 768, 1024, 8
    one.BitsStored, one.HighBit = 8, 7
    one.PixelData = bytes([200]) * (768 * 1024)
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm")
    done = package(source, tmp_path / "out", profile("clean_pixel_data"))
    after = dcmread(tmp_path / "out" / done.names[1]).pixel_array
    assert not np.asarray(after[:72]).any()
    assert (np.asarray(after[72:]) == 200).all()


def test_pixels_that_no_decoder_reads_are_held_not_passed(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.sequence import Sequence

    one = image("US")
    region = Dataset()
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 8
    region.RegionLocationMaxX1 = region.RegionLocationMaxY1 = 50
    one.SequenceOfUltrasoundRegions = Sequence([region])
    one.Manufacturer = "Philips"
    one.PixelData = encapsulate([b"\xff\xd8no picture at all"])
    one["PixelData"].VR = "OB"
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm", "1.2.840.10008.1.2.4.50")
    done = package(source, tmp_path / "out", profile("clean_pixel_data"))
    assert [entry.reason for entry in done.report.held] == ["burned_in"]


def test_the_rules_name_attributes_of_the_dictionary() -> None:
    folder = resources.files("theatrum.deidentify") / "data"
    table = json.loads((folder / "burned_in.json").read_text())
    assert table["version"]
    for rule in table["rules"]:
        assert rule["then"] in ("hold", "blank", "pass"), rule["name"]
        assert all(tag_for_keyword(keyword) for keyword in rule["when"]), rule["name"]


def test_a_profile_that_wants_ocr_says_so_where_there_is_none() -> None:
    if ocr.is_available():
        pytest.skip("Tesseract is installed here")
    with pytest.raises(deidentify.ProfileError, match="pytesseract"):
        deidentify.Deidentifier(profile(more="text_detection: ocr"), bytes(32))


def test_text_in_pixels_is_read_where_tesseract_is(tmp_path: Path) -> None:
    if not ocr.is_available():
        pytest.skip("pytesseract or tesseract is not installed")
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("L", (400, 120))
    font = ImageFont.load_default(48)
    ImageDraw.Draw(canvas).text((10, 20), "JOHNSON", fill=255, font=font)
    one = image()
    one.Rows, one.Columns = 120, 400
    one.PixelData = np.asarray(canvas).astype("<u2").tobytes()
    source = tmp_path / "in"
    source.mkdir()
    put(one, source / "one.dcm")
    using = profile(more="text_detection: ocr")
    done = package(source, tmp_path / "out", using)
    assert [entry.reason for entry in done.report.held] == ["burned_in"]
