import pydicom
import pytest
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    generate_uid,
)

from services.dicom_client.acceptance import Acceptance, Decision, decide
from services.dicom_client.settings import BadSettings, read
from tests.extensions.structures.series import ct_series, enhanced

FEW = Acceptance(instances=4)


def codes(headers, settings=FEW):
    verdict = decide(headers, settings)
    return verdict.decision, [one.code for one in verdict.reasons]


def every(**values):
    headers = ct_series()
    for header in headers:
        for keyword, value in values.items():
            setattr(header, keyword, value)
    return headers


def without(headers, missing):
    return [one for at, one in enumerate(headers) if at != missing]


@pytest.mark.parametrize(
    "kind", [None, MRImageStorage, PositronEmissionTomographyImageStorage]
)
def test_a_whole_scan_is_taken(kind):
    headers = every(SOPClassUID=kind) if kind else ct_series()
    assert codes(headers) == (Decision.ACCEPTED, [])


@pytest.mark.parametrize("kind", [RTStructureSetStorage, UltrasoundImageStorage])
def test_another_kind_of_object_is_ignored(kind):
    assert codes(every(SOPClassUID=kind)) == (Decision.IGNORED, ["sop_class"])


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"SeriesDescription": "Topogram 0.6"},
        {"SeriesDescription": "SCOUT"},
    ],
)
def test_a_localizer_is_ignored_by_its_type_and_by_its_name(values):
    assert codes(every(**values)) == (Decision.IGNORED, ["localizer"])


def test_a_word_that_only_holds_a_localizers_name_is_none():
    assert codes(every(SeriesDescription="Scouting trip"))[0] is Decision.ACCEPTED


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (lambda: every(BurnedInAnnotation="YES"), "burned_in"),
        (lambda: every(SOPClassUID=SecondaryCaptureImageStorage), "burned_in"),
        (lambda: ct_series(slices=3), "few"),
        (
            lambda: [*ct_series(slices=6)[:3], *ct_series(slices=6)[4:]],
            "geometry_mixed",
        ),
        (
            lambda: [one for at, one in enumerate(ct_series()) if at != 3],
            "geometry_gap",
        ),
    ],
)
def test_what_a_person_has_to_look_at_is_held(headers, code):
    decision, found = codes(headers())
    assert decision is Decision.HELD
    assert code in found


@pytest.mark.parametrize(
    "kind",
    [
        EnhancedCTImageStorage,
        EnhancedMRImageStorage,
        EnhancedPETImageStorage,
        LegacyConvertedEnhancedCTImageStorage,
    ],
)
def test_a_multi_frame_scan_is_taken_by_the_frames_it_holds(kind):
    assert codes([enhanced(ct_series(), kind)]) == (Decision.ACCEPTED, [])
    assert codes([enhanced(ct_series(slices=3), kind)])[1] == ["few"]


def test_a_multi_frame_scan_that_forms_no_volume_is_held_with_the_reason():
    gap = enhanced([one for at, one in enumerate(ct_series()) if at != 3])
    assert codes([gap]) == (Decision.HELD, ["geometry_gap"])
    phases = enhanced(ct_series() * 2)
    assert codes([phases]) == (Decision.HELD, ["geometry_duplicate"])
    torn = enhanced(ct_series())
    torn.NumberOfFrames = 99
    assert "geometry_mixed" in codes([torn])[1]


def test_the_settings_say_what_is_segmented():
    only_mr = read({"sop_classes": ["MRImageStorage"], "min_instances": 4}).acceptance()
    assert codes(ct_series(), only_mr) == (Decision.IGNORED, ["sop_class"])
    assert codes(every(SOPClassUID=MRImageStorage), only_mr)[0] is Decision.ACCEPTED
    with pytest.raises(BadSettings, match="no storage class"):
        read({"sop_classes": ["CT"]})


def test_images_of_two_patients_are_held():
    headers = ct_series()
    headers[1].PatientID = "somebody else"
    assert "patient" in codes(headers)[1]


def test_two_frames_of_reference_are_held():
    headers = ct_series()
    headers[1].FrameOfReferenceUID = generate_uid()
    assert "geometry_mixed" in codes(headers)[1]


def test_an_old_study_is_ignored_and_one_without_a_date_is_not():
    settings = Acceptance(instances=4, study_date_from="20240101")
    assert codes(every(StudyDate="20231231"), settings)[1] == ["study_date"]
    assert codes(every(StudyDate="20240101"), settings)[0] is Decision.ACCEPTED
    assert codes(every(StudyDate=""), settings)[0] is Decision.ACCEPTED


def test_a_head_is_told_and_taken():
    headers = every(BodyPartExamined="HEAD")
    verdict = decide(headers, Acceptance(instances=4, recognisable=True))
    assert verdict.decision is Decision.ACCEPTED
    assert [one.code for one in verdict.warnings] == ["face"]


def test_no_reason_repeats_what_a_header_says():
    headers = every(SeriesDescription="Doe^Jane scout", PatientID="P-77")
    for one in decide(headers, FEW).reasons:
        assert "Doe" not in one.text
        assert "P-77" not in one.text


def test_the_phantom_is_taken_and_its_gap_held(shared_data):
    folder = shared_data / "ct_rtstruct" / "alderson_lungs" / "CT"
    headers = [
        pydicom.dcmread(file, stop_before_pixels=True) for file in folder.iterdir()
    ]
    assert decide(headers, Acceptance()).decision is Decision.ACCEPTED
    folder = shared_data / "malformed" / "ct_missing_slice"
    headers = [
        pydicom.dcmread(file, stop_before_pixels=True)
        for file in folder.iterdir()
        if file.is_file()
    ]
    assert "geometry_gap" in [one.code for one in decide(headers, FEW).reasons]
